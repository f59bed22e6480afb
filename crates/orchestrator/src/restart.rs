//! When a task that ended, or lost its node, is replaced, and when the replacement is started.

use std::time::Duration;

use skep_model::{Task, TaskState, Timestamp, defaults};
use skep_proto as proto;
use skep_proto::restart_policy::RestartCondition;

use crate::action::{Action, NewTask, Plan};
use crate::dirty::is_task_dirty;
use crate::place::{History, is_live, is_over};
use crate::rebalance::is_on;
use crate::view::{
    ServiceView, created_at, duration, is_down, is_drained, status_time, wait_until,
};

/// How long a replacement waits for its predecessor to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// When a task that was made, but not to be started yet, may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Now,
    /// No earlier than this.
    At(Timestamp),
    /// Once its predecessor stopped, but no later than this.
    WhenStopped(Timestamp),
}

/// Restart decisions for one place: replaces live tasks that ended or lost their node, and starts
/// those which waited long enough. True if a replacement is under way, so that nobody else may touch
/// the place.
pub(crate) fn tend(view: &ServiceView<'_>, history: &History<'_>, plan: &mut Plan) -> bool {
    let mut busy = false;
    for task in history.live() {
        if task.status.state.is_terminal() || view.lost_its_node(task) {
            busy = true;
            match overlap_on_drain(view, history, task) {
                Some(overlap) => plan.actions.extend(overlap),
                None => restart(view, history, task, plan),
            }
        } else if task.desired_state < TaskState::Running {
            start_when_due(view, history, task, plan);
        }
    }
    busy
}

/// Shuts a task down and puts another in its place if the policy says so.
pub(crate) fn restart(view: &ServiceView<'_>, history: &History<'_>, task: &Task, plan: &mut Plan) {
    // A task that failed before it was even started must not be replaced before it would have been:
    // an image that cannot be had would otherwise be tried in a tight loop.
    if task.desired_state < TaskState::Running
        && !view.lost_its_node(task)
        && let Start::At(due) = start(view, history, task)
    {
        plan.wake_no_later_than(due);
        return;
    }
    plan.set_desired(task, TaskState::Shutdown);
    if has_successor(history, task)
        || is_served(view, history, task)
        || !should_restart(view, history, task)
    {
        return;
    }
    plan.actions.push(Action::Create(NewTask {
        slot: task.slot,
        node: if view.is_by_node() {
            task.node_id.clone()
        } else {
            None
        },
        desired: TaskState::Ready,
        job_iteration: task.job_iteration,
    }));
}

/// Whether a later task has taken the place already, as in an update that starts first. If that one
/// ended too, it is the one to be replaced.
fn has_successor(history: &History<'_>, task: &Task) -> bool {
    history.live().last().is_some_and(|last| last.id != task.id)
}

/// Whether another task of the current spec runs in the place already: this one was an attempt to
/// move it.
fn is_served(view: &ServiceView<'_>, history: &History<'_>, task: &Task) -> bool {
    is_on(view)
        && history.live().any(|other| {
            other.id != task.id
                && other.is_running()
                && !view.lost_its_node(other)
                && !is_task_dirty(view.service, other, view.node_of(other))
        })
}

/// A drained node still works, so where updates start the new task first, a drain does so too. `None`
/// if that is not the case at hand.
fn overlap_on_drain(
    view: &ServiceView<'_>,
    history: &History<'_>,
    task: &Task,
) -> Option<Vec<Action>> {
    let node = view.node_of(task)?;
    let works = is_drained(node) && !is_down(node) && task.status.state == TaskState::Running;
    let order = view.service.spec.as_ref()?.update.as_ref()?.order();
    if !works || view.is_by_node() || order != proto::update_config::UpdateOrder::StartFirst {
        return None;
    }
    let others: Vec<&Task> = history.live().filter(|other| other.id != task.id).collect();
    if others
        .iter()
        .any(|other| other.status.state == TaskState::Running)
    {
        let desired = TaskState::Shutdown;
        return Some(vec![Action::SetDesired {
            task: task.id.clone(),
            desired,
        }]);
    }
    if !others.is_empty() {
        return Some(Vec::new());
    }
    should_restart(view, history, task).then(|| {
        vec![Action::Create(NewTask {
            slot: task.slot,
            node: None,
            desired: TaskState::Ready,
            job_iteration: task.job_iteration,
        })]
    })
}

