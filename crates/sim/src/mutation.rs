//! Proposers with a fault each, to see that the checks notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use skep_model::Version;
use skep_proto::StoreAction;
use skep_raft::RaftNode;
use skep_store::{Epoch, ProposeError, ProposeFuture, Proposer};
use skep_swarm::RaftProposer;

/// Says yes before anything is committed.
pub(crate) struct Hasty(pub(crate) RaftProposer);

impl Proposer for Hasty {
    fn epoch(&self) -> Option<Epoch> {
        self.0.epoch()
    }

    fn propose(&self, epoch: Epoch, actions: Vec<StoreAction>) -> ProposeFuture {
        drop(self.0.propose(epoch, actions));
        Box::pin(async { Ok(Version(0)) })
    }
}

/// Some of its proposals are appended in a later reign than they were built in.
pub(crate) struct Careless {
    proposer: Arc<RaftProposer>,
    node: RaftNode,
    proposed: AtomicU64,
}

impl Careless {
    pub(crate) fn new(proposer: RaftProposer, node: RaftNode) -> Self {
        Self {
            proposer: Arc::new(proposer),
            node,
            proposed: AtomicU64::new(0),
        }
    }
}

impl Proposer for Careless {
    fn epoch(&self) -> Option<Epoch> {
        self.proposer.epoch()
    }

    fn propose(&self, epoch: Epoch, actions: Vec<StoreAction>) -> ProposeFuture {
        let count = self.proposed.fetch_add(1, Ordering::Relaxed);
        if !count.is_multiple_of(5) {
            return self.proposer.propose(epoch, actions);
        }
        let (proposer, mut leadership) = (Arc::clone(&self.proposer), self.node.leadership());
        let term = leadership.borrow().term;
        Box::pin(async move {
            let again = leadership.wait_for(|l| l.is_leader() && l.term > term);
            let again = again.await.map(drop);
            match (again, proposer.epoch()) {
                (Ok(()), Some(epoch)) => proposer.propose(epoch, actions).await,
                _ => Err(ProposeError::LeadershipLost),
            }
        })
    }
}
