//! Where a task stands in its service, and the tasks that stood there one after the other.

use std::collections::BTreeMap;

use skep_model::{NodeId, Slot, Task, TaskState};

use crate::view::{ServiceView, created_at, status_time};

/// A slot of a replicated service, or a node of a global one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Slot(Slot),
    Node(NodeId),
}

/// All tasks of one place, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct History<'a>(Vec<&'a Task>);

impl<'a> History<'a> {
    pub(crate) fn all(&self) -> &[&'a Task] {
        &self.0
    }

    /// The tasks that are to run, or wait to be started.
    pub(crate) fn live(&self) -> impl Iterator<Item = &'a Task> {
        self.0.iter().copied().filter(|task| is_live(task))
    }

    /// The tasks that stand for the place now: the live ones, or else the one heard of last.
    pub(crate) fn current(&self) -> impl Iterator<Item = &'a Task> {
        let last = if self.is_dead() { self.newest() } else { None };
        self.live().chain(last)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.live().next().is_none()
    }

    /// The task heard of last.
    pub(crate) fn newest(&self) -> Option<&'a Task> {
        self.0.iter().copied().max_by_key(|task| status_time(task))
    }

    /// The task that was there before this one.
    pub(crate) fn before(&self, task: &Task) -> Option<&'a Task> {
        let position = self.0.iter().position(|other| other.id == task.id)?;
        position.checked_sub(1).map(|previous| self.0[previous])
    }
}

/// Tasks of jobs are wanted to complete, all others to run.
pub(crate) fn is_live(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete
}

/// Whether nothing of the task runs, nor will. A task that no node was told of counts: nobody will
/// ever report that it stopped.
pub(crate) fn is_over(task: &Task) -> bool {
    task.status.state.is_terminal() || task.status.state < TaskState::Assigned
}

pub(crate) fn by_place<'a>(view: &ServiceView<'a>) -> BTreeMap<Place, History<'a>> {
    let mut places = BTreeMap::<Place, History<'a>>::new();
    for task in view.tasks {
        let place = match &task.node_id {
            Some(node) if view.is_by_node() => Place::Node(node.clone()),
            // A global service's task without a node is nobody's; it is shut down as slot 0.
            _ => Place::Slot(task.slot),
        };
        places.entry(place).or_default().0.push(task);
    }
    for history in places.values_mut() {
        history.0.sort_by(|a, b| {
            (created_at(a), a.meta.version, &a.id).cmp(&(created_at(b), b.meta.version, &b.id))
        });
    }
    places
}