/// Lets a waiting task start once it may.
pub(crate) fn start_when_due(
    view: &ServiceView<'_>,
    history: &History<'_>,
    task: &Task,
    plan: &mut Plan,
) {
    match start(view, history, task) {
        // Tasks of jobs are to run to their end.
        Start::Now if task.job_iteration.is_some() => plan.set_desired(task, TaskState::Complete),
        Start::Now => plan.set_desired(task, TaskState::Running),
        Start::At(due) | Start::WhenStopped(due) => plan.wake_no_later_than(due),
    }
}

/// When `task` may start. The delay runs from the failure, not from when this leader noticed it;
/// otherwise every leader change would start the wait again.
pub(crate) fn start(view: &ServiceView<'_>, history: &History<'_>, task: &Task) -> Start {
    if let Some(due) = delayed_until(view, history, task) {
        return Start::At(due);
    }
    let stopping = history.all().iter().any(|other| is_stopping(view, other));
    match wait_until(created_at(task), STOP_TIMEOUT, view.now) {
        Some(until) if stopping => Start::WhenStopped(until),
        _ => Start::Now,
    }
}

/// The delay guards against tasks that end over and over. So it applies after a task that ended by
/// itself, and not after one that an update or the loss of its node made way for; SwarmKit also waits
/// when a node was lost, which only costs time.
fn delayed_until(view: &ServiceView<'_>, history: &History<'_>, task: &Task) -> Option<Timestamp> {
    let previous = history.before(task)?;
    let ended_at = status_time(previous);
    if is_live(previous) || ended_at > created_at(task) {
        return None;
    }
    if view.node_of(previous).is_some_and(is_drained) {
        return None;
    }
    let policy = previous.spec.restart.as_ref();
    let delay = duration(
        policy.and_then(|p| p.delay.as_ref()),
        defaults::RESTART_DELAY,
    );
    match previous.status.state {
        TaskState::Complete | TaskState::Failed => wait_until(ended_at, delay, view.now),
        // It was never started, so its own wait may not have been over when it failed.
        TaskState::Rejected => wait_until(created_at(task), delay, view.now),
        _ => None,
    }
}

/// Asked to stop, and still expected to say that it did.
fn is_stopping(view: &ServiceView<'_>, task: &Task) -> bool {
    !is_live(task) && !is_over(task) && view.node_of(task).is_some_and(|node| !is_down(node))
}

/// Whether the restart policy allows another task in the place of this one.
pub(crate) fn should_restart(view: &ServiceView<'_>, history: &History<'_>, task: &Task) -> bool {
    let policy = task.spec.restart.as_ref();
    let completed = task.status.state == TaskState::Complete;
    match policy.map_or(defaults::RESTART_CONDITION, proto::RestartPolicy::condition) {
        // It would be nonsense to restart a job that is done.
        RestartCondition::Any if view.is_job() && completed => return false,
        RestartCondition::OnFailure if completed => return false,
        RestartCondition::None => return false,
        RestartCondition::Any | RestartCondition::OnFailure => {}
    }
    let max_attempts = policy.map_or(0, |p| p.max_attempts);
    max_attempts == 0 || attempts(history, task) < max_attempts
}

/// How often the task's spec was restarted in its place, as far as the policy's window reaches back.
/// The reaper keeps enough ended tasks for that.
fn attempts(history: &History<'_>, task: &Task) -> u64 {
    let window = task.spec.restart.as_ref().and_then(|p| p.window.as_ref());
    let window = duration(window, Duration::ZERO);
    let ended_at = status_time(task);
    let counts = |created: Timestamp| {
        window.is_zero() || (created > ended_at - window && created < ended_at)
    };
    let same_spec = history.all().iter().filter(|other| {
        other.spec_version == task.spec_version && other.job_iteration == task.job_iteration
    });
    // The first one is not a restart.
    same_spec
        .skip(1)
        .filter(|other| counts(created_at(other)))
        .count() as u64
}
