//! Forgets tasks: those that were asked to go, and all but the last few of each place.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::ext::{ServiceExt as _, ServiceSpecExt as _};
use skep_model::{Task, TaskState};

use crate::action::Plan;
use crate::jobs;
use crate::place::{History, Place, is_live, is_over};
use crate::view::{Nodes, ServiceView, status_time};

pub(crate) fn reap(view: &ServiceView<'_>, places: &BTreeMap<Place, History<'_>>, plan: &mut Plan) {
    let removed =
        |task: &&&Task| task.desired_state == TaskState::Remove && is_gone(task, view.nodes);
    let mut delete: Vec<&Task> = Vec::new();
    for history in places.values() {
        delete.extend(history.all().iter().filter(removed));
        delete.extend(old(view, history));
    }
    for task in delete {
        plan.delete(task);
    }
}

/// What is left of a service that was removed: stops what runs and forgets what does not.
pub fn remove_orphans(tasks: &[Arc<Task>], nodes: &Nodes) -> Plan {
    let mut plan = Plan::default();
    for task in tasks {
        if is_gone(task, nodes) {
            plan.delete(task);
        } else {
            plan.set_desired(task, TaskState::Remove);
        }
    }
    plan
}

/// Nothing of it runs, or nobody is left who could say so.
fn is_gone(task: &Task, nodes: &Nodes) -> bool {
    is_over(task)
        || task
            .node_id
            .as_ref()
            .is_some_and(|node| !nodes.contains_key(node))
}

/// The oldest ended tasks beyond the limit.
fn old<'a>(view: &ServiceView<'_>, history: &History<'a>) -> Vec<&'a Task> {
    let tasks = history.all();
    let Some(excess) = limit(view).and_then(|limit| tasks.len().checked_sub(limit)) else {
        return Vec::new();
    };
    if excess == 0 {
        return Vec::new();
    }
    // While a replacement waits, the delay is told from the task before it.
    let waits = history
        .live()
        .any(|task| task.desired_state < TaskState::Running);
    let needed = if waits {
        history.all().iter().rev().find(|task| !is_live(task))
    } else {
        None
    };
    let mut ended: Vec<&Task> = tasks
        .iter()
        .copied()
        .filter(|task| task.status.state.is_terminal() || (is_over(task) && !is_live(task)))
        // A live task that ended is about to be replaced, or is the record of a job's completion.
        .filter(|task| !is_live(task) || is_old_iteration(view, task))
        .filter(|task| needed.is_none_or(|needed| needed.id != task.id))
        .collect();
    ended.sort_by_key(|task| status_time(task));
    ended.truncate(excess);
    ended
}

fn is_old_iteration(view: &ServiceView<'_>, task: &Task) -> bool {
    view.is_job() && task.job_iteration != Some(jobs::iteration(view))
}

/// How many tasks of a place to keep; `None`: all. Counting restart attempts needs one more than
/// their maximum.
fn limit(view: &ServiceView<'_>) -> Option<usize> {
    let policy = view.service.spec().task().restart.as_ref();
    match policy.map_or(0, |policy| policy.max_attempts) {
        0 => usize::try_from(view.history_limit).ok(),
        attempts => Some(
            usize::try_from(attempts)
                .unwrap_or(usize::MAX)
                .saturating_add(1),
        ),
    }
}
