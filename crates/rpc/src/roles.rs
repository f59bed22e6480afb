//! Makes the raft group follow the roles that users give to nodes: SwarmKit's role manager.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use skep_model::ObjectKind;
use skep_proto as proto;
use skep_store::{Snapshot, Store, StoreError, UpdateError, WatchError, WatchFilter};
use tokio_util::sync::CancellationToken;

use crate::member::RaftMember;
use plan::{Action, plan};

/// What could not be done (the quorum would be lost) is tried again after so long.
const RETRY: Duration = Duration::from_secs(1);

/// Promotes and demotes nodes, and removes the members whose nodes are gone. To be run while this
/// manager leads.
pub struct RoleKeeper {
    store: Store,
    member: Arc<RaftMember>,
}

impl RoleKeeper {
    pub fn new(store: Store, member: Arc<RaftMember>) -> Self {
        Self { store, member }
    }

    pub async fn run(&self, stopped: CancellationToken) {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let kinds = WatchFilter::kinds([ObjectKind::Node]);
        let (mut snapshot, mut watch) = self.store.snapshot_and_watch(kinds);
        let mut members = self.member.raft().members();
        loop {
            let actions = self.plan(&snapshot, &members.borrow_and_update());
            let is_pending = !actions.is_empty();
            for action in actions {
                self.perform(action).await;
            }
            tokio::select! {
                event = watch.next() => if matches!(event, Err(WatchError::Closed)) { return },
                changed = members.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if is_pending => {}
            }
            while let Some(Ok(_)) = watch.try_next() {}
            snapshot = self.store.snapshot();
        }
    }

    fn plan(&self, snapshot: &Snapshot, members: &skep_raft::Members) -> Vec<Action> {
        plan(
            snapshot.nodes().map(|node| &**node),
            members,
            self.member.raft().id(),
        )
    }

    async fn perform(&self, action: Action) {
        match action {
            Action::SetRole { node, role } => self.set_role(&node, role).await,
            Action::HandOver { raft_id } => {
                tracing::info!("this manager is demoted: handing the leadership over");
                if !self.member.hand_over().await {
                    tracing::warn!("nobody took the leadership; leaving as the leader");
                    self.remove(raft_id).await;
                }
            }
            Action::Remove { raft_id } => self.remove(raft_id).await,
        }
    }

    async fn remove(&self, raft_id: u64) {
        if let Err(status) = self.member.leave(raft_id).await {
            let reason = status.message();
            tracing::debug!(
                raft.id = raft_id,
                reason,
                "cannot remove a manager at this time"
            );
        }
    }

    async fn set_role(&self, node: &str, role: proto::NodeRole) {
        let written = self.store.update(|tx| {
            tx.modify::<proto::Node>(node, |node| {
                // The user may have thought better of it.
                let desired = node.spec.as_ref().map(proto::NodeSpec::desired_role);
                if desired == Some(role) {
                    node.role = role.into();
                }
            })
        });
        match written.await {
            Ok(_) => tracing::info!(node.id = node, ?role, "changed a node's role"),
            Err(UpdateError::Rejected(StoreError::NotExist)) => {}
            Err(error) => tracing::debug!(node.id = node, %error, "cannot change a node's role"),
        }
    }
}
