//! Writes what nodes report. One at a time, so that whatever comes in while a write is on its way
//! to the disk goes together into the next; an idle dispatcher writes at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use skep_model::{NodeId, Task, TaskId, TaskState, TaskStatus, Timestamp};
use skep_proto as proto;
use skep_store::{Store, Transaction};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// Past so many reports one write is enough.
const MAX_BATCH: usize = 10_000;

pub(super) enum Update {
    TaskStatus {
        task: TaskId,
        status: TaskStatus,
    },
    NodeReady {
        node: NodeId,
        description: Option<Box<proto::NodeDescription>>,
        addr: Option<IpAddr>,
        written: oneshot::Sender<Result<(), Status>>,
    },
    NodeState {
        node: NodeId,
        state: proto::node_status::State,
        message: &'static str,
    },
    /// Gives up the tasks of a node that has been down for very long.
    Orphan {
        node: NodeId,
    },
}

impl Update {
    pub(super) fn node_ready(
        node: NodeId,
        description: Option<proto::NodeDescription>,
        addr: Option<IpAddr>,
    ) -> (Self, oneshot::Receiver<Result<(), Status>>) {
        let (written, receiver) = oneshot::channel();
        let description = description.map(Box::new);
        (
            Self::NodeReady {
                node,
                description,
                addr,
                written,
            },
            receiver,
        )
    }
}

/// What is to be written; of several reports of one object the last counts.
#[derive(Default)]
struct Batch {
    tasks: BTreeMap<TaskId, TaskStatus>,
    nodes: BTreeMap<NodeId, NodeChange>,
    orphans: Vec<NodeId>,
    written: Vec<oneshot::Sender<Result<(), Status>>>,
}

#[derive(Clone, Default)]
struct NodeChange {
    state: proto::node_status::State,
    message: &'static str,
    addr: Option<IpAddr>,
    description: Option<Box<proto::NodeDescription>>,
}

/// Runs until all senders are gone.
pub(super) async fn run(
    store: Store,
    manager: NodeId,
    mut updates: mpsc::UnboundedReceiver<Update>,
) {
    let mut received = Vec::new();
    while updates.recv_many(&mut received, MAX_BATCH).await > 0 {
        let mut batch = Batch::default();
        received.drain(..).for_each(|update| batch.add(update));
        batch.write(&store, &manager).await;
    }
}

enum Change {
    Task(TaskId, TaskStatus),
    Node(NodeId, NodeChange),
    Orphan(TaskId),
}

impl Batch {
    fn add(&mut self, update: Update) {
        match update {
            Update::TaskStatus { task, status } => {
                // States only go forward, also between reports that are written together.
                let known = self.tasks.get(&task);
                if known.is_none_or(|known| known.state <= status.state) {
                    self.tasks.insert(task, status);
                }
            }
            Update::NodeReady {
                node,
                description,
                addr,
                written,
            } => {
                let state = proto::node_status::State::Ready;
                let known = self
                    .nodes
                    .remove(&node)
                    .and_then(|change| change.description);
                let description = description.or(known);
                self.nodes.insert(
                    node,
                    NodeChange {
                        state,
                        message: "",
                        addr,
                        description,
                    },
                );
                self.written.push(written);
            }
            Update::NodeState {
                node,
                state,
                message,
            } => {
                let change = self.nodes.entry(node).or_default();
                change.state = state;
                change.message = message;
            }
            Update::Orphan { node } => self.orphans.push(node),
        }
    }

    async fn write(self, store: &Store, manager: &NodeId) {
        let now = Timestamp::from(SystemTime::now());
        let snapshot = store.snapshot();
        let orphans = self
            .orphans
            .iter()
            .flat_map(|node| snapshot.tasks_on_node(node));
        let orphans = orphans.map(|task| Change::Orphan(task.id.clone()));
        let changes: Vec<Change> = (self.nodes.into_iter())
            .map(|(id, change)| Change::Node(id, change))
            .chain(
                self.tasks
                    .into_iter()
                    .map(|(id, status)| Change::Task(id, status)),
            )
            .chain(orphans)
            .collect();
        let outcome = store
            .batch(changes, |tx, change| apply(tx, change, manager, now))
            .await;
        if let Some(error) = &outcome.failed {
            // Agents report again to the next leader.
            tracing::debug!(error = %error, "reports of nodes were not written");
        }
        for written in self.written {
            let result = match &outcome.failed {
                None => Ok(()),
                Some(error) => Err(Status::aborted(error.to_string())),
            };
            // The node may have hung up.
            let _ = written.send(result);
        }
    }
}

/// Errors are of objects that are gone, which is no error.
fn apply(
    tx: &mut Transaction,
    change: &Change,
    manager: &NodeId,
    now: Timestamp,
) -> Result<(), skep_store::StoreError> {
    match change {
        Change::Task(id, status) => {
            let Some(task) = tx.task(id) else {
                return Ok(());
            };
            if task.status.state > status.state || is_same_report(&task.status, status) {
                return Ok(());
            }
            tx.modify::<Task>(id, |task| {
                task.status = status.clone();
                task.status.applied_by = Some(manager.clone());
                task.status.applied_at = Some(now);
            })?;
        }
        Change::Node(id, change) => {
            let Some(node) = tx.node(id) else {
                return Ok(());
            };
            let mut node = (**node).clone();
            let before = node.clone();
            let status = node.status.get_or_insert_default();
            status.state = change.state.into();
            change.message.clone_into(&mut status.message);
            if let Some(addr) = change.addr {
                status.addr = addr.to_string();
            }
            if let Some(description) = &change.description {
                node.description = Some((**description).clone());
            }
            if node != before {
                tx.update(node)?;
            }
        }
        Change::Orphan(id) => {
            let Some(task) = tx.task(id) else {
                return Ok(());
            };
            // What ended cannot have gone on since.
            if (TaskState::Assigned..=TaskState::Running).contains(&task.status.state) {
                tx.modify::<Task>(id, |task| task.status.state = TaskState::Orphaned)?;
            }
        }
    }
    Ok(())
}

/// Whether the report is the one that was written before, but for what we added to it.
fn is_same_report(written: &TaskStatus, reported: &TaskStatus) -> bool {
    let mut written = written.clone();
    written.applied_by.clone_from(&reported.applied_by);
    written.applied_at = reported.applied_at;
    written == *reported
}
