//! The task state machine, without a task to run: what to do next, and what an operation's outcome
//! means. The rules are SwarmKit's (agent/exec `Do` and `Resolve`).

use crate::ControllerError;
use skep_model::{TaskState, TaskStatus, Timestamp};
use skep_proto as proto;

/// What the controller is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Prepare,
    Start,
    Wait,
    Shutdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the task is updated.
    Idle,
    /// Go on to this state; the controller has nothing to do for it.
    Advance {
        state: TaskState,
        message: &'static str,
    },
    /// Ask the controller; [`conclude`] says what its answer means.
    Run(Operation),
}

/// What was seen of the container after an operation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    pub container: Option<proto::ContainerStatus>,
    pub ports: Option<proto::PortStatus>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done,
    Failed(ControllerError),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Conclusion {
    /// The task's status from now on.
    pub status: TaskStatus,
    /// The same operation is to be tried again after a pause.
    pub retry: bool,
}

/// What a task in `state` needs in order to get to where the managers want it.
pub fn next_step(state: TaskState, desired: TaskState) -> Step {
    // Whatever end is desired (remove, orphaned), a node brings a task to shutdown, no further.
    if desired >= TaskState::Shutdown {
        return match state {
            state if state >= TaskState::Complete => Step::Idle,
            _ => Step::Run(Operation::Shutdown),
        };
    }
    if state > desired {
        return Step::Idle;
    }
    // These go on to their result even when it is past the desired state: work begun is finished.
    match state {
        TaskState::Preparing => return Step::Run(Operation::Prepare),
        TaskState::Starting => return Step::Run(Operation::Start),
        TaskState::Running => return Step::Run(Operation::Wait),
        _ => {}
    }
    // These wait: a task prepared under start-first or stop-first stays READY until it may start.
    if state >= desired {
        return Step::Idle;
    }
    match state {
        TaskState::New | TaskState::Pending | TaskState::Assigned => Step::Advance {
            state: TaskState::Accepted,
            message: "accepted",
        },
        TaskState::Accepted => Step::Advance {
            state: TaskState::Preparing,
            message: "preparing",
        },
        TaskState::Ready => Step::Advance {
            state: TaskState::Starting,
            message: "starting",
        },
        _ => Step::Idle,
    }
}

/// The status after `operation` ended.
pub fn conclude(
    status: &TaskStatus,
    operation: Operation,
    outcome: Outcome,
    seen: Observation,
    now: Timestamp,
) -> Conclusion {
    let mut after = status.clone();
    let mut retry = false;
    let mut exit_code = 0;
    let mut from_error = None;
    match outcome {
        Outcome::Done => succeed(&mut after, operation),
        Outcome::Failed(ControllerError::TaskPrepared) if operation == Operation::Prepare => {
            succeed(&mut after, operation);
        }
        Outcome::Failed(ControllerError::TaskStarted) if operation == Operation::Start => {
            succeed(&mut after, operation);
        }
        Outcome::Failed(error) => {
            after.err = error.to_string();
            retry = matches!(error, ControllerError::Temporary(_));
            if !retry {
                after.state = if after.state < TaskState::Starting {
                    TaskState::Rejected
                } else {
                    TaskState::Failed
                };
            }
            if let ControllerError::Exit {
                code, container, ..
            } = error
            {
                (exit_code, from_error) = (code, container);
            }
        }
    }
    if after.state >= TaskState::Starting {
        // Having seen nothing, what was known still holds.
        let known = from_error
            .or(seen.container)
            .or_else(|| after.container.take());
        let mut container = known.unwrap_or_default();
        if exit_code != 0 {
            container.exit_code = exit_code;
        }
        after.container = Some(container);
        after.port_status = seen.ports.or_else(|| after.port_status.take());
    }
    if after != *status {
        after.timestamp = Some(now);
    }
    Conclusion {
        status: after,
        retry,
    }
}

/// The status a task starts with on this node, given whether the executor has a controller for it.
pub fn resolve(
    status: &TaskStatus,
    controller: Result<(), &ControllerError>,
    now: Timestamp,
) -> TaskStatus {
    let mut after = status.clone();
    match controller {
        Err(error) => {
            "resolving controller failed".clone_into(&mut after.message);
            after.err = error.to_string();
            if status.state < TaskState::Starting {
                after.state = TaskState::Rejected;
            } else if status.state <= TaskState::Running {
                after.state = TaskState::Failed;
            }
        }
        Ok(()) if status.state < TaskState::Accepted => {
            "accepted".clone_into(&mut after.message);
            after.state = TaskState::Accepted;
            after.err = String::new();
        }
        Ok(()) => {}
    }
    if after != *status {
        after.timestamp = Some(now);
    }
    after
}

fn succeed(status: &mut TaskStatus, operation: Operation) {
    let (state, message) = match operation {
        Operation::Prepare => (TaskState::Ready, "prepared"),
        Operation::Start => (TaskState::Running, "started"),
        Operation::Wait => (TaskState::Complete, "finished"),
        Operation::Shutdown => (TaskState::Shutdown, "shutdown"),
    };
    status.state = state;
    message.clone_into(&mut status.message);
    status.err.clear();
}

#[cfg(test)]
mod tests;
