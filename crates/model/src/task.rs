use std::fmt;
use std::sync::Arc;

use crate::proto;
use crate::{Meta, NodeId, ServiceId, TaskId, TaskState, Timestamp, UnknownTaskState, Version};

/// A replica's place in its service, from 1. Tasks of global services have none ([`Slot::NONE`]):
/// their node is their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl Slot {
    pub const NONE: Self = Self(0);

    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One run of a service's spec in one slot, on at most one node. A task that ended is never started
/// again: another task takes its place.
///
/// What siblings have in common is shared, not copied: a service of a thousand replicas has one spec
/// in memory, not a thousand. Cloning a task is therefore cheap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    pub id: TaskId,
    pub meta: Meta,
    pub spec: Arc<proto::TaskSpec>,
    /// Which version of the service's spec this is; comparable with the service's `spec_version`
    /// only, not with any `meta.version`.
    pub spec_version: Option<Version>,
    /// `None` for a container that attached itself to a swarm network.
    pub service_id: Option<ServiceId>,
    pub slot: Slot,
    /// `None` until the scheduler has chosen.
    pub node_id: Option<NodeId>,
    pub annotations: Arc<proto::Annotations>,
    /// The service's name and labels when the task was made.
    pub service_annotations: Arc<proto::Annotations>,
    /// What the agent (or, before there is one, the manager) observed.
    pub status: TaskStatus,
    /// What the managers want. Only they write it, and it only goes up.
    pub desired_state: TaskState,
    pub networks: Vec<proto::NetworkAttachment>,
    /// The service's endpoint when the task was allocated.
    pub endpoint: Option<Arc<proto::Endpoint>>,
    pub log_driver: Option<proto::Driver>,
    pub assigned_generic_resources: Vec<proto::GenericResource>,
    pub job_iteration: Option<Version>,
    pub volumes: Vec<proto::VolumeAttachment>,
}

/// What is known of how a task fares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskStatus {
    /// When the state was observed, by the observer's clock.
    pub timestamp: Option<Timestamp>,
    pub state: TaskState,
    /// Why the state is what it is, for people.
    pub message: String,
    /// Why the task failed or waits; empty if it does neither.
    pub err: String,
    pub container: Option<proto::ContainerStatus>,
    /// Ports that the node chose for host-published ones.
    pub port_status: Option<proto::PortStatus>,
    /// The manager that accepted this status.
    pub applied_by: Option<NodeId>,
    pub applied_at: Option<Timestamp>,
}

/// A task on the wire that says something this version has no name for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {id:?} has a state that is not known here")]
pub struct TaskFromProtoError {
    pub id: String,
    #[source]
    pub source: UnknownTaskState,
}

impl Task {
    /// The name people see: `service.slot.id`, or `service.node.id` for a task without a slot, unless
    /// an orchestrator gave it another.
    pub fn name(&self) -> String {
        if !self.annotations.name.is_empty() {
            return self.annotations.name.clone();
        }
        let service = &self.service_annotations.name;
        if self.slot.is_none() {
            let node = self.node_id.as_ref().map_or("", NodeId::as_str);
            format!("{service}.{node}.{}", self.id)
        } else {
            format!("{service}.{}.{}", self.slot, self.id)
        }
    }

    /// The container to run; `None` for attachments and other runtimes.
    pub fn container(&self) -> Option<&proto::ContainerSpec> {
        match &self.spec.runtime {
            Some(proto::task_spec::Runtime::Container(container)) => Some(container),
            _ => None,
        }
    }

    /// Whether both run, and are wanted to.
    pub fn is_running(&self) -> bool {
        self.status.state == TaskState::Running && self.desired_state == TaskState::Running
    }
}

impl TryFrom<proto::Task> for Task {
    type Error = TaskFromProtoError;

    fn try_from(task: proto::Task) -> Result<Self, Self::Error> {
        let unknown = |source| TaskFromProtoError {
            id: task.id.clone(),
            source,
        };
        let desired_state = TaskState::try_from(task.desired_state).map_err(unknown)?;
        let status = task.status.unwrap_or_default();
        let status = TaskStatus::try_from(status).map_err(|source| TaskFromProtoError {
            id: task.id.clone(),
            source,
        })?;
        Ok(Self {
            id: task.id.into(),
            meta: task.meta.as_ref().map(Meta::from).unwrap_or_default(),
            spec: Arc::new(task.spec.unwrap_or_default()),
            spec_version: task.spec_version.map(Version::from),
            service_id: ServiceId::from_wire(&task.service_id),
            slot: Slot(task.slot),
            node_id: NodeId::from_wire(&task.node_id),
            annotations: Arc::new(task.annotations.unwrap_or_default()),
            service_annotations: Arc::new(task.service_annotations.unwrap_or_default()),
            status,
            desired_state,
            networks: task.networks,
            endpoint: task.endpoint.map(Arc::new),
            log_driver: task.log_driver,
            assigned_generic_resources: task.assigned_generic_resources,
            job_iteration: task.job_iteration.map(Version::from),
            volumes: task.volumes,
        })
    }
}

