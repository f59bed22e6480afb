//! What decisions come to, and writing it. Each write rechecks what it was decided on: meanwhile a
//! user or a node may have changed it.

use skep_model::ext::NodeExt as _;
use skep_model::{NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus, Timestamp, Version};
use skep_orchestrator::is_invalid;
use skep_proto as proto;
use skep_store::{StoreError, Transaction};

#[derive(Clone, Debug)]
pub(super) enum Write {
    Create(Box<Task>),
    Desired {
        task: TaskId,
        desired: TaskState,
    },
    Assign {
        task: TaskId,
        node: NodeId,
        generic: Vec<proto::GenericResource>,
        message: &'static str,
        at: Timestamp,
    },
    /// Says why a task waits.
    Explain {
        task: TaskId,
        reason: String,
        at: Timestamp,
    },
    Reject {
        task: TaskId,
        at: Timestamp,
    },
    Delete {
        task: TaskId,
    },
    UpdateStatus {
        service: ServiceId,
        version: Option<Version>,
        status: proto::UpdateStatus,
    },
    RollBack {
        service: ServiceId,
        version: Option<Version>,
        status: proto::UpdateStatus,
    },
}

/// The premise no longer holds; an everyday thing.
#[derive(Debug)]
pub(super) struct Stale;

impl From<StoreError> for Stale {
    fn from(_: StoreError) -> Self {
        Self
    }
}

pub(super) fn apply(tx: &mut Transaction, write: &Write) -> Result<(), Stale> {
    match write {
        Write::Create(task) => create(tx, task),
        Write::Desired { task, desired } => raise_desired(tx, task, *desired),
        Write::Assign {
            task,
            node,
            generic,
            message,
            at,
        } => {
            let status = TaskStatus {
                timestamp: Some(*at),
                state: TaskState::Assigned,
                message: (*message).to_owned(),
                ..TaskStatus::default()
            };
            assign(tx, task, node, generic, status)
        }
        Write::Explain { task, reason, at } => explain(tx, task, reason, *at),
        Write::Reject { task, at } => reject(tx, task, *at),
        Write::Delete { task } => tx.delete::<Task>(task).map(drop).map_err(Stale::from),
        Write::UpdateStatus {
            service,
            version,
            status,
        } => change_service(tx, service, *version, |service| {
            service.update_status = Some(status.clone());
            Ok(())
        }),
        Write::RollBack {
            service,
            version,
            status,
        } => change_service(tx, service, *version, |service| {
            service.spec = Some(service.previous_spec.take().ok_or(Stale)?);
            service.spec_version = service.previous_spec_version.take();
            service.update_status = Some(status.clone());
            Ok(())
        }),
    }
}

fn create(tx: &mut Transaction, task: &Task) -> Result<(), Stale> {
    let service = task
        .service_id
        .as_ref()
        .and_then(|id| tx.service(id))
        .ok_or(Stale)?;
    if service.spec_version.map(Version::from) != task.spec_version {
        return Err(Stale);
    }
    if task.status.state == TaskState::Assigned {
        check_node(tx, task.node_id.as_ref())?;
    }
    tx.create(task.clone())?;
    Ok(())
}

/// The node still takes tasks.
fn check_node(tx: &Transaction, node: Option<&NodeId>) -> Result<(), Stale> {
    let node = node.and_then(|id| tx.node(id)).ok_or(Stale)?;
    let ready = node.status().state() == proto::node_status::State::Ready;
    if ready && !is_invalid(Some(node)) {
        Ok(())
    } else {
        Err(Stale)
    }
}

fn raise_desired(tx: &mut Transaction, id: &TaskId, desired: TaskState) -> Result<(), Stale> {
    if tx.task(id).ok_or(Stale)?.desired_state < desired {
        tx.modify::<Task>(id, |task| task.desired_state = desired)?;
    }
    Ok(())
}

fn assign(
    tx: &mut Transaction,
    id: &TaskId,
    node: &NodeId,
    generic: &[proto::GenericResource],
    status: TaskStatus,
) -> Result<(), Stale> {
    let task = tx.task(id).ok_or(Stale)?;
    let elsewhere = task.node_id.as_ref().is_some_and(|other| other != node);
    if !waits(task) || elsewhere {
        return Err(Stale);
    }
    check_node(tx, Some(node))?;
    tx.modify::<Task>(id, |task| {
        task.node_id = Some(node.clone());
        task.assigned_generic_resources = generic.to_vec();
        task.status = status;
    })?;
    Ok(())
}

fn explain(tx: &mut Transaction, id: &TaskId, reason: &str, at: Timestamp) -> Result<(), Stale> {
    if !waits(tx.task(id).ok_or(Stale)?) {
        return Err(Stale);
    }
    tx.modify::<Task>(id, |task| {
        task.status.state = TaskState::Pending;
        task.status.timestamp = Some(at);
        PENDING.clone_into(&mut task.status.message);
        reason.clone_into(&mut task.status.err);
    })?;
    Ok(())
}

/// The message of a task that has all it needs but a node.
pub(super) const PENDING: &str = "pending task scheduling";

/// Whether the task waits for the scheduler's word.
pub(super) fn waits(task: &Task) -> bool {
    (TaskState::Pending..TaskState::Assigned).contains(&task.status.state)
        && task.desired_state <= TaskState::Complete
}

fn reject(tx: &mut Transaction, id: &TaskId, at: Timestamp) -> Result<(), Stale> {
    let task = tx.task(id).ok_or(Stale)?;
    if task.desired_state > TaskState::Complete || task.status.state.is_terminal() {
        return Err(Stale);
    }
    tx.modify::<Task>(id, |task| {
        task.status.state = TaskState::Rejected;
        "task rejected by constraint enforcer".clone_into(&mut task.status.message);
        "assigned node no longer meets constraints".clone_into(&mut task.status.err);
        task.status.timestamp = Some(at);
        // The time of the node's last report says nothing about this.
        task.status.applied_at = None;
    })?;
    Ok(())
}

/// Changes a service if its spec is still the one decided on.
fn change_service(
    tx: &mut Transaction,
    id: &ServiceId,
    version: Option<Version>,
    change: impl FnOnce(&mut proto::Service) -> Result<(), Stale>,
) -> Result<(), Stale> {
    let mut service = (**tx.service(id).ok_or(Stale)?).clone();
    if service.spec_version.map(Version::from) != version {
        return Err(Stale);
    }
    change(&mut service)?;
    tx.update(service)?;
    Ok(())
}
