//! What the leader knows beside the store: what to look at, and what the scheduler and running
//! updates must remember. Synchronous throughout; a new leader builds it from a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::ext::{ClusterExt as _, ClusterSpecExt as _, ServiceExt as _, ServiceSpecExt as _};
use skep_model::{
    NodeId, Object, ServiceId, Task, TaskId, TaskState, Timestamp, Version, defaults, labels,
};
use skep_orchestrator::{
    Action, Nodes, ServiceView, UpdateRun, new_task, noncompliant, reconcile, remove_orphans,
};
use skep_proto as proto;
use skep_scheduler::{Decision, NodeSet};
use skep_store::{Event, View};

use super::write::{PENDING, Write, waits};

/// After so many writes in one pass, the other services wait for the next.
const ENOUGH: usize = 2_000;

/// Tasks of one service and one version of its spec ask the same of a node.
type Group = (Option<ServiceId>, Option<Version>);

#[derive(Default)]
pub(super) struct Picture {
    nodes: Nodes,
    node_set: NodeSet,
    updates: BTreeMap<ServiceId, UpdateRun>,
    /// Services to look at.
    dirty: BTreeSet<ServiceId>,
    /// When to look at a service even if nothing changes, both ways round.
    wakes: BTreeMap<ServiceId, Timestamp>,
    wakes_by_time: BTreeSet<(Timestamp, ServiceId)>,
    /// Tasks without a node.
    waiting: BTreeMap<Group, BTreeSet<TaskId>>,
    /// Tasks whose node is chosen but has not been asked yet.
    preassigned: BTreeSet<TaskId>,
    /// Groups to find nodes for now.
    fresh: BTreeSet<Group>,
    /// Nodes changed, or something became free on one: all that wait get another try.
    retry: bool,
    /// Nodes whose tasks may no longer fit.
    to_check: BTreeSet<NodeId>,
}

impl Picture {
    /// Everything is to be looked at.
    pub(super) fn new(view: &View, now: Timestamp) -> Self {
        let mut picture = Self::default();
        picture.set_strategy(view.the_cluster().map(|cluster| &**cluster));
        for node in view.nodes() {
            picture.put_node(node);
        }
        for service in view.services() {
            picture.dirty.insert(service.id.as_str().into());
        }
        for task in view.tasks() {
            picture.put_task(None, task, now);
            // Also services that are gone but have tasks left.
            picture.dirty.extend(task.service_id.clone());
        }
        picture
    }

    pub(super) fn has_work(&self) -> bool {
        !self.dirty.is_empty() || !self.to_check.is_empty() || self.retry || !self.fresh.is_empty()
    }

