//! All tasks of this node: takes assignments, keeps one driver for each task.

use crate::assignments::Assignments;
use crate::status_board::StatusBoard;
use crate::task_driver::{self, TaskDriver};
use crate::task_store::{StoredTask, TaskStore, TaskStoreError};
use crate::{Controller, Dependencies, Executor, step};
use parking_lot::Mutex;
use skep_model::{Task, TaskId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct Worker {
    executor: Arc<dyn Executor>,
    store: Arc<TaskStore>,
    board: Arc<StatusBoard>,
    dependencies: Arc<Dependencies>,
    tasks: Mutex<HashMap<TaskId, Assigned>>,
    /// Counts tasks that were added: who follows logs looks for new ones.
    added: watch::Sender<u64>,
    starting: Arc<Semaphore>,
    drivers: TaskTracker,
    stop: CancellationToken,
}

struct Assigned {
    updates: watch::Sender<Task>,
    unassigned: CancellationToken,
    /// `None` when the executor refused the task.
    controller: Option<Arc<dyn Controller>>,
}

impl Worker {
    pub(crate) fn new(
        executor: Arc<dyn Executor>,
        store: TaskStore,
        concurrent_starts: usize,
        stop: CancellationToken,
    ) -> Self {
        Self {
            executor,
            store: Arc::new(store),
            board: Arc::default(),
            dependencies: Arc::default(),
            tasks: Mutex::default(),
            added: watch::Sender::new(0),
            starting: Arc::new(Semaphore::new(concurrent_starts)),
            drivers: TaskTracker::new(),
            stop,
        }
    }

    pub(crate) fn board(&self) -> &StatusBoard {
        &self.board
    }

    /// Goes on with what was on this node when the daemon ended.
    pub(crate) fn resume(&self) -> Result<(), TaskStoreError> {
        let mut tasks = self.tasks.lock();
        for StoredTask { task, removing } in self.store.load()? {
            let id = task.id.clone();
            let assigned = self.begin(task);
            if removing {
                assigned.unassigned.cancel();
                self.board.forget(&id);
            } else {
                tasks.insert(id, assigned);
            }
        }
        Ok(())
    }

    /// Applies a message's changes: dependencies first, because tasks look them up.
    pub(crate) fn assign(&self, assignments: Assignments) {
        let Assignments {
            complete,
            tasks,
            removed_tasks,
            secrets,
            configs,
        } = assignments;
        self.dependencies.change(complete, secrets, configs);
        let mut known = self.tasks.lock();
        let mut added = 0;
        if complete {
            let stay: HashSet<&TaskId> = tasks.iter().map(|task| &task.id).collect();
            let gone: Vec<TaskId> = known
                .keys()
                .filter(|id| !stay.contains(id))
                .cloned()
                .collect();
            self.unassign(&mut known, gone);
        }
        self.unassign(&mut known, removed_tasks);
        for task in tasks {
            if let Some(assigned) = known.get(&task.id) {
                self.update(assigned, task);
            } else {
                self.persist(&task);
                known.insert(task.id.clone(), self.begin(task));
                added += 1;
            }
        }
        drop(known);
        if added > 0 {
            self.added.send_modify(|count| *count += added);
        }
    }

    /// The tasks that a selector is about, with their controllers.
    pub(crate) fn select(
        &self,
        matches: impl Fn(&Task) -> bool,
    ) -> Vec<(Task, Arc<dyn Controller>)> {
        let tasks = self.tasks.lock();
        let all = tasks.values().filter_map(|assigned| {
            let controller = assigned.controller.clone()?;
            Some((assigned.updates.borrow().clone(), controller))
        });
        all.filter(|(task, _)| matches(task)).collect()
    }

    /// Changes whenever tasks were added.
    pub(crate) fn added(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    /// Returns when no driver is left: after a stop, or once everything assigned has been removed.
    pub(crate) async fn finished(&self) {
        self.drivers.close();
        self.drivers.wait().await;
        self.drivers.reopen();
    }

    fn begin(&self, mut task: Task) -> Assigned {
        let resolved = self
            .executor
            .controller(&task, Arc::clone(&self.dependencies));
        let status = step::resolve(
            &task.status,
            resolved.as_ref().map(|_| ()),
            task_driver::now(),
        );
        if let Err(error) = &resolved {
            tracing::error!(task.id = %task.id, %error, "the executor refused the task");
            task.status = status.clone();
            task_driver::persist_status(&self.store, &task);
        }
        task.status = status;
        self.board.put(&task.id, &task.status);

        let (updates, receiver) = watch::channel(task.clone());
        let assigned = Assigned {
            updates,
            unassigned: CancellationToken::new(),
            controller: resolved.ok(),
        };
        if let Some(controller) = &assigned.controller {
            let driver = TaskDriver {
                task,
                controller: Arc::clone(controller),
                updates: receiver,
                unassigned: assigned.unassigned.clone(),
                stop: self.stop.clone(),
                board: Arc::clone(&self.board),
                store: Arc::clone(&self.store),
                starting: Arc::clone(&self.starting),
                updated: false,
            };
            self.drivers.spawn(driver.run());
        }
        assigned
    }

    fn update(&self, assigned: &Assigned, task: Task) {
        let changed = {
            let before = assigned.updates.borrow();
            // The manager's copy of the status comes from here, and its version says nothing new.
            let now = Task {
                status: before.status.clone(),
                meta: before.meta,
                ..task.clone()
            };
            now != *before
        };
        if changed {
            self.persist(&task);
            assigned.updates.send_replace(task);
        }
    }

    fn unassign(
        &self,
        known: &mut HashMap<TaskId, Assigned>,
        gone: impl IntoIterator<Item = TaskId>,
    ) {
        for id in gone {
            let Some(assigned) = known.remove(&id) else {
                continue;
            };
            self.board.forget(&id);
            let stored = if assigned.controller.is_some() {
                self.store.mark_removing(&id)
            } else {
                self.store.delete(&id)
            };
            if let Err(error) = stored {
                tracing::error!(task.id = %id, %error, "cannot save that the task is to go");
            }
            assigned.unassigned.cancel();
        }
    }

    fn persist(&self, task: &Task) {
        if let Err(error) = self.store.put(task) {
            tracing::error!(task.id = %task.id, %error, "cannot save the task");
        }
    }
}
