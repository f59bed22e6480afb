//! Services that are to end: so many completions, or one on every node. An update of the service
//! starts the job again, as its next iteration.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::ext::{ServiceExt as _, ServiceSpecExt as _};
use skep_model::{NodeId, Slot, Task, TaskState, Version};
use skep_proto as proto;

use crate::action::{Action, NewTask, Plan};
use crate::dirty::node_matches;
use crate::place::{History, Place, is_live};
use crate::restart::{restart, should_restart, start_when_due};
use crate::view::{ServiceView, is_invalid, is_paused};

pub(crate) fn reconcile_replicated(
    view: &ServiceView<'_>,
    places: &BTreeMap<Place, History<'_>>,
    job: &proto::ReplicatedJob,
    plan: &mut Plan,
) {
    let iteration = iteration(view);
    let mut completed = 0;
    let mut running = 0;
    let mut used = BTreeSet::new();
    for (place, history) in places {
        remove_old_iterations(history, iteration, plan);
        match progress(view, history, iteration) {
            Progress::None => continue,
            Progress::Completed => completed += 1,
            Progress::Running => running += 1,
            Progress::GivenUp => {}
        }
        used.insert(place);
        tend_job(view, history, iteration, plan);
    }
    let unused = job.total_completions.saturating_sub(used.len() as u64);
    let wanted = job.total_completions.saturating_sub(completed + running);
    let allowed = job.max_concurrent.saturating_sub(running);
    let count = usize::try_from(unused.min(wanted).min(allowed)).unwrap_or(usize::MAX);
    let free = (0..job.total_completions)
        .map(Slot)
        .filter(|slot| !used.contains(&Place::Slot(*slot)))
        .take(count);
    plan.actions
        .extend(free.map(|slot| create(slot, None, iteration)));
}

pub(crate) fn reconcile_global(
    view: &ServiceView<'_>,
    places: &BTreeMap<Place, History<'_>>,
    plan: &mut Plan,
) {
    let iteration = iteration(view);
    let spec = view.service.spec().task();
    for (place, history) in places {
        remove_old_iterations(history, iteration, plan);
        let node = match place {
            Place::Node(id) => view.nodes.get(id),
            Place::Slot(_) => None,
        };
        match node {
            None => history.all().iter().for_each(|task| plan.delete(task)),
            Some(node) if is_invalid(Some(node)) => {
                for task in history
                    .live()
                    .filter(|task| !task.status.state.is_terminal())
                {
                    plan.set_desired(task, TaskState::Shutdown);
                }
            }
            Some(_) => tend_job(view, history, iteration, plan),
        }
    }
    for (id, node) in view.nodes {
        let ready = node.status.as_ref().map(proto::NodeStatus::state)
            == Some(proto::node_status::State::Ready);
        let wanted =
            ready && !is_invalid(Some(node)) && !is_paused(node) && node_matches(spec, node);
        let history = places.get(&Place::Node(id.clone()));
        let present = history.map_or(Progress::None, |h| progress(view, h, iteration));
        if wanted && present == Progress::None {
            plan.actions
                .push(create(Slot::NONE, Some(id.clone()), iteration));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    None,
    Running,
    Completed,
    /// Failed, and the restart policy says to leave it at that.
    GivenUp,
}

fn progress(view: &ServiceView<'_>, history: &History<'_>, iteration: Version) -> Progress {
    let mut tasks = current(history, iteration).peekable();
    if tasks.peek().is_none() {
        return Progress::None;
    }
    let mut last = None;
    for task in tasks {
        if task.status.state == TaskState::Complete {
            return Progress::Completed;
        }
        if is_live(task) {
            return Progress::Running;
        }
        last = Some(task);
    }
    match last {
        Some(task)
            if task.desired_state < TaskState::Remove && !should_restart(view, history, task) =>
        {
            Progress::GivenUp
        }
        _ => Progress::None,
    }
}

fn tend_job(view: &ServiceView<'_>, history: &History<'_>, iteration: Version, plan: &mut Plan) {
    for task in current(history, iteration).filter(|task| is_live(task)) {
        let state = task.status.state;
        if state == TaskState::Complete {
            continue;
        }
        if state.is_terminal() || view.lost_its_node(task) {
            restart(view, history, task, plan);
        } else if task.desired_state < TaskState::Running {
            start_when_due(view, history, task, plan);
        }
    }
}

fn remove_old_iterations(history: &History<'_>, iteration: Version, plan: &mut Plan) {
    let old = history
        .all()
        .iter()
        .filter(|task| task.job_iteration != Some(iteration));
    for task in old.filter(|task| !task.status.state.is_terminal()) {
        plan.set_desired(task, TaskState::Remove);
    }
}

fn current<'a>(history: &History<'a>, iteration: Version) -> impl Iterator<Item = &'a Task> {
    history
        .all()
        .iter()
        .copied()
        .filter(move |task| task.job_iteration == Some(iteration))
}

pub(crate) fn iteration(view: &ServiceView<'_>) -> Version {
    let status = view.service.job_status.as_ref();
    status
        .and_then(|status| status.job_iteration)
        .map(Version::from)
        .unwrap_or_default()
}

fn create(slot: Slot, node: Option<NodeId>, iteration: Version) -> Action {
    let job_iteration = Some(iteration);
    Action::Create(NewTask {
        slot,
        node,
        desired: TaskState::Complete,
        job_iteration,
    })
}