    /// The next time at which something is due; the past if there is work already.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        if self.has_work() {
            return Some(Timestamp::UNIX_EPOCH);
        }
        self.wakes_by_time.first().map(|(at, _)| *at)
    }

    /// Enters a committed change.
    pub(super) fn observe(&mut self, event: &Event, now: Timestamp) {
        match (&event.old, &event.new) {
            (old, Some(Object::Task(task))) => {
                let old = match old {
                    Some(Object::Task(old)) => Some(&**old),
                    _ => None,
                };
                self.put_task(old, task, now);
            }
            (Some(Object::Task(task)), None) => self.forget_task(task),
            (_, Some(Object::Node(node))) => self.put_node(node),
            (Some(Object::Node(node)), None) => {
                let id = NodeId::from(node.id.as_str());
                self.nodes.remove(&id);
                self.node_set.remove_node(&id);
                self.to_check.insert(id);
            }
            (_, Some(Object::Service(service))) | (Some(Object::Service(service)), None) => {
                self.dirty.insert(service.id.as_str().into());
            }
            (_, Some(Object::Cluster(cluster))) => self.set_strategy(Some(cluster)),
            // Its history limit and log driver are read when they are needed.
            _ => {}
        }
    }

    /// A swarm's label chooses for all services that do not.
    fn set_strategy(&mut self, cluster: Option<&proto::Cluster>) {
        let strategy = cluster.and_then(|cluster| {
            let annotations = cluster.spec().annotations();
            labels::Strategy::of(&annotations.labels)
        });
        self.node_set.set_strategy(strategy.unwrap_or_default());
    }

    fn put_node(&mut self, node: &Arc<proto::Node>) {
        let id = NodeId::from(node.id.as_str());
        self.nodes.insert(id.clone(), Arc::clone(node));
        self.node_set.upsert_node(Arc::clone(node));
        // Which services that concerns is found when the node is checked.
        self.to_check.insert(id);
        self.retry = true;
    }

    fn put_task(&mut self, old: Option<&Task>, task: &Arc<Task>, now: Timestamp) {
        self.retry |= self.node_set.upsert_task(task, now);
        let group = (task.service_id.clone(), task.spec_version);
        if !waits(task) {
            self.stop_waiting(&group, &task.id);
        } else if task.node_id.is_some() {
            self.preassigned.insert(task.id.clone());
        } else if self
            .waiting
            .entry(group.clone())
            .or_default()
            .insert(task.id.clone())
        {
            self.fresh.insert(group);
        }
        if concerns_orchestrator(old, task) {
            self.dirty.extend(task.service_id.clone());
        }
    }

    fn forget_task(&mut self, task: &Task) {
        self.retry |= self.node_set.remove_task(&task.id);
        self.stop_waiting(&(task.service_id.clone(), task.spec_version), &task.id);
        if task.desired_state <= TaskState::Complete {
            self.dirty.extend(task.service_id.clone());
        }
    }

    fn stop_waiting(&mut self, group: &Group, task: &TaskId) {
        self.preassigned.remove(task);
        if let Some(tasks) = self.waiting.get_mut(group) {
            tasks.remove(task);
            if tasks.is_empty() {
                self.waiting.remove(group);
                self.fresh.remove(group);
            }
        }
    }

    /// A write was found stale: what it was about is looked at again, as it is now.
    pub(super) fn look_again(&mut self, write: &Write, view: &View, now: Timestamp) {
        let (id, created) = match write {
            Write::Create(task) => (&task.id, task.service_id.clone()),
            Write::Assign { task, .. }
            | Write::Explain { task, .. }
            | Write::Desired { task, .. }
            | Write::Reject { task, .. }
            | Write::Delete { task } => (task, None),
            Write::UpdateStatus { service, .. } | Write::RollBack { service, .. } => {
                self.dirty.insert(service.clone());
                return;
            }
        };
        self.dirty.extend(created);
        if let Some(task) = view.task(id) {
            self.dirty.extend(task.service_id.clone());
            self.put_task(None, task, now);
            let group = (task.service_id.clone(), task.spec_version);
            self.fresh.insert(group);
            return;
        }
        self.node_set.remove_task(id);
        if let Write::Create(task) = write {
            self.stop_waiting(&(task.service_id.clone(), task.spec_version), id);
        }
    }

    /// Everything there is to do now.
    pub(super) fn decide(&mut self, view: &View, now: Timestamp) -> Vec<Write> {
        let mut writes = Vec::new();
        self.check_nodes(view, now, &mut writes);
        self.take_due(now);
        let mut made = Vec::new();
        while let Some(service) = self.dirty.pop_first() {
            self.look_at(&service, view, now, &mut writes, &mut made);
            if writes.len() + made.len() >= ENOUGH {
                break;
            }
        }
        self.schedule_waiting(view, now, &mut writes);
        self.schedule_made(made, now, &mut writes);
        writes
    }

    /// For nodes that changed: rejects what no longer fits, and marks the services concerned.
    fn check_nodes(&mut self, view: &View, now: Timestamp, writes: &mut Vec<Write>) {
        let nodes = std::mem::take(&mut self.to_check);
        if nodes.is_empty() {
            return;
        }
        for id in &nodes {
            let tasks: Vec<Arc<Task>> = view.tasks_on_node(id).cloned().collect();
            self.dirty
                .extend(tasks.iter().filter_map(|task| task.service_id.clone()));
            let Some(node) = self.nodes.get(id) else {
                continue;
            };
            let rejected = noncompliant(node, &tasks, |id| view.service(id).map(|s| &**s));
            writes.extend(
                rejected
                    .into_iter()
                    .map(|task| Write::Reject { task, at: now }),
            );
        }
        // A node that came is also of interest to services which spread anew.
        let by_node = |service: &&Arc<proto::Service>| {
            use proto::service_spec::Mode;
            matches!(
                service.spec().mode,
                Some(Mode::Global(_) | Mode::GlobalJob(_))
            ) || labels::flag(&service.spec().annotations().labels, labels::REBALANCE)
        };
        self.dirty.extend(
            view.services()
                .filter(by_node)
                .map(|s| ServiceId::from(s.id.as_str())),
        );
    }

    fn take_due(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.wakes_by_time.first() {
            if *at > now {
                return;
            }
            if let Some((_, service)) = self.wakes_by_time.pop_first() {
                self.wakes.remove(&service);
                self.dirty.insert(service);
            }
        }
    }

    fn set_wake(&mut self, service: &ServiceId, at: Option<Timestamp>) {
        if let Some(old) = self.wakes.remove(service) {
            self.wakes_by_time.remove(&(old, service.clone()));
        }
        if let Some(at) = at {
            self.wakes.insert(service.clone(), at);
            self.wakes_by_time.insert((at, service.clone()));
        }
    }

    fn look_at(
        &mut self,
        id: &ServiceId,
        view: &View,
        now: Timestamp,
        writes: &mut Vec<Write>,
        made: &mut Vec<Task>,
    ) {
        let tasks: Vec<Arc<Task>> = view.tasks_of_service(id).cloned().collect();
        let plan = if let Some(service) = view.service(id) {
            let view = ServiceView {
                service,
                tasks: &tasks,
                nodes: &self.nodes,
                history_limit: history_limit(view),
                now,
            };
            reconcile(&view, self.updates.entry(id.clone()).or_default())
        } else {
            self.updates.remove(id);
            remove_orphans(&tasks, &self.nodes)
        };
        self.set_wake(id, plan.wake_at);
        let mut factory = None;
        for action in plan.actions {
            let write = match action {
                Action::Create(new) => {
                    let Some(service) = view.service(id) else {
                        continue;
                    };
                    let factory = factory.get_or_insert_with(|| Factory::new(view, service));
                    made.push(factory.make(&new, now));
                    continue;
                }
                Action::SetDesired { task, desired } => {
                    self.expect_desired(view, &task, desired, now);
                    Write::Desired { task, desired }
                }
                Action::Delete { task } => Write::Delete { task },
                Action::Reject { task } => Write::Reject { task, at: now },
                Action::SetUpdateStatus(status) => Write::UpdateStatus {
                    service: id.clone(),
                    version: version(view, id),
                    status,
                },
                Action::RollBack(status) => Write::RollBack {
                    service: id.clone(),
                    version: version(view, id),
                    status,
                },
            };
            writes.push(write);
        }
    }

    /// A task that is about to stop no longer counts where its successor is to be placed.
    fn expect_desired(&mut self, view: &View, id: &TaskId, desired: TaskState, now: Timestamp) {
        if let Some(task) = view.task(id) {
            let mut task = (**task).clone();
            task.desired_state = desired;
            self.node_set.upsert_task(&task, now);
            if !waits(&task) {
                self.stop_waiting(&(task.service_id.clone(), task.spec_version), id);
            }
        }
    }

    /// Tries tasks that are in the store already.
    fn schedule_waiting(&mut self, view: &View, now: Timestamp, writes: &mut Vec<Write>) {
        let fresh = std::mem::take(&mut self.fresh);
        let groups: Vec<Group> = if std::mem::take(&mut self.retry) {
            self.waiting.keys().cloned().collect()
        } else {
            fresh
                .into_iter()
                .filter(|group| self.waiting.contains_key(group))
                .collect()
        };
        for group in groups {
            let ids = self.waiting.get(&group).into_iter().flatten();
            let tasks: Vec<Arc<Task>> = ids
                .filter_map(|id| view.task(id))
                .filter(|task| waits(task))
                .cloned()
                .collect();
            let tasks: Vec<&Task> = tasks.iter().map(|task| &**task).collect();
            // A task of no service is a group of its own.
            let size = if group.1.is_some() {
                tasks.len().max(1)
            } else {
                1
            };
            let decisions = self.node_set.schedule(tasks.chunks(size), now);
            writes.extend(tasks.iter().zip(decisions).filter_map(|(task, decision)| {
                write_decision(task, decision, "scheduler assigned task to node", now)
            }));
        }
        let preassigned: Vec<Arc<Task>> = self
            .preassigned
            .iter()
            .filter_map(|id| view.task(id))
            .cloned()
            .collect();
        for task in preassigned.iter().filter(|task| waits(task)) {
            let decision = self.node_set.confirm(task, now);
            writes.extend(decision.and_then(|d| write_decision(task, d, CONFIRMED, now)));
        }
    }

    /// Chooses nodes for tasks that are not in the store yet, so that they enter it with their node,
    /// or with the reason why they have none.
    fn schedule_made(&mut self, made: Vec<Task>, now: Timestamp, writes: &mut Vec<Write>) {
        let (made, unallocated): (Vec<Task>, Vec<Task>) = made
            .into_iter()
            .partition(|task| task.status.state > TaskState::New);
        let create = |task| Write::Create(Box::new(task));
        writes.extend(unallocated.into_iter().map(create));
        let (preassigned, made): (Vec<Task>, Vec<Task>) =
            made.into_iter().partition(|task| task.node_id.is_some());
        for mut task in preassigned {
            match self.node_set.confirm(&task, now) {
                Some(decision) => enter_decision(&mut task, decision, CONFIRMED, now),
                None => PENDING.clone_into(&mut task.status.message),
            }
            if waits(&task) {
                self.preassigned.insert(task.id.clone());
            }
            writes.push(Write::Create(Box::new(task)));
        }
        let group_of = |task: &Task| (task.service_id.clone(), task.spec_version);
        let decisions: Vec<Decision> = {
            let tasks: Vec<&Task> = made.iter().collect();
            let groups = tasks.chunk_by(|a, b| group_of(a) == group_of(b));
            self.node_set.schedule(groups, now)
        };
        for (mut task, decision) in made.into_iter().zip(decisions) {
            enter_decision(&mut task, decision, "scheduler assigned task to node", now);
            if waits(&task) {
                self.waiting
                    .entry(group_of(&task))
                    .or_default()
                    .insert(task.id.clone());
            }
            writes.push(Write::Create(Box::new(task)));
        }
    }
}

