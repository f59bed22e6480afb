//! Rolling updates and rollbacks.
//!
//! ```text
//!   dirty slots ──at most `parallelism` at once──> in flight ──up──> delay ──> done
//!                                                      │ failed within `monitor`
//!                                                      └──> pause, go on, or roll back
//! ```
//!
//! A slot is in flight from when its new task is made until that task runs (or ended) and the delay
//! has passed. When all are through and nothing failed for one more `monitor`, the update is
//! complete. All of that is read from the tasks; see [`UpdateRun`] for what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_model::ext::ServiceExt as _;
use skep_model::{Slot, Task, TaskId, TaskState, Timestamp, Version, defaults};
use skep_proto as proto;
use skep_proto::update_config::{FailureAction, UpdateOrder};
use skep_proto::update_status::UpdateState;

use crate::action::{Action, NewTask, Plan};
use crate::dirty::is_task_dirty;
use crate::place::{History, Place, is_live, is_over};
use crate::rebalance::is_moving;
use crate::view::{ServiceView, created_at, duration, status_time, wait_until};

/// A place that takes part in updates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) place: &'a Place,
    pub(crate) history: &'a History<'a>,
    /// A restart is under way there; the update waits for it.
    pub(crate) busy: bool,
}

/// What must be remembered of a service's update from one look to the next. A new leader starts with
/// a fresh one, and then judges tasks that ended before its time by when they were made, since it
/// cannot know when they came up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateRun {
    phase: Option<Phase>,
    /// Tasks made from then on are the update's.
    since: Timestamp,
    /// What ended before then was not witnessed.
    entered_at: Timestamp,
    /// The places whose tasks this update replaced.
    touched: BTreeSet<Place>,
    came_up: BTreeMap<TaskId, Timestamp>,
    failed: BTreeMap<TaskId, Timestamp>,
}

/// Which update it is: each has its own version of the spec, and rolling back is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase {
    version: Option<Version>,
    rolling_back: bool,
}

/// The settings of the update, with defaults filled in.
struct Config {
    parallelism: usize,
    delay: Duration,
    monitor: Duration,
    failure_action: FailureAction,
    max_failure_ratio: f32,
    order: UpdateOrder,
}

