//! A manager on a log in memory, with agents that do as they are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use skep_model::{NodeId, ServiceId, Task, TaskState, defaults};
use skep_proto as proto;
use skep_proto::assignment::Item;
use skep_proto::service_spec::Mode;
use skep_proto::task_spec::Runtime;
use skep_store::{MemoryProposer, Snapshot, Store};
use tokio::sync::watch;

use crate::{Caller, Dispatcher, Manager, ManagerConfig};

pub(crate) struct Swarm {
    pub(crate) store: Store,
    pub(crate) log: MemoryProposer,
    pub(crate) manager: Manager,
    pub(crate) leads: watch::Sender<bool>,
    _members: watch::Sender<Arc<Vec<crate::Member>>>,
}

impl Swarm {
    /// A leader with the cluster's object and these nodes, of which it has not heard yet.
    pub(crate) async fn with_nodes(nodes: &[&str]) -> Self {
        let (store, log) = MemoryProposer::with_store();
        let objects: Vec<proto::Node> = nodes.iter().map(|id| node(id)).collect();
        store
            .update(|tx| {
                tx.create(cluster())?;
                for node in objects {
                    tx.create(node)?;
                }
                Ok::<_, skep_store::StoreError>(())
            })
            .await
            .unwrap();
        let (leads, leadership) = watch::channel(true);
        let (sender, members) = watch::channel(Arc::default());
        let config = ManagerConfig {
            node_id: "manager".into(),
            store: store.clone(),
            leadership,
            members,
        };
        let manager = Manager::start(config);
        Self {
            store,
            log,
            manager,
            leads,
            _members: sender,
        }
    }

    pub(crate) async fn create(&self, spec: proto::ServiceSpec) -> ServiceId {
        let request = proto::CreateServiceRequest { spec: Some(spec) };
        let response = self
            .manager
            .control()
            .create_service(request)
            .await
            .unwrap();
        response.service.unwrap().id.as_str().into()
    }

    pub(crate) fn service(&self, id: &ServiceId) -> proto::Service {
        (**self.store.snapshot().service(id).unwrap()).clone()
    }

    pub(crate) async fn update(
        &self,
        id: &ServiceId,
        change: impl FnOnce(&mut proto::ServiceSpec),
    ) -> proto::Service {
        let service = self.service(id);
        let mut spec = service.spec.unwrap();
        change(&mut spec);
        let request = proto::UpdateServiceRequest {
            service_id: id.into(),
            service_version: service.meta.unwrap().version,
            spec: Some(spec),
            rollback: 0,
        };
        self.manager
            .control()
            .update_service(request)
            .await
            .unwrap()
            .service
            .unwrap()
    }

    /// Waits for a state of the store.
    pub(crate) async fn until<T>(&self, what: &str, holds: impl Fn(&Snapshot) -> Option<T>) -> T {
        let mut changed = self.store.changed();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                if let Some(value) = holds(&self.store.snapshot()) {
                    return value;
                }
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        waited.unwrap_or_else(|_| {
            let tasks: Vec<String> = self.store.snapshot().tasks().map(|t| describe(t)).collect();
            panic!("never: {what}; tasks:\n{}", tasks.join("\n"))
        })
    }

    pub(crate) async fn until_running(&self, service: &ServiceId, count: usize) -> Vec<Arc<Task>> {
        self.until(&format!("{count} tasks of {service} running"), |snapshot| {
            let tasks = snapshot
                .tasks_of_service(service)
                .filter(|task| task.is_running());
            let tasks: Vec<Arc<Task>> = tasks.cloned().collect();
            (tasks.len() == count).then_some(tasks)
        })
        .await
    }
}

fn describe(task: &Task) -> String {
    let status = &task.status;
    format!(
        "{} slot {} on {:?}: {} wanted {} ({}, {})",
        task.id,
        task.slot,
        task.node_id,
        status.state,
        task.desired_state,
        status.message,
        status.err
    )
}

