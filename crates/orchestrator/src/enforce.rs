//! Tasks that no longer fit the node they run on, because its labels, its resources or the
//! service's constraints changed.

use std::sync::Arc;

use skep_model::ext::{NodeExt as _, ServiceExt as _, ServiceSpecExt as _};
use skep_model::{ServiceId, Task, TaskId, TaskState};
use skep_proto as proto;
use skep_proto::generic_resource::Resource;

use crate::dirty::node_matches;

/// The tasks to reject on a node. Their observed state is set, not the desired one, so that they are
/// replaced elsewhere as the restart policy says. Drained and paused nodes are left alone: there the
/// orchestrators do what is to be done.
///
/// The constraints are those of the service now, not of the task: a change of constraints alone does
/// not replace tasks, so the task's own may be outdated.
pub fn noncompliant<'a>(
    node: &proto::Node,
    tasks: &[Arc<Task>],
    service_of: impl Fn(&ServiceId) -> Option<&'a proto::Service>,
) -> Vec<TaskId> {
    if node.spec().availability() != proto::node_spec::Availability::Active {
        return Vec::new();
    }
    let mut left = node
        .description
        .as_ref()
        .and_then(|d| d.resources.clone())
        .unwrap_or_default();
    let mut rejected = Vec::new();
    for task in tasks.iter().filter(|task| holds_resources(task)) {
        let service = task.service_id.as_ref().and_then(&service_of);
        let spec = service.map_or(&*task.spec, |service| service.spec().task());
        if !node_matches(spec, node) || !take(&mut left, task) {
            rejected.push(task.id.clone());
        }
    }
    rejected
}

fn holds_resources(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Complete).contains(&task.desired_state)
        && (TaskState::Assigned..TaskState::Complete).contains(&task.status.state)
}

/// Takes what the task reserves out of `left`; false if it is not there.
fn take(left: &mut proto::Resources, task: &Task) -> bool {
    let reservations = task
        .spec
        .resources
        .as_ref()
        .and_then(|r| r.reservations.as_ref());
    if let Some(reserved) = reservations {
        if reserved.memory_bytes > left.memory_bytes || reserved.nano_cpus > left.nano_cpus {
            return false;
        }
        left.memory_bytes -= reserved.memory_bytes;
        left.nano_cpus -= reserved.nano_cpus;
    }
    task.assigned_generic_resources
        .iter()
        .all(|assigned| take_generic(left, assigned))
}

fn take_generic(left: &mut proto::Resources, assigned: &proto::GenericResource) -> bool {
    match &assigned.resource {
        Some(Resource::NamedResourceSpec(_)) => {
            let position = left
                .generic
                .iter()
                .position(|resource| resource == assigned);
            position
                .map(|position| left.generic.swap_remove(position))
                .is_some()
        }
        Some(Resource::DiscreteResourceSpec(wanted)) => left
            .generic
            .iter_mut()
            .filter_map(|resource| match &mut resource.resource {
                Some(Resource::DiscreteResourceSpec(had)) if had.kind == wanted.kind => Some(had),
                _ => None,
            })
            .any(|had| {
                let enough = had.value >= wanted.value;
                had.value -= if enough { wanted.value } else { 0 };
                enough
            }),
        None => true,
    }
}
