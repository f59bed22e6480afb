//! What one assignments message asks for, and whether it follows on the one before.

use skep_model::{Task, TaskId};
use skep_proto as proto;

/// An assignments message, sorted by what it is about.
#[derive(Default)]
pub(crate) struct Assignments {
    /// Whatever is not mentioned is no longer assigned.
    pub(crate) complete: bool,
    pub(crate) tasks: Vec<Task>,
    pub(crate) removed_tasks: Vec<TaskId>,
    /// Whether to keep (or to forget), and what.
    pub(crate) secrets: Vec<(bool, proto::Secret)>,
    pub(crate) configs: Vec<(bool, proto::Config)>,
}

impl Assignments {
    pub(crate) fn from_message(message: proto::AssignmentsMessage) -> Self {
        use proto::assignment::Item;
        use proto::assignment_change::AssignmentAction as Action;
        let mut sorted = Self {
            complete: message.r#type() == proto::assignments_message::Type::Complete,
            ..Self::default()
        };
        for change in message.changes {
            let keep = change.action() == Action::Update;
            match change.assignment.and_then(|assignment| assignment.item) {
                Some(Item::Task(task)) if keep => match Task::try_from(task) {
                    Ok(task) => sorted.tasks.push(task),
                    Err(error) => {
                        tracing::error!(%error, "ignored a task that is not understood");
                    }
                },
                Some(Item::Task(task)) => sorted.removed_tasks.push(task.id.into()),
                Some(Item::Secret(secret)) => sorted.secrets.push((keep, secret)),
                Some(Item::Config(config)) => sorted.configs.push((keep, config)),
                Some(Item::Volume(volume)) => {
                    tracing::error!(volume.id = %volume.volume_id, "cluster volumes are not supported");
                }
                None => {}
            }
        }
        sorted
    }
}

/// Follows a stream of assignments.
#[derive(Default)]
pub(crate) struct Sequence {
    reached: Option<String>,
}

impl Sequence {
    /// Whether the message may be applied; if not, one was lost and the stream must be begun anew.
    pub(crate) fn follows(&mut self, message: &proto::AssignmentsMessage) -> bool {
        let complete = message.r#type() == proto::assignments_message::Type::Complete;
        let follows = complete || self.reached.as_ref() == Some(&message.applies_to);
        self.reached = follows.then(|| message.results_in.clone());
        follows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(complete: bool, applies_to: &str, results_in: &str) -> proto::AssignmentsMessage {
        use proto::assignments_message::Type;
        proto::AssignmentsMessage {
            r#type: if complete {
                Type::Complete
            } else {
                Type::Incremental
            }
            .into(),
            applies_to: applies_to.into(),
            results_in: results_in.into(),
            changes: Vec::new(),
        }
    }

    #[test]
    fn increments_apply_only_to_what_they_were_made_for() {
        let mut sequence = Sequence::default();
        assert!(
            !sequence.follows(&message(false, "", "1")),
            "nothing complete came first"
        );
        assert!(sequence.follows(&message(true, "", "1")));
        assert!(sequence.follows(&message(false, "1", "2")));
        assert!(!sequence.follows(&message(false, "3", "4")));
        assert!(!sequence.follows(&message(false, "4", "5")));
        assert!(sequence.follows(&message(true, "", "1")));
        assert!(sequence.follows(&message(false, "1", "2")));
    }
}