fn cluster() -> proto::Cluster {
    let annotations = proto::Annotations {
        name: "default".into(),
        ..Default::default()
    };
    proto::Cluster {
        id: "cluster".into(),
        spec: Some(proto::ClusterSpec {
            annotations: Some(annotations),
            orchestration: Some(proto::OrchestrationConfig {
                task_history_retention_limit: 5,
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn node(id: &str) -> proto::Node {
    proto::Node {
        id: id.into(),
        spec: Some(proto::NodeSpec {
            membership: proto::node_spec::Membership::Accepted.into(),
            ..Default::default()
        }),
        status: Some(proto::NodeStatus::default()),
        ..Default::default()
    }
}

pub(crate) fn service(name: &str, replicas: u64) -> proto::ServiceSpec {
    proto::ServiceSpec {
        annotations: Some(proto::Annotations {
            name: name.into(),
            ..Default::default()
        }),
        task: Some(proto::TaskSpec {
            runtime: Some(Runtime::Container(proto::ContainerSpec {
                image: "busybox".into(),
                ..Default::default()
            })),
            restart: Some(proto::RestartPolicy {
                delay: Some(defaults::wire_duration(Duration::ZERO)),
                ..defaults::restart_policy()
            }),
            ..Default::default()
        }),
        mode: Some(Mode::Replicated(proto::ReplicatedService { replicas })),
        ..Default::default()
    }
}

pub(crate) fn container(spec: &mut proto::ServiceSpec) -> &mut proto::ContainerSpec {
    match &mut spec.task.as_mut().unwrap().runtime {
        Some(Runtime::Container(container)) => container,
        _ => panic!("no container"),
    }
}

pub(crate) fn caller(node: &str) -> Caller {
    Caller {
        node_id: node.into(),
        addr: None,
    }
}

/// An agent that brings every task to where it is wanted, at once.
pub(crate) struct Agent {
    pub(crate) node: NodeId,
    dispatcher: Arc<Dispatcher>,
    pub(crate) session: String,
    /// What it was told to run.
    tasks: Arc<Mutex<BTreeMap<String, proto::Task>>>,
    work: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Agent {
    pub(crate) async fn connect(swarm: &Swarm, node: &str) -> Self {
        Self::connect_as(
            swarm,
            node,
            proto::NodeDescription {
                hostname: node.into(),
                ..Default::default()
            },
        )
        .await
    }

    pub(crate) async fn connect_as(
        swarm: &Swarm,
        node: &str,
        description: proto::NodeDescription,
    ) -> Self {
        let dispatcher = Arc::clone(swarm.manager.dispatcher());
        let session = register(&dispatcher, node, description).await;
        let request = proto::AssignmentsRequest {
            session_id: session.clone(),
        };
        let mut assignments = dispatcher
            .assignments(&caller(node), request)
            .await
            .unwrap();
        let tasks = Arc::<Mutex<BTreeMap<String, proto::Task>>>::default();
        let (known, reporter) = (Arc::clone(&tasks), Arc::clone(&dispatcher));
        let (id, name) = (session.clone(), node.to_owned());
        let work = tokio::spawn(async move {
            let mut session = None;
            while let Some(Ok(message)) = assignments.next().await {
                let mut updates = Vec::new();
                for change in message.changes {
                    let removed =
                        change.action() == proto::assignment_change::AssignmentAction::Remove;
                    let Some(Item::Task(task)) = change.assignment.unwrap().item else {
                        continue;
                    };
                    let mut known = known.lock();
                    if removed {
                        known.remove(&task.id);
                        continue;
                    }
                    updates.extend(next_state(&task).map(|state| report(&task.id, state, "")));
                    known.insert(task.id.clone(), task);
                }
                let session_id = session.get_or_insert_with(|| id.clone()).clone();
                let request = proto::UpdateTaskStatusRequest {
                    session_id,
                    updates,
                };
                if reporter
                    .update_task_status(&caller(&name), request)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        Self {
            node: node.into(),
            dispatcher,
            session,
            tasks,
            work,
        }
    }

    pub(crate) fn knows(&self, task: &Task) -> bool {
        self.tasks.lock().contains_key(task.id.as_str())
    }

    pub(crate) async fn report(&self, task: &Task, state: TaskState, err: &str) {
        let updates = vec![report(task.id.as_str(), state, err)];
        let request = proto::UpdateTaskStatusRequest {
            session_id: self.session.clone(),
            updates,
        };
        let caller = Caller {
            node_id: self.node.clone(),
            addr: None,
        };
        self.dispatcher
            .update_task_status(&caller, request)
            .await
            .unwrap();
    }
}

/// Registers once the dispatcher is up.
pub(crate) async fn register(
    dispatcher: &Dispatcher,
    node: &str,
    description: proto::NodeDescription,
) -> String {
    loop {
        let request = proto::SessionRequest {
            description: Some(description.clone()),
            session_id: String::new(),
        };
        match dispatcher.session(&caller(node), request).await {
            Ok(mut messages) => {
                let first = messages.next().await.unwrap().unwrap();
                // Kept open, as an agent does.
                tokio::spawn(async move { while messages.next().await.is_some() {} });
                return first.session_id;
            }
            Err(status) if status.code() == tonic::Code::Aborted => tokio::task::yield_now().await,
            Err(status) => panic!("{status}"),
        }
    }
}

fn next_state(task: &proto::Task) -> Option<TaskState> {
    let state = TaskState::try_from(task.status.as_ref().unwrap().state).unwrap();
    let desired = TaskState::try_from(task.desired_state).unwrap();
    let next = match desired {
        TaskState::Complete => TaskState::Running,
        desired if desired > TaskState::Complete => TaskState::Shutdown,
        desired => desired,
    };
    (state < next && !state.is_terminal()).then_some(next)
}

fn report(
    task: &str,
    state: TaskState,
    err: &str,
) -> proto::update_task_status_request::TaskStatusUpdate {
    proto::update_task_status_request::TaskStatusUpdate {
        task_id: task.into(),
        status: Some(proto::TaskStatus {
            state: state.into(),
            message: state.to_string(),
            err: err.into(),
            timestamp: Some(skep_model::Timestamp::from(std::time::SystemTime::now()).into()),
            ..Default::default()
        }),
    }
}
