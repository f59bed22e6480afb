//! A store, a scheduler and agents, as simple as can be, around one service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{NodeId, Task, TaskId, TaskState, Timestamp, Version};
use skep_proto as proto;
use skep_proto::service_spec::Mode;
use skep_proto::update_config::{FailureAction, UpdateOrder};
use skep_proto::update_status::UpdateState;

use crate::{Action, Nodes, Plan, ServiceView, UpdateRun, new_task, reconcile};

pub(super) struct World {
    pub(super) service: proto::Service,
    pub(super) tasks: BTreeMap<TaskId, Arc<Task>>,
    pub(super) nodes: Nodes,
    pub(super) now: Timestamp,
    pub(super) run: UpdateRun,
    pub(super) history_limit: i64,
    /// Tasks of this version of the spec fail when they are started.
    pub(super) broken: Option<u64>,
    pub(super) wake_at: Option<Timestamp>,
    made: u32,
    index: u64,
}

pub(super) fn node(id: &str) -> Arc<proto::Node> {
    Arc::new(proto::Node {
        id: id.into(),
        spec: Some(proto::NodeSpec::default()),
        status: Some(proto::NodeStatus {
            state: proto::node_status::State::Ready.into(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

impl World {
    pub(super) fn new(mode: Mode) -> Self {
        let nodes = ["a", "b", "c"].map(|id| (NodeId::from(id), node(id)));
        Self {
            service: proto::Service {
                id: "web".into(),
                spec: Some(proto::ServiceSpec {
                    task: Some(proto::TaskSpec::default()),
                    mode: Some(mode),
                    ..Default::default()
                }),
                spec_version: Some(proto::Version { index: 0 }),
                ..Default::default()
            },
            tasks: BTreeMap::new(),
            nodes: nodes.into(),
            now: Timestamp::from_secs(1_000),
            run: UpdateRun::default(),
            history_limit: 5,
            broken: None,
            wake_at: None,
            made: 0,
            index: 0,
        }
    }

    pub(super) fn replicated(replicas: u64) -> Self {
        Self::new(Mode::Replicated(proto::ReplicatedService { replicas }))
    }

    pub(super) fn global() -> Self {
        Self::new(Mode::Global(proto::GlobalService {}))
    }

    pub(super) fn spec(&mut self) -> &mut proto::ServiceSpec {
        self.service.spec.as_mut().unwrap()
    }

    pub(super) fn task_spec(&mut self) -> &mut proto::TaskSpec {
        self.spec().task.as_mut().unwrap()
    }

    /// What `docker service update` does.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut proto::ServiceSpec)) {
        self.index += 1;
        self.service.previous_spec.clone_from(&self.service.spec);
        self.service.previous_spec_version = self.service.spec_version;
        change(self.service.spec.as_mut().unwrap());
        self.service.spec_version = Some(proto::Version { index: self.index });
        self.service.update_status = None;
    }

    /// An update that replaces every task; returns the new version.
    pub(super) fn force_update(&mut self) -> u64 {
        self.update(|spec| spec.task.as_mut().unwrap().force_update += 1);
        self.index
    }

    pub(super) fn update_config(&mut self, change: impl FnOnce(&mut proto::UpdateConfig)) {
        let config = self
            .spec()
            .update
            .get_or_insert_with(skep_model::defaults::update_config);
        change(config);
    }

    pub(super) fn order(&mut self, order: UpdateOrder) {
        self.update_config(|config| config.order = order.into());
    }

    pub(super) fn on_failure(&mut self, action: FailureAction) {
        self.update_config(|config| config.failure_action = action.into());
    }

    pub(super) fn restart_policy(&mut self, change: impl FnOnce(&mut proto::RestartPolicy)) {
        let policy = skep_model::defaults::restart_policy;
        change(self.task_spec().restart.get_or_insert_with(policy));
    }

    pub(super) fn scale(&mut self, replicas: u64) {
        let mode = Mode::Replicated(proto::ReplicatedService { replicas });
        self.update(|spec| spec.mode = Some(mode));
    }

    pub(super) fn plan(&mut self) -> Plan {
        let tasks: Vec<Arc<Task>> = self.tasks.values().cloned().collect();
        let view = ServiceView {
            service: &self.service,
            tasks: &tasks,
            nodes: &self.nodes,
            history_limit: self.history_limit,
            now: self.now,
        };
        reconcile(&view, &mut self.run)
    }

    pub(super) fn apply(&mut self, plan: &Plan) {
        for action in &plan.actions {
            self.index += 1;
            match action {
                Action::Create(new) => {
                    self.made += 1;
                    let id = TaskId::from(format!("t{:03}", self.made));
                    let spec = self.service.spec.clone().unwrap().task.unwrap();
                    let mut task = new_task(
                        new,
                        id.clone(),
                        &self.service,
                        Arc::new(spec),
                        Arc::default(),
                        None,
                        self.now,
                    );
                    task.meta.created_at = Some(self.now);
                    task.meta.version = Version(self.index);
                    self.tasks.insert(id, Arc::new(task));
                }
                Action::SetDesired { task, desired } => {
                    let task = Arc::make_mut(self.tasks.get_mut(task).unwrap());
                    task.desired_state = task.desired_state.max(*desired);
                }
                Action::Delete { task } => {
                    self.tasks.remove(task).unwrap();
                }
                Action::Reject { task } => self.report(&task.clone(), TaskState::Rejected),
                Action::SetUpdateStatus(status) => {
                    self.service.update_status = Some(status.clone());
                }
                Action::RollBack(status) => {
                    self.service.update_status = Some(status.clone());
                    self.service.spec = self.service.previous_spec.take();
                    self.service.spec_version = self.service.previous_spec_version.take();
                }
            }
        }
        self.wake_at = plan.wake_at;
    }

    /// Decides and applies once.
    pub(super) fn apply_next(&mut self) {
        let plan = self.plan();
        self.apply(&plan);
    }

    /// Decides and applies until there is nothing more to do; everything else stands still.
    pub(super) fn reconcile(&mut self) {
        for _ in 0..6 {
            let plan = self.plan();
            if plan.actions.is_empty() {
                self.wake_at = plan.wake_at;
                return;
            }
            self.apply(&plan);
        }
        panic!("reconciling does not come to rest: {:?}", self.plan());
    }

    /// Lets scheduler, agents and orchestrator work until all rest, without time passing.
    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            self.reconcile();
            let ids: Vec<TaskId> = self.tasks.keys().cloned().collect();
            let moved = ids.iter().filter(|id| self.work(id)).count();
            if moved == 0 {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// One step of one task by scheduler or agent; false if it has nowhere to go.
    pub(super) fn work(&mut self, id: &TaskId) -> bool {
        let Some(task) = self.tasks.get(id).cloned() else {
            return false;
        };
        let state = task.status.state;
        if state < TaskState::Assigned {
            return task.desired_state <= TaskState::Complete && self.assign(&task);
        }
        let node = task.node_id.as_ref().and_then(|id| self.nodes.get(id));
        if node.is_none_or(|node| crate::view::is_down(node)) || state.is_terminal() {
            return false;
        }
        let broken = task.spec_version.map(|version| version.0) == self.broken;
        let next = match task.desired_state {
            desired if desired > TaskState::Complete => TaskState::Shutdown,
            TaskState::Running | TaskState::Complete if broken => TaskState::Failed,
            TaskState::Running | TaskState::Complete => TaskState::Running,
            desired => desired,
        };
        if next > state {
            self.report(id, next);
        }
        next > state
    }

    /// One step of every task.
    pub(super) fn work_all(&mut self) {
        let ids: Vec<TaskId> = self.tasks.keys().cloned().collect();
        for id in ids {
            self.work(&id);
        }
    }

    fn assign(&mut self, task: &Task) -> bool {
        let load = |id: &NodeId| {
            self.tasks
                .values()
                .filter(|t| t.node_id.as_ref() == Some(id) && !t.status.state.is_terminal())
                .count()
        };
        let valid = self
            .nodes
            .iter()
            .filter(|(_, n)| !crate::is_invalid(Some(n)) && !crate::view::is_paused(n));
        let node = match &task.node_id {
            Some(node) => Some(node.clone()),
            None => valid.map(|(id, _)| id).min_by_key(|id| load(id)).cloned(),
        };
        let Some(node) = node else { return false };
        Arc::make_mut(self.tasks.get_mut(&task.id).unwrap()).node_id = Some(node);
        self.report(&task.id.clone(), TaskState::Assigned);
        true
    }

    pub(super) fn report(&mut self, id: &TaskId, state: TaskState) {
        let task = Arc::make_mut(self.tasks.get_mut(id).unwrap());
        task.status.state = state;
        task.status.timestamp = Some(self.now);
        task.status.applied_at = Some(self.now);
    }

    /// Advances the clock, waking up whenever a plan asked for it.
    pub(super) fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        self.settle();
        while let Some(at) = self.wake_at.filter(|at| *at <= end) {
            assert!(at > self.now, "woke up for nothing at {}", self.now);
            self.now = at;
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// A new leader knows nothing but the store.
    pub(super) fn change_leader(&mut self) {
        self.run = UpdateRun::default();
    }

    pub(super) fn set_node(&mut self, id: &str, change: impl FnOnce(&mut proto::Node)) {
        change(Arc::make_mut(self.nodes.get_mut(id).unwrap()));
    }

    pub(super) fn set_node_state(&mut self, id: &str, state: proto::node_status::State) {
        self.set_node(id, |node| {
            node.status.as_mut().unwrap().state = state.into();
        });
    }

    pub(super) fn set_availability(&mut self, id: &str, to: proto::node_spec::Availability) {
        self.set_node(id, |node| {
            node.spec.as_mut().unwrap().availability = to.into();
        });
    }

    /// The task that lives in a slot; panics if there are several.
    pub(super) fn live(&self, slot: u64) -> Arc<Task> {
        let mut live = self
            .in_slot(slot)
            .into_iter()
            .filter(|t| crate::place::is_live(t));
        let task = live.next().expect("a live task");
        assert_eq!(live.next(), None, "one live task");
        task
    }

    /// All tasks of a slot, oldest first.
    pub(super) fn in_slot(&self, slot: u64) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = self
            .tasks
            .values()
            .filter(|t| t.slot.0 == slot)
            .cloned()
            .collect();
        tasks.sort_by_key(|task| task.meta.version);
        tasks
    }

    pub(super) fn fail(&mut self, slot: u64) -> TaskId {
        let task = self.live(slot);
        self.report(&task.id, TaskState::Failed);
        task.id.clone()
    }

    /// Slots with a running task, each with the version of its spec.
    pub(super) fn running(&self) -> Vec<(u64, u64)> {
        let mut running: Vec<_> = self
            .tasks
            .values()
            .filter(|task| task.is_running())
            .map(|task| (task.slot.0, task.spec_version.unwrap().0))
            .collect();
        running.sort_unstable();
        running
    }

    /// How many running tasks have this version.
    pub(super) fn at_version(&self, version: u64) -> usize {
        self.running().iter().filter(|(_, v)| *v == version).count()
    }

    pub(super) fn update_state(&self) -> Option<UpdateState> {
        self.service
            .update_status
            .as_ref()
            .map(proto::UpdateStatus::state)
    }

    pub(super) fn message(&self) -> &str {
        &self.service.update_status.as_ref().unwrap().message
    }
}
