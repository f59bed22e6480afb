//! Joins the store to raft: transactions become log entries, committed entries become state.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use prost::Message as _;
use skep_model::Version;
use skep_model::proto::{InternalRaftRequest, StoreAction, StoreSnapshot};
use skep_raft::{BoxError, RaftNode, Reign, StateMachine};
use skep_store::{Epoch, ProposeError, ProposeFuture, Proposer, Store};

/// Larger than any transaction the store lets through, by the few bytes that wrap it.
pub const MAX_PROPOSAL_BYTES: usize = skep_store::MAX_TRANSACTION_BYTES + 4096;

/// The store as raft's state machine.
pub struct StoreMachine(pub Store);

impl StateMachine for StoreMachine {
    fn apply(&self, index: u64, data: &[u8]) -> Result<(), BoxError> {
        let request = InternalRaftRequest::decode(data)?;
        Ok(self.0.apply(&request.action, index)?)
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(self.0.save().encode_to_vec())
    }

    fn restore(&self, index: u64, data: &[u8]) -> Result<(), BoxError> {
        Ok(self.0.restore(StoreSnapshot::decode(data)?, index)?)
    }
}

/// Raft as the store's proposer.
pub struct RaftProposer {
    node: RaftNode,
    /// Makes the ids of requests.
    proposed: AtomicU64,
}

impl RaftProposer {
    pub fn new(node: RaftNode) -> Self {
        Self {
            node,
            proposed: AtomicU64::new(0),
        }
    }

    /// An id that managers of SwarmKit do not wait for: they take an applied request with the id of
    /// one of their own for that one. So it must look drawn, but need not be.
    fn next_id(&self, reign: Reign) -> u64 {
        let count = self.proposed.fetch_add(1, Ordering::Relaxed);
        let mut id = self.node.id() ^ reign.term.rotate_left(32);
        for salt in [count, 0x9e37_79b9_7f4a_7c15] {
            id = (id ^ salt).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            id ^= id >> 29;
        }
        // One length on the wire for all, so that a simulated run does not depend on it.
        id | 1 << 63
    }
}

/// How many bits of an epoch count refusals; terms are above them. Both only grow.
const FAILURE_BITS: u32 = 24;

fn epoch(reign: Reign) -> Epoch {
    Epoch((reign.term << FAILURE_BITS).wrapping_add(reign.failures))
}

impl Proposer for RaftProposer {
    fn epoch(&self) -> Option<Epoch> {
        self.node.reign().map(epoch)
    }

    fn propose(&self, expected: Epoch, action: Vec<StoreAction>) -> ProposeFuture {
        // The reign that is refused or accepted is the one the transaction was built in; raft itself
        // looks again when it takes the proposal from its queue.
        let Some(reign) = self.node.reign().filter(|&reign| epoch(reign) == expected) else {
            return futures::future::ready(Err(ProposeError::NotLeader)).boxed();
        };
        let data = InternalRaftRequest {
            id: self.next_id(reign),
            action,
        }
        .encode_to_vec();
        let size = data.len();
        // Called under the store's lock: that makes the log's order the order of validation.
        self.node
            .propose(reign, data)
            .map(move |result| result.map(Version).map_err(|error| translate(error, size)))
            .boxed()
    }
}

fn translate(error: skep_raft::ProposeError, size: usize) -> ProposeError {
    match error {
        skep_raft::ProposeError::NotLeader => ProposeError::NotLeader,
        skep_raft::ProposeError::TooLarge => ProposeError::TooLarge { size },
        skep_raft::ProposeError::LostLeadership => ProposeError::LeadershipLost,
        // With what the disk said: the user is told, and nobody above can look deeper.
        skep_raft::ProposeError::Failed(error) => ProposeError::Log(crate::error::chain(&*error)),
        other => ProposeError::Log(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use skep_ca::SecretKey;
    use skep_model::proto::{Node, NodeDescription, RaftMember, raftpb};
    use skep_raft::{IfNew, Leadership, RaftConfig, Transport};

    use super::*;

    struct NobodyElse;

    impl Transport for NobodyElse {
        fn send(&self, _message: raftpb::Message) {}
    }

    async fn start(directory: &Path, dek: &SecretKey, if_new: IfNew) -> (Store, RaftNode) {
        let store = Store::new();
        let mut config = RaftConfig::new(directory, dek.clone(), if_new);
        config.max_proposal_bytes = MAX_PROPOSAL_BYTES;
        let machine = Arc::new(StoreMachine(store.clone()));
        let raft = RaftNode::start(config, machine, Arc::new(NobodyElse)).unwrap();
        raft.leadership()
            .wait_for(Leadership::is_leader)
            .await
            .unwrap();
        store.attach(Arc::new(RaftProposer::new(raft.clone())));
        (store, raft)
    }

    fn founder() -> IfNew {
        IfNew::Bootstrap(RaftMember {
            raft_id: 1,
            node_id: "n".into(),
            ..Default::default()
        })
    }

    fn node(id: usize) -> Node {
        let hostname = format!("host{id}");
        let description = Some(NodeDescription {
            hostname,
            ..Default::default()
        });
        Node {
            id: format!("n{id}"),
            description,
            ..Default::default()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_transactions_all_commit_and_are_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let dek = SecretKey::generate();
        let (store, raft) = start(directory.path(), &dek, founder()).await;
        let writers = (0..300).map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.update(|tx| tx.create(node(i))).await })
        });
        for written in futures::future::join_all(writers).await {
            written.unwrap().unwrap();
        }
        // All change one object, each on top of the one before.
        let writers = (0..100).map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                let raise = |node: &mut Node| node.vxlan_udp_port += i;
                store.update(|tx| tx.modify::<Node>("n0", raise)).await
            })
        });
        for written in futures::future::join_all(writers).await {
            written.unwrap().unwrap();
        }
        let before = store.save();
        assert_eq!(before.nodes.len(), 300);
        assert_eq!(before.nodes[0].vxlan_udp_port, (0..100).sum::<u32>());
        raft.stop().await;
        store.close();

        let (store, raft) = start(directory.path(), &dek, IfNew::Refuse).await;
        assert_eq!(store.save(), before);
        // Stamps go on growing after the restart, so that no version comes twice.
        let newest = store.snapshot().version();
        let changed = store
            .update(|tx| tx.modify::<Node>("n1", |_| ()))
            .await
            .unwrap();
        assert!(changed.meta.as_ref().unwrap().version.unwrap().index > newest);
        raft.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stopped_log_refuses_and_the_refused_change_is_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let (store, raft) = start(directory.path(), &SecretKey::generate(), founder()).await;
        raft.stop().await;
        let refused = store.update(|tx| tx.create(node(1))).await;
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(store.snapshot().count::<Node>(), 0);
    }
}