impl UpdateRun {
    /// Carries the update on by one step. Does nothing while it is paused.
    pub(crate) fn step(
        &mut self,
        view: &ServiceView<'_>,
        candidates: &[Candidate<'_>],
        plan: &mut Plan,
    ) {
        let state = view.update_state();
        self.enter(view, candidates);
        if matches!(
            state,
            Some(UpdateState::Paused | UpdateState::RollbackPaused)
        ) {
            return;
        }
        // Past its completion an update has no status to keep; but a place that could not take part
        // in it, such as a paused node's, is still brought up to date.
        let tracked = matches!(
            state,
            None | Some(UpdateState::Updating | UpdateState::RollbackStarted)
        );
        let config = Config::new(view, state == Some(UpdateState::RollbackStarted));
        let progress = self.progress(view, candidates, &config, plan);
        if state.is_none() && !progress.dirty.is_empty() {
            plan.actions
                .push(Action::SetUpdateStatus(started(view.now)));
        }
        if tracked && let Some(action) = self.failure_action(view, &config, progress.dirty.len()) {
            plan.actions.push(action);
            return;
        }
        let room = config.parallelism.saturating_sub(progress.in_flight);
        for candidate in progress
            .dirty
            .iter()
            .filter(|candidate| !candidate.busy)
            .take(room)
        {
            self.touched.insert(candidate.place.clone());
            replace(view, candidate, config.order, plan);
        }
        stop_duplicates(view, candidates, plan);
        let underway = state.is_some() && tracked;
        if underway && progress.dirty.is_empty() && progress.in_flight == 0 {
            complete(view, &config, progress.settled_at, plan);
        }
    }

    /// Starts afresh if this is another update than the one remembered.
    fn enter(&mut self, view: &ServiceView<'_>, candidates: &[Candidate<'_>]) {
        let phase = Phase {
            version: view.spec_version(),
            rolling_back: matches!(
                view.update_state(),
                Some(UpdateState::RollbackStarted | UpdateState::RollbackPaused)
            ),
        };
        if self.phase == Some(phase) {
            return;
        }
        let status = view.service.update_status.as_ref();
        let started_at = status.and_then(|s| s.started_at).map(Timestamp::from);
        // An automatic rollback keeps the time at which the update started; one that begins before
        // our eyes begins now.
        let since = match self.phase {
            None => started_at.unwrap_or(view.now),
            Some(_) => view.now,
        };
        let entered_at = view.now;
        *self = Self {
            phase: Some(phase),
            since,
            entered_at,
            ..Self::default()
        };
        let replaced = |candidate: &&Candidate<'_>| {
            let task = self.updated(view, candidate.history);
            let before = task.and_then(|task| candidate.history.before(task));
            before.is_some_and(|before| before.spec_version != view.spec_version())
        };
        self.touched = candidates
            .iter()
            .filter(replaced)
            .map(|c| c.place.clone())
            .collect();
    }

    /// The first task that this update made in a place. Later ones are restarts of it.
    fn updated<'a>(&self, view: &ServiceView<'_>, history: &History<'a>) -> Option<&'a Task> {
        history
            .all()
            .iter()
            .copied()
            .find(|task| task.spec_version == view.spec_version() && created_at(task) >= self.since)
    }

    /// Looks how far the touched places have got.
    fn progress<'c, 'a>(
        &mut self,
        view: &ServiceView<'_>,
        candidates: &'c [Candidate<'a>],
        config: &Config,
        plan: &mut Plan,
    ) -> Progress<'c, 'a> {
        let mut progress = Progress {
            in_flight: 0,
            settled_at: None,
            dirty: Vec::new(),
        };
        for candidate in candidates {
            let touched = self.touched.contains(candidate.place);
            let updated = self.updated(view, candidate.history).filter(|_| touched);
            let Some(task) = updated else {
                if is_dirty(view, candidate.history) {
                    progress.dirty.push(candidate);
                }
                continue;
            };
            self.observe(task, config.monitor);
            let Some(settled_at) = self.settled_at(task) else {
                progress.in_flight += 1;
                continue;
            };
            progress.settled_at = progress.settled_at.max(Some(settled_at));
            if let Some(free_at) = wait_until(settled_at, config.delay, view.now) {
                progress.in_flight += 1;
                plan.wake_no_later_than(free_at);
            }
        }
        progress
    }

    /// Notes when an updated task came up, and whether it failed.
    fn observe(&mut self, task: &Task, monitor: Duration) {
        let at = status_time(task);
        match task.status.state {
            TaskState::Running => {
                self.came_up.entry(task.id.clone()).or_insert(at);
            }
            // Tasks that were asked to stop, or whose node was lost, say nothing about the update.
            TaskState::Complete | TaskState::Failed | TaskState::Rejected => {
                let unwitnessed = (at < self.entered_at).then(|| created_at(task));
                let came_up = self.came_up.get(&task.id).copied().or(unwitnessed);
                if came_up.is_none_or(|came_up| at <= came_up + monitor) {
                    self.failed.entry(task.id.clone()).or_insert(at);
                }
            }
            _ => {}
        }
    }

    /// When the place's turn was over: its task came up, or ended, or was given up by others.
    fn settled_at(&self, task: &Task) -> Option<Timestamp> {
        let came_up = self.came_up.get(&task.id).copied();
        let ended = task.status.state.is_terminal() || !is_live(task);
        came_up.or_else(|| ended.then(|| status_time(task)))
    }

    /// What the failures so far ask for. `left` places are still to be updated.
    fn failure_action(
        &self,
        view: &ServiceView<'_>,
        config: &Config,
        left: usize,
    ) -> Option<Action> {
        let (task, _) = self.failed.iter().max_by_key(|(_, at)| **at)?;
        let total = self.touched.len() + left;
        if self.failed.len() as f32 / total as f32 <= config.max_failure_ratio {
            return None;
        }
        let status = view
            .service
            .update_status
            .clone()
            .unwrap_or_else(|| started(view.now));
        let with = |state: UpdateState, what: &str| proto::UpdateStatus {
            state: state.into(),
            message: format!("{what} due to failure or early termination of task {task}"),
            ..status
        };
        let rolling_back = status.state() == UpdateState::RollbackStarted;
        let paused = if rolling_back {
            UpdateState::RollbackPaused
        } else {
            UpdateState::Paused
        };
        match config.failure_action {
            FailureAction::Continue => None,
            // Never roll back a rollback.
            FailureAction::Rollback if rolling_back => {
                Some(Action::SetUpdateStatus(with(paused, "rollback paused")))
            }
            FailureAction::Rollback if view.service.previous_spec.is_some() => Some(
                Action::RollBack(with(UpdateState::RollbackStarted, "update rolled back")),
            ),
            FailureAction::Pause | FailureAction::Rollback => {
                Some(Action::SetUpdateStatus(with(paused, "update paused")))
            }
        }
    }
}

struct Progress<'c, 'a> {
    in_flight: usize,
    /// When the last of the places through came through.
    settled_at: Option<Timestamp>,
    /// Places still to be updated.
    dirty: Vec<&'c Candidate<'a>>,
}