const CONFIRMED: &str = "scheduler confirmed task can run on preassigned node";

/// Whether a task's change can matter to its service's orchestration. The steps of a task that comes
/// up do not, and there are many of them.
fn concerns_orchestrator(old: Option<&Task>, task: &Task) -> bool {
    let Some(old) = old else {
        // We make tasks ourselves; those that wait to be started ask to be woken.
        return task.desired_state < TaskState::Running;
    };
    let (before, state) = (old.status.state, task.status.state);
    let moved = before != state && state >= TaskState::Running;
    // A task that no node was told of is over as soon as it is not wanted.
    let dropped = old.desired_state != task.desired_state && state < TaskState::Assigned;
    moved || dropped
}

fn history_limit(view: &View) -> i64 {
    view.the_cluster()
        .map_or(defaults::TASK_HISTORY_RETENTION_LIMIT, |cluster| {
            cluster.spec().orchestration().task_history_retention_limit
        })
}

fn version(view: &View, service: &ServiceId) -> Option<Version> {
    view.service(service)
        .and_then(|service| service.spec_version)
        .map(Version::from)
}

fn write_decision(
    task: &Task,
    decision: Decision,
    message: &'static str,
    at: Timestamp,
) -> Option<Write> {
    match decision {
        Decision::Assign {
            task,
            node,
            generic,
        } => Some(Write::Assign {
            task,
            node,
            generic,
            message,
            at,
        }),
        // Said once is enough.
        Decision::Wait { reason, .. }
            if reason == task.status.err && task.status.state == TaskState::Pending =>
        {
            None
        }
        Decision::Wait { task, reason } => Some(Write::Explain { task, reason, at }),
    }
}

