//! Joins the store to raft: transactions become log entries, committed entries become state.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::task::noop_waker_ref;
use prost::Message as _;
use skep_model::Version;
use skep_model::proto::{InternalRaftRequest, StoreAction, StoreSnapshot, raftpb};
use skep_raft::{BoxError, Leadership, RaftNode, StateMachine, Transport};
use skep_store::{Epoch, ProposeError, ProposeFuture, Proposer, Store};
use tokio::sync::watch;

/// Larger than any transaction the store lets through, by the few bytes that wrap it.
pub(crate) const MAX_PROPOSAL_BYTES: usize = skep_store::MAX_TRANSACTION_BYTES + 4096;

/// The store as raft's state machine.
pub(crate) struct StoreMachine(pub(crate) Store);

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

/// For a manager that is alone: raft never has anything to send.
pub(crate) struct NobodyElse;

impl Transport for NobodyElse {
    fn send(&self, message: raftpb::Message) {
        tracing::debug!(
            raft.to = message.to,
            "dropped a raft message: there is no transport yet"
        );
    }
}

/// Raft as the store's proposer.
pub(crate) struct RaftProposer {
    node: RaftNode,
    leadership: watch::Receiver<Leadership>,
    /// Proposals refused so far. Part of the epoch: what was validated after a refused proposal
    /// counted on it.
    refused: Arc<AtomicU64>,
}

impl RaftProposer {
    pub(crate) fn new(node: RaftNode) -> Self {
        let leadership = node.leadership();
        Self {
            node,
            leadership,
            refused: Arc::default(),
        }
    }

    fn refuse(&self, error: ProposeError) -> ProposeFuture {
        self.refused.fetch_add(1, Ordering::SeqCst);
        futures::future::ready(Err(error)).boxed()
    }
}

impl Proposer for RaftProposer {
    fn epoch(&self) -> Option<Epoch> {
        let leadership = self.leadership.borrow();
        let refused = self.refused.load(Ordering::SeqCst);
        // Terms and refusals both only grow, so that no two epochs have the same number.
        (leadership.is_leader() && !leadership.stopped)
            .then(|| Epoch((leadership.term << 24).wrapping_add(refused)))
    }

    fn propose(&self, epoch: Epoch, action: Vec<StoreAction>) -> ProposeFuture {
        if self.epoch() != Some(epoch) {
            return self.refuse(ProposeError::NotLeader);
        }
        let data = InternalRaftRequest {
            id: rand::random(),
            action,
        }
        .encode_to_vec();
        if data.len() > MAX_PROPOSAL_BYTES {
            return self.refuse(ProposeError::TooLarge { size: data.len() });
        }
        let node = self.node.clone();
        let refused = Arc::clone(&self.refused);
        let mut proposal = async move {
            let result = node.propose(data).await.map(Version).map_err(translate);
            if result.is_err() {
                refused.fetch_add(1, Ordering::SeqCst);
            }
            result
        }
        .boxed();
        // The first poll puts the proposal into raft's queue. It has to happen now, under the store's
        // lock: that is what makes the log's order the order of validation.
        match poll_once(proposal.as_mut()) {
            Poll::Ready(result) => futures::future::ready(result).boxed(),
            Poll::Pending => proposal,
        }
    }
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(noop_waker_ref()))
}

fn translate(error: skep_raft::ProposeError) -> ProposeError {
    match error {
        skep_raft::ProposeError::LostLeadership => ProposeError::LeadershipLost,
        // With what the disk said: the user is told, and nobody above can look deeper.
        skep_raft::ProposeError::Failed(error) => ProposeError::Log(crate::error::chain(&*error)),
        other => ProposeError::Log(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use skep_ca::SecretKey;
    use skep_model::proto::{Node, NodeDescription, RaftMember};
    use skep_raft::{IfNew, RaftConfig};

    use super::*;

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