impl Config {
    fn new(view: &ServiceView<'_>, rolling_back: bool) -> Self {
        let spec = view.service.spec();
        let config = if rolling_back {
            &spec.rollback
        } else {
            &spec.update
        };
        let config = config.unwrap_or_else(defaults::update_config);
        Self {
            parallelism: match config.parallelism {
                0 => usize::MAX,
                limit => usize::try_from(limit).unwrap_or(usize::MAX),
            },
            delay: duration(config.delay.as_ref(), Duration::ZERO),
            monitor: duration(config.monitor.as_ref(), defaults::UPDATE_MONITOR),
            failure_action: config.failure_action(),
            max_failure_ratio: config.max_failure_ratio,
            order: config.order(),
        }
    }
}

/// How many places may change at once.
pub(crate) fn parallelism(view: &ServiceView<'_>) -> usize {
    Config::new(view, false).parallelism
}

fn is_dirty(view: &ServiceView<'_>, history: &History<'_>) -> bool {
    history
        .current()
        .any(|task| is_task_dirty(view.service, task, view.node_of(task)))
}

/// Puts a task of the new spec in the place, unless one is there already.
fn replace(view: &ServiceView<'_>, candidate: &Candidate<'_>, order: UpdateOrder, plan: &mut Plan) {
    let history = candidate.history;
    let clean = history
        .live()
        .filter(|task| !is_task_dirty(view.service, task, view.node_of(task)))
        .max_by_key(|task| task.desired_state);
    if let Some(clean) = clean {
        return stop_others(history, clean, plan);
    }
    let start_first = order == UpdateOrder::StartFirst;
    // Where nothing has to stop before, it may run as soon as it can.
    let desired = if start_first || history.all().iter().all(|task| is_over(task)) {
        TaskState::Running
    } else {
        TaskState::Ready
    };
    let (slot, node) = match candidate.place {
        Place::Slot(slot) => (*slot, None),
        Place::Node(node) => (Slot::NONE, Some(node.clone())),
    };
    plan.actions.push(Action::Create(NewTask {
        slot,
        node,
        desired,
        job_iteration: None,
    }));
    // The one that serves stays until the new one does.
    let serving = history
        .live()
        .filter(|task| task.status.state == TaskState::Running)
        .last();
    let kept = serving.filter(|_| start_first).map(|task| &task.id);
    for task in history.live().filter(|task| Some(&task.id) != kept) {
        plan.set_desired(task, TaskState::Shutdown);
    }
}

fn stop_others(history: &History<'_>, keep: &Task, plan: &mut Plan) {
    for task in history.live().filter(|task| task.id != keep.id) {
        plan.set_desired(task, TaskState::Shutdown);
    }
}

/// Where several tasks live in one place, all but one go as soon as one of the current spec runs:
/// that ends the overlap of an update that starts first, also if its first attempt failed or the
/// update was cut short.
fn stop_duplicates(view: &ServiceView<'_>, candidates: &[Candidate<'_>], plan: &mut Plan) {
    for candidate in candidates.iter().filter(|candidate| !candidate.busy) {
        let live: Vec<&Task> = candidate.history.live().collect();
        if live.len() < 2 || is_moving(view, &live) {
            continue;
        }
        let dirty = |task: &&&Task| is_task_dirty(view.service, task, view.node_of(task));
        let rank = |task: &&&Task| (task.desired_state, task.status.state);
        let best = live.iter().filter(|task| !dirty(task)).max_by_key(rank);
        let Some(best) = best else { continue };
        if best.status.state == TaskState::Running || !live.iter().any(|task| dirty(&task)) {
            stop_others(candidate.history, best, plan);
        }
    }
}

fn complete(
    view: &ServiceView<'_>,
    config: &Config,
    settled_at: Option<Timestamp>,
    plan: &mut Plan,
) {
    // A delay as long as the monitoring would otherwise hide the last place from it.
    let monitor = if config.delay >= config.monitor {
        config.delay + Duration::from_secs(1)
    } else {
        config.monitor
    };
    let watched = config.delay + monitor;
    let done_at = settled_at.and_then(|settled_at| wait_until(settled_at, watched, view.now));
    if let Some(done_at) = done_at {
        return plan.wake_no_later_than(done_at);
    }
    let Some(status) = view.service.update_status.clone() else {
        return;
    };
    let (state, message) = match status.state() {
        UpdateState::RollbackStarted => (UpdateState::RollbackCompleted, "rollback completed"),
        _ => (UpdateState::Completed, "update completed"),
    };
    plan.actions
        .push(Action::SetUpdateStatus(proto::UpdateStatus {
            state: state.into(),
            message: message.to_owned(),
            completed_at: Some(view.now.into()),
            ..status
        }));
}

fn started(now: Timestamp) -> proto::UpdateStatus {
    proto::UpdateStatus {
        state: UpdateState::Updating.into(),
        message: "update in progress".to_owned(),
        started_at: Some(now.into()),
        completed_at: None,
    }
}