impl From<&Task> for proto::Task {
    fn from(task: &Task) -> Self {
        Self {
            id: (&task.id).into(),
            meta: Some(task.meta.into()),
            spec: Some((*task.spec).clone()),
            spec_version: task.spec_version.map(Into::into),
            service_id: task.service_id.as_ref().map(Into::into).unwrap_or_default(),
            slot: task.slot.0,
            node_id: task.node_id.as_ref().map(Into::into).unwrap_or_default(),
            annotations: Some((*task.annotations).clone()),
            service_annotations: Some((*task.service_annotations).clone()),
            status: Some((&task.status).into()),
            desired_state: task.desired_state.into(),
            networks: task.networks.clone(),
            endpoint: task.endpoint.as_deref().cloned(),
            log_driver: task.log_driver.clone(),
            assigned_generic_resources: task.assigned_generic_resources.clone(),
            job_iteration: task.job_iteration.map(Into::into),
            volumes: task.volumes.clone(),
        }
    }
}

impl TryFrom<proto::TaskStatus> for TaskStatus {
    type Error = UnknownTaskState;

    fn try_from(status: proto::TaskStatus) -> Result<Self, Self::Error> {
        let container = status
            .runtime_status
            .map(|proto::task_status::RuntimeStatus::Container(container)| container);
        Ok(Self {
            timestamp: status.timestamp.map(Timestamp::from),
            state: TaskState::try_from(status.state)?,
            message: status.message,
            err: status.err,
            container,
            port_status: status.port_status,
            applied_by: NodeId::from_wire(&status.applied_by),
            applied_at: status.applied_at.map(Timestamp::from),
        })
    }
}

impl From<&TaskStatus> for proto::TaskStatus {
    fn from(status: &TaskStatus) -> Self {
        Self {
            timestamp: status.timestamp.map(Into::into),
            state: status.state.into(),
            message: status.message.clone(),
            err: status.err.clone(),
            runtime_status: status
                .container
                .clone()
                .map(proto::task_status::RuntimeStatus::Container),
            port_status: status.port_status.clone(),
            applied_by: status
                .applied_by
                .as_ref()
                .map(Into::into)
                .unwrap_or_default(),
            applied_at: status.applied_at.map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wire task with every field set to something other than its default.
    fn full() -> proto::Task {
        let moment = |seconds| Some(prost_types::Timestamp { seconds, nanos: 7 });
        let annotations = |name: &str| {
            Some(proto::Annotations {
                name: name.into(),
                labels: [("a".into(), "b".into())].into(),
                indices: vec![proto::IndexEntry {
                    key: "k".into(),
                    val: "v".into(),
                }],
            })
        };
        proto::Task {
            id: "t".into(),
            meta: Some(proto::Meta {
                version: Some(proto::Version { index: 3 }),
                created_at: moment(1),
                updated_at: moment(-62_135_596_800),
            }),
            spec: Some(proto::TaskSpec {
                force_update: 5,
                ..Default::default()
            }),
            spec_version: Some(proto::Version { index: 4 }),
            service_id: "s".into(),
            slot: 2,
            node_id: "n".into(),
            annotations: annotations("own"),
            service_annotations: annotations("web"),
            status: Some(proto::TaskStatus {
                timestamp: moment(9),
                state: 512,
                message: "started".into(),
                err: "none".into(),
                runtime_status: Some(proto::task_status::RuntimeStatus::Container(
                    proto::ContainerStatus {
                        container_id: "c".into(),
                        pid: 1,
                        exit_code: 2,
                    },
                )),
                port_status: Some(proto::PortStatus {
                    ports: vec![proto::PortConfig::default()],
                }),
                applied_by: "m".into(),
                applied_at: moment(10),
            }),
            desired_state: 640,
            networks: vec![proto::NetworkAttachment::default()],
            endpoint: Some(proto::Endpoint::default()),
            log_driver: Some(proto::Driver::default()),
            assigned_generic_resources: vec![proto::GenericResource::default()],
            job_iteration: Some(proto::Version { index: 8 }),
            volumes: vec![proto::VolumeAttachment::default()],
        }
    }

    #[test]
    fn a_task_comes_back_from_the_model_with_every_field() {
        let task = Task::try_from(full()).unwrap();
        assert_eq!(proto::Task::from(&task), full());
    }

    #[test]
    fn what_the_wire_leaves_out_is_the_default() {
        let task = Task::try_from(proto::Task {
            id: "t".into(),
            ..Default::default()
        })
        .unwrap();
        assert_eq!(
            task,
            Task {
                id: "t".into(),
                ..Default::default()
            }
        );
    }

    #[test]
    fn an_unknown_state_is_refused_with_the_task_id() {
        let wire = proto::Task {
            id: "t".into(),
            desired_state: 3,
            ..Default::default()
        };
        assert_eq!(
            Task::try_from(wire).unwrap_err().to_string(),
            "task \"t\" has a state that is not known here"
        );
    }

    #[test]
    fn a_task_is_named_after_its_service_and_slot_or_node() {
        let mut task = Task::try_from(full()).unwrap();
        assert_eq!(task.name(), "own");
        task.annotations = Arc::default();
        assert_eq!(task.name(), "web.2.t");
        task.slot = Slot::NONE;
        assert_eq!(task.name(), "web.n.t");
    }
}
