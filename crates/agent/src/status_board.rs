//! The latest status of every task on this node, and which of them the manager has yet to hear.

use parking_lot::Mutex;
use skep_model::{TaskId, TaskStatus};
use std::collections::{BTreeSet, HashMap};
use tokio::sync::Notify;

/// Only the latest status counts: what a task went through while a report was on its way is not
/// reported afterwards.
#[derive(Default)]
pub(crate) struct StatusBoard {
    board: Mutex<Board>,
    changed: Notify,
}

#[derive(Default)]
struct Board {
    statuses: HashMap<TaskId, TaskStatus>,
    unreported: BTreeSet<TaskId>,
}

impl StatusBoard {
    pub(crate) fn put(&self, task: &TaskId, status: &TaskStatus) {
        let mut board = self.board.lock();
        if let Some(before) = board.statuses.get(task) {
            // States only go forward, whatever order the news comes in.
            if before == status || before.state > status.state {
                return;
            }
        }
        board.statuses.insert(task.clone(), status.clone());
        board.unreported.insert(task.clone());
        drop(board);
        self.changed.notify_one();
    }

    pub(crate) fn forget(&self, task: &TaskId) {
        let mut board = self.board.lock();
        board.statuses.remove(task);
        board.unreported.remove(task);
    }

    /// A new session: its manager may have heard nothing of what we told another one.
    pub(crate) fn report_all_again(&self) {
        let mut board = self.board.lock();
        let board = &mut *board;
        board.unreported.extend(board.statuses.keys().cloned());
        self.changed.notify_one();
    }

    /// Up to `limit` statuses to report; they count as reported unless given back.
    pub(crate) fn take(&self, limit: usize) -> Vec<(TaskId, TaskStatus)> {
        let mut board = self.board.lock();
        let mut batch = Vec::new();
        while batch.len() < limit
            && let Some(task) = board.unreported.pop_first()
        {
            let status = board.statuses[&task].clone();
            batch.push((task, status));
        }
        batch
    }

    pub(crate) fn give_back(&self, batch: impl IntoIterator<Item = TaskId>) {
        let mut board = self.board.lock();
        for task in batch {
            if board.statuses.contains_key(&task) {
                board.unreported.insert(task);
            }
        }
    }

    /// Returns when there is something to report.
    pub(crate) async fn unreported(&self) {
        loop {
            let notified = self.changed.notified();
            if !self.board.lock().unreported.is_empty() {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::TaskState;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus {
            state,
            ..Default::default()
        }
    }

    fn taken(board: &StatusBoard) -> Vec<(String, TaskState)> {
        let batch = board.take(100).into_iter();
        batch
            .map(|(task, status)| (task.to_string(), status.state))
            .collect()
    }

    #[test]
    fn only_the_latest_status_of_a_task_is_reported() {
        let board = StatusBoard::default();
        for state in [TaskState::Accepted, TaskState::Preparing, TaskState::Ready] {
            board.put(&"a".into(), &status(state));
        }
        board.put(&"b".into(), &status(TaskState::Failed));
        board.put(&"b".into(), &status(TaskState::Running));
        let expected = [
            ("a".to_owned(), TaskState::Ready),
            ("b".to_owned(), TaskState::Failed),
        ];
        assert_eq!(taken(&board), expected);
        assert_eq!(taken(&board), []);
        board.put(&"a".into(), &status(TaskState::Ready));
        assert_eq!(taken(&board), [], "nothing new");
    }

    #[test]
    fn what_was_not_acknowledged_is_reported_again() {
        let board = StatusBoard::default();
        board.put(&"a".into(), &status(TaskState::Running));
        board.put(&"b".into(), &status(TaskState::Running));
        let batch = board.take(1);
        board.forget(&"b".into());
        board.give_back(batch.into_iter().map(|(task, _)| task).chain(["b".into()]));
        assert_eq!(taken(&board), [("a".to_owned(), TaskState::Running)]);
        board.report_all_again();
        assert_eq!(taken(&board), [("a".to_owned(), TaskState::Running)]);
    }
}