fn enter_decision(task: &mut Task, decision: Decision, message: &str, now: Timestamp) {
    task.status.timestamp = Some(now);
    match decision {
        Decision::Assign { node, generic, .. } => {
            task.node_id = Some(node);
            task.assigned_generic_resources = generic;
            task.status.state = TaskState::Assigned;
            message.clone_into(&mut task.status.message);
        }
        Decision::Wait { reason, .. } => {
            task.status.state = TaskState::Pending;
            PENDING.clone_into(&mut task.status.message);
            task.status.err = reason;
        }
    }
}

/// Makes tasks of one service, all of which share what they have in common.
struct Factory<'a> {
    service: &'a proto::Service,
    spec: Arc<proto::TaskSpec>,
    annotations: Arc<proto::Annotations>,
    endpoint: Option<Arc<proto::Endpoint>>,
    log_driver: Option<proto::Driver>,
}

impl<'a> Factory<'a> {
    fn new(view: &'a View, service: &'a proto::Service) -> Self {
        let id = ServiceId::from(service.id.as_str());
        let spec = view.task_spec(&id).cloned();
        let cluster = view.the_cluster();
        Self {
            service,
            spec: spec.unwrap_or_else(|| Arc::new(service.spec().task().clone())),
            annotations: Arc::new(service.spec().annotations().clone()),
            endpoint: service.endpoint.clone().map(Arc::new),
            log_driver: cluster.and_then(|c| c.spec().task_defaults().log_driver.clone()),
        }
    }

    /// A new task. Without networks its ports are all it needs, and those its service has.
    fn make(&self, new: &skep_orchestrator::NewTask, now: Timestamp) -> Task {
        let mut task = new_task(
            new,
            TaskId::random(),
            self.service,
            Arc::clone(&self.spec),
            Arc::clone(&self.annotations),
            self.log_driver.as_ref(),
            now,
        );
        if let Some(endpoint) = &self.endpoint {
            task.endpoint = Some(Arc::clone(endpoint));
        }
        // Who waits for addresses stays NEW until the allocator has seen it.
        if !skep_allocator::needs_networks(self.service.spec()) {
            task.status.state = TaskState::Pending;
        }
        task
    }
}
