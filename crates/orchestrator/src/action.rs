//! What a decision asks for.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_model::ext::{ServiceExt as _, ServiceSpecExt as _};
use skep_model::{NodeId, Slot, Task, TaskId, TaskState, TaskStatus, Timestamp, Version};
use skep_proto as proto;

/// Actions in the order to apply them, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// When to look again even if nothing changes; `None`: only an event can matter.
    pub wake_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(NewTask),
    /// Only ever raises the desired state; if it is that high already, there is nothing to do.
    SetDesired {
        task: TaskId,
        desired: TaskState,
    },
    /// Forgets a task of which nothing runs any more.
    Delete {
        task: TaskId,
    },
    /// Marks a task as rejected because its node no longer meets what it asks for; it is then
    /// replaced like any task that ended.
    Reject {
        task: TaskId,
    },
    SetUpdateStatus(proto::UpdateStatus),
    /// Makes the previous spec the current one, with this status.
    RollBack(proto::UpdateStatus),
}

/// A task to make from the service's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    pub slot: Slot,
    /// Chosen here only for tasks that belong to a node.
    pub node: Option<NodeId>,
    pub desired: TaskState,
    pub job_iteration: Option<Version>,
}

impl Plan {
    pub(crate) fn wake_no_later_than(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(crate) fn set_desired(&mut self, task: &Task, desired: TaskState) {
        if task.desired_state < desired {
            self.actions.push(Action::SetDesired {
                task: task.id.clone(),
                desired,
            });
        }
    }

    pub(crate) fn delete(&mut self, task: &Task) {
        self.actions.push(Action::Delete {
            task: task.id.clone(),
        });
    }

    /// Several rules may forget the same task; once is enough.
    pub(crate) fn forget_repeated_deletes(&mut self) {
        let mut seen = BTreeSet::new();
        self.actions.retain(|action| match action {
            Action::Delete { task } => seen.insert(task.clone()),
            _ => true,
        });
    }
}

/// The task that [`Action::Create`] asks for. `spec` is the service's task spec, shared by all tasks
/// made of it; `default_log_driver` is the cluster's.
pub fn new_task(
    new: &NewTask,
    id: TaskId,
    service: &proto::Service,
    spec: Arc<proto::TaskSpec>,
    annotations: Arc<proto::Annotations>,
    default_log_driver: Option<&proto::Driver>,
    now: Timestamp,
) -> Task {
    Task {
        id,
        service_id: Some(service.id.as_str().into()),
        slot: new.slot,
        node_id: new.node.clone(),
        spec_version: service.spec_version.map(Version::from),
        service_annotations: annotations,
        status: TaskStatus {
            timestamp: Some(now),
            state: TaskState::New,
            message: "created".to_owned(),
            ..TaskStatus::default()
        },
        desired_state: new.desired,
        endpoint: Some(Arc::new(proto::Endpoint {
            spec: service.spec().endpoint.clone(),
            ..proto::Endpoint::default()
        })),
        log_driver: service
            .spec()
            .task()
            .log_driver
            .as_ref()
            .or(default_log_driver)
            .cloned(),
        job_iteration: new.job_iteration,
        spec,
        ..Task::default()
    }
}
