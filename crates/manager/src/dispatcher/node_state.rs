//! Nodes that are not heard of.

use skep_model::NodeId;
use skep_model::ext::NodeExt as _;
use skep_proto::node_status::State;
use skep_store::{Snapshot, Store};
use tokio::sync::mpsc;

use super::sessions::{Deadline, Rhythm, Sessions};
use super::writer::Update;

/// A new leader gives every node time to register, and every node that is down its time to return.
pub(super) fn expect_all(store: &Store, sessions: &Sessions, rhythm: Rhythm) {
    for node in store.snapshot().nodes() {
        let id = NodeId::from(node.id.as_str());
        if node.status().state() == State::Down {
            sessions.expect_orphans(&id);
        } else {
            sessions.expect_registration(&id, rhythm);
        }
    }
}

/// Nothing is known of nodes that the last leader heard of, until they call.
pub(super) fn mark_unknown(updates: &mpsc::UnboundedSender<Update>, snapshot: &Snapshot) {
    let heard_of = snapshot
        .nodes()
        .filter(|node| !matches!(node.status().state(), State::Down | State::Unknown));
    for node in heard_of {
        let update = Update::NodeState {
            node: node.id.as_str().into(),
            state: State::Unknown,
            message: "Node moved to \"unknown\" state due to leadership change in cluster",
        };
        // The writer ends only with the dispatcher.
        let _ = updates.send(update);
    }
}

/// Marks nodes as down when their time is over.
pub(super) async fn expire(sessions: &Sessions, updates: &mpsc::UnboundedSender<Update>) {
    loop {
        for (node, deadline) in sessions.next_expired().await {
            let message = match deadline {
                Deadline::Heartbeat => "heartbeat failure",
                Deadline::Registration => "heartbeat failure for node in \"unknown\" state",
                Deadline::Orphan => {
                    tracing::warn!(node.id = %node, "gave up the tasks of a node that is down");
                    let _ = updates.send(Update::Orphan { node });
                    continue;
                }
            };
            tracing::info!(node.id = %node, "node is down: {message}");
            sessions.expect_orphans(&node);
            let _ = updates.send(Update::NodeState {
                node,
                state: State::Down,
                message,
            });
        }
    }
}
