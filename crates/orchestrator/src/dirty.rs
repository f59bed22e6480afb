//! Whether a task still is what its service asks for.

use skep_model::ext::{ServiceExt as _, ServiceSpecExt as _};
use skep_model::{Task, TaskState, Version, labels};
use skep_proto as proto;
use skep_proto::task_spec::Runtime;
use skep_scheduler::constraint;

/// Whether the task has to be replaced for the service's spec to hold. Not if only the placement
/// changed and its node satisfies the new one, nor if only the means to pull the image changed and
/// the image is there already.
pub fn is_task_dirty(service: &proto::Service, task: &Task, node: Option<&proto::Node>) -> bool {
    let version = service.spec_version.map(Version::from);
    if version.is_some() && version == task.spec_version {
        return false;
    }
    let wanted = service.spec().task();
    if wanted.placement != task.spec.placement {
        let mut same_placement = wanted.clone();
        same_placement.placement.clone_from(&task.spec.placement);
        let fits = node.is_some_and(|node| node_matches(wanted, node));
        if fits && same_placement == *task.spec && !container_labels_changed(service, task) {
            return false;
        }
    }
    !same_spec(wanted, task)
        || endpoint_changed(service, task)
        || container_labels_changed(service, task)
}

fn same_spec(wanted: &proto::TaskSpec, task: &Task) -> bool {
    if *wanted == *task.spec {
        return true;
    }
    let has_image = task.desired_state <= TaskState::Running
        && (TaskState::Ready..=TaskState::Running).contains(&task.status.state);
    if !has_image {
        return false;
    }
    let mut wanted = wanted.clone();
    if let (Some(Runtime::Container(wanted)), Some(actual)) =
        (&mut wanted.runtime, task.container())
    {
        wanted.pull_options.clone_from(&actual.pull_options);
    }
    wanted == *task.spec
}

/// Labels of ours that say what the container is like; all others are only labels.
fn container_labels_changed(service: &proto::Service, task: &Task) -> bool {
    let (wanted, actual) = (service.spec().annotations(), &task.service_annotations);
    let mut names = labels::OF_CONTAINER.iter();
    names.any(|name| wanted.labels.get(*name) != actual.labels.get(*name))
}

fn endpoint_changed(service: &proto::Service, task: &Task) -> bool {
    task.endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.spec != service.spec().endpoint)
}

/// Whether the node satisfies the constraints of a spec. Ones that do not parse are no constraints:
/// the control API refused them.
pub(crate) fn node_matches(spec: &proto::TaskSpec, node: &proto::Node) -> bool {
    let Some(placement) = spec
        .placement
        .as_ref()
        .filter(|p| !p.constraints.is_empty())
    else {
        return true;
    };
    let constraints = constraint::parse(&placement.constraints).unwrap_or_default();
    constraint::matches_all(&constraints, node)
}
