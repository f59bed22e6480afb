//! Drives one task: asks the state machine what to do, does it, reports. Decides nothing itself.

use crate::status_board::StatusBoard;
use crate::step::{Observation, Operation, Outcome, Step, conclude, next_step};
use crate::task_store::TaskStore;
use crate::{Controller, ControllerError};
use skep_model::{Task, TaskState, TaskStatus, Timestamp};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Pause before an operation that failed for a passing reason is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// First and longest pause between attempts to remove what a task left.
const REMOVE_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How long an operation counts against the limit. One that takes longer waits for something that is
/// not this machine, a registry or a health check, and must not keep other tasks from starting.
const BUSY: Duration = Duration::from_secs(2);

pub(crate) struct TaskDriver {
    pub(crate) task: Task,
    pub(crate) controller: Arc<dyn Controller>,
    /// New definitions of the task.
    pub(crate) updates: watch::Receiver<Task>,
    /// The task is no longer assigned: everything of it is to go.
    pub(crate) unassigned: CancellationToken,
    /// The agent stops: everything stays as it is.
    pub(crate) stop: CancellationToken,
    pub(crate) board: Arc<StatusBoard>,
    pub(crate) store: Arc<TaskStore>,
    /// Bounds how many tasks are made at once.
    pub(crate) starting: Arc<Semaphore>,
    /// An update was noticed and not yet taken.
    pub(crate) updated: bool,
}

/// How an operation came to an end.
enum Ended {
    With(Outcome),
    /// Cut short: the task was updated.
    Updated,
}

impl TaskDriver {
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        let unassigned = self.unassigned.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = unassigned.cancelled() => {}
            () = self.drive() => {}
        }
        if unassigned.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.remove() => {}
            }
        }
        if let Err(error) = self.controller.close().await {
            tracing::warn!(task.id = %self.task.id, %error, "cannot close the task's controller");
        }
    }

    /// Never returns: what is to happen to a task that ended is told by an update or by its removal.
    async fn drive(&mut self) {
        loop {
            match next_step(self.task.status.state, self.task.desired_state) {
                Step::Idle => {
                    if self.updates.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                    self.take_update().await;
                }
                Step::Advance { state, message } => self.advance(state, message),
                Step::Run(operation) => self.run_operation(operation).await,
            }
        }
    }

    async fn take_update(&mut self) {
        self.updated = false;
        let updated = self.updates.borrow_and_update().clone();
        // The status is known best here, and what is desired only goes up.
        if updated.desired_state < self.task.desired_state {
            let desired = updated.desired_state;
            tracing::error!(task.id = %updated.id, ?desired, "ignored an update that goes back");
            return;
        }
        let status = std::mem::take(&mut self.task.status);
        self.task = Task { status, ..updated };
        if let Err(error) = self.controller.update(&self.task).await {
            tracing::warn!(task.id = %self.task.id, %error, "cannot update the task's controller");
        }
    }

    fn advance(&mut self, state: TaskState, message: &str) {
        let status = TaskStatus {
            state,
            message: message.to_owned(),
            err: String::new(),
            timestamp: Some(now()),
            ..self.task.status.clone()
        };
        self.set_status(status);
    }

    async fn run_operation(&mut self, operation: Operation) {
        let outcome = match self.perform(operation).await {
            Ended::With(outcome) => outcome,
            Ended::Updated => return self.take_update().await,
        };
        let seen = match (&outcome, operation) {
            // Nothing exists yet that could be looked at.
            (_, Operation::Prepare) => Observation::default(),
            _ => self.observe().await,
        };
        let conclusion = conclude(&self.task.status, operation, outcome, seen, now());
        self.set_status(conclusion.status);
        if self.updated {
            self.take_update().await;
        } else if conclusion.retry {
            tokio::select! {
                () = sleep(RETRY) => {}
                changed = self.updates.changed() => if changed.is_ok() {
                    self.take_update().await;
                },
            }
        }
    }

    async fn perform(&mut self, operation: Operation) -> Ended {
        let controller = Arc::clone(&self.controller);
        let starting = Arc::clone(&self.starting);
        let work = async {
            match operation {
                Operation::Prepare => bounded(&starting, controller.prepare()).await,
                Operation::Start => bounded(&starting, controller.start()).await,
                Operation::Wait => controller.wait().await,
                Operation::Shutdown => controller.shutdown().await,
            }
        };
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => {
                    return Ended::With(result.map_or_else(Outcome::Failed, |()| Outcome::Done));
                }
                changed = self.updates.changed(), if !self.updated => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    if self.interrupts(operation) {
                        return Ended::Updated;
                    }
                    self.updated = true;
                }
            }
        }
    }

    /// Whether the update that just came cannot wait for the operation's end. Being told to start must
    /// not throw away a half-pulled image; there is nothing beyond a shutdown to ask for.
    fn interrupts(&self, operation: Operation) -> bool {
        match operation {
            Operation::Prepare | Operation::Start => {
                self.updates.borrow().desired_state >= TaskState::Shutdown
            }
            Operation::Wait => true,
            Operation::Shutdown => false,
        }
    }

    async fn observe(&self) -> Observation {
        let note = |error: ControllerError| {
            tracing::warn!(task.id = %self.task.id, %error, "the container's status is unavailable");
        };
        let (container, ports) = tokio::join!(
            self.controller.container_status(),
            self.controller.port_status()
        );
        Observation {
            container: container.map_err(note).ok().flatten(),
            ports: ports.map_err(note).ok().flatten(),
        }
    }

    fn set_status(&mut self, status: TaskStatus) {
        if status == self.task.status {
            return;
        }
        let (before, after) = (self.task.status.state, status.state);
        if before != after {
            tracing::debug!(task.id = %self.task.id, ?before, ?after, error = status.err, "task state changed");
        }
        self.task.status = status;
        if is_worth_keeping(before, after) {
            persist_status(&self.store, &self.task);
        }
        self.board.put(&self.task.id, &self.task.status);
    }

    /// Until it succeeds: what is not removed now would stay for good.
    async fn remove(&mut self) {
        let (mut pause, longest) = REMOVE_RETRY;
        while let Err(error) = self.controller.remove().await {
            tracing::warn!(task.id = %self.task.id, %error, "cannot remove the task, trying again");
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
        if let Err(error) = self.store.delete(&self.task.id) {
            tracing::error!(task.id = %self.task.id, %error, "cannot forget the removed task");
        }
    }
}

/// From STARTING on a task must not be prepared anew after a restart, what ran is only waited for, and
/// an end is remembered. The states before are found again by going through them: the controller says
/// that the work is done already.
fn is_worth_keeping(before: TaskState, after: TaskState) -> bool {
    before != after && after >= TaskState::Starting
}

pub(crate) fn persist_status(store: &TaskStore, task: &Task) {
    if let Err(error) = store.put_status(&task.id, &task.status) {
        tracing::error!(task.id = %task.id, %error, "cannot save the task's status");
    }
}

pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Runs an operation when its turn comes, and lets the next one have its turn when this one ends or
/// has taken [`BUSY`].
async fn bounded(
    starting: &Semaphore,
    operation: impl Future<Output = Result<(), ControllerError>>,
) -> Result<(), ControllerError> {
    let permit = starting
        .acquire()
        .await
        .expect("the semaphore is never closed");
    let mut operation = pin!(operation);
    if let Ok(result) = timeout(BUSY, &mut operation).await {
        return result;
    }
    drop(permit);
    operation.await
}
