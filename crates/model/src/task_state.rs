use std::fmt;

use crate::proto;

/// How far a task has got. The order is the order of life: a task's observed state only goes up, and
/// everything above [`TaskState::Running`] is an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum TaskState {
    /// Made by an orchestrator; has no addresses yet.
    #[default]
    New = 0,
    /// Has its network resources; waits for a node.
    Pending = 64,
    /// Has a node, which does not know it yet.
    Assigned = 192,
    Accepted = 256,
    /// The node is fetching the image, creating the container.
    Preparing = 320,
    Ready = 384,
    Starting = 448,
    Running = 512,
    /// Ended by itself, with success.
    Complete = 576,
    /// Ended because it was asked to.
    Shutdown = 640,
    /// Ended with an error.
    Failed = 704,
    /// The node could not even try.
    Rejected = 768,
    /// Only ever desired: the task is to be stopped, and its record removed afterwards.
    Remove = 800,
    /// Its node has been gone for so long that nobody waits for it any more.
    Orphaned = 832,
}

/// A number that is no task state of this version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown task state {0}")]
pub struct UnknownTaskState(pub i32);

impl TaskState {
    pub const ALL: [Self; 14] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Remove,
        Self::Orphaned,
    ];

    /// Docker's word for the state, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// The state a user names in a filter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str().eq_ignore_ascii_case(name))
    }

    /// Whether the task will never run again.
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl TryFrom<i32> for TaskState {
    type Error = UnknownTaskState;

    fn try_from(number: i32) -> Result<Self, Self::Error> {
        Self::ALL
            .into_iter()
            .find(|state| *state as i32 == number)
            .ok_or(UnknownTaskState(number))
    }
}

impl From<TaskState> for i32 {
    fn from(state: TaskState) -> Self {
        state as Self
    }
}

impl From<TaskState> for proto::TaskState {
    fn from(state: TaskState) -> Self {
        Self::try_from(state as i32)
            .expect("both enums have the same numbers; a test compares them")
    }
}

impl From<proto::TaskState> for TaskState {
    fn from(state: proto::TaskState) -> Self {
        Self::try_from(state as i32)
            .expect("both enums have the same numbers; a test compares them")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_those_of_the_wire() {
        for state in TaskState::ALL {
            let wire = proto::TaskState::from(state);
            assert_eq!(wire.as_str_name().to_lowercase(), state.as_str());
            assert_eq!(TaskState::from(wire), state);
        }
        let known = (0..10_000)
            .filter(|n| proto::TaskState::try_from(*n).is_ok())
            .count();
        assert_eq!(known, TaskState::ALL.len());
    }

    #[test]
    fn states_are_ordered_by_life() {
        assert!(TaskState::ALL.is_sorted());
        assert!(!TaskState::Running.is_terminal());
        assert!(TaskState::Complete.is_terminal());
    }

    #[test]
    fn an_unknown_number_is_refused() {
        assert_eq!(TaskState::try_from(1), Err(UnknownTaskState(1)));
    }
}
