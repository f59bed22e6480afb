use futures::future::BoxFuture;
use skep_model::Version;
use skep_model::proto::StoreAction;

use crate::ProposeError;

/// One unbroken run of being leader. What was validated in one epoch must not be appended in another:
/// another leader may have written in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Resolves when the transaction is committed *and applied to the store here*, to the index of its
/// log entry.
pub type ProposeFuture = BoxFuture<'static, Result<Version, ProposeError>>;

/// Consensus, as the store needs it. The raft node implements it; tests have one in memory.
pub trait Proposer: Send + Sync + 'static {
    /// The epoch, if this manager leads *and has applied all that earlier leaders committed*.
    fn epoch(&self) -> Option<Epoch>;

    /// Hands over one transaction, at once: transactions enter the log in the order of these calls,
    /// whenever their futures are polled. Must not block, nor call the store.
    ///
    /// Refuses if `epoch` is no longer the current one *at the moment of appending*. When one
    /// transaction of an epoch fails, all later ones of that epoch must fail too: they were
    /// validated as if it had succeeded.
    fn propose(&self, epoch: Epoch, actions: Vec<StoreAction>) -> ProposeFuture;
}

#[cfg(any(test, feature = "test-support"))]
pub use memory::MemoryProposer;

#[cfg(any(test, feature = "test-support"))]
mod memory {
    use std::collections::VecDeque;
    use std::sync::{Arc, Weak};

    use futures::FutureExt as _;
    use parking_lot::Mutex;
    use skep_model::Version;
    use skep_model::proto::StoreAction;
    use tokio::sync::oneshot;

    use super::{Epoch, ProposeFuture, Proposer};
    use crate::store::{Inner, Store};
    use crate::{ApplyError, ProposeError};

    /// A log of one member in memory. It commits at once, or, when held, when the test says so.
    #[derive(Clone)]
    pub struct MemoryProposer(Arc<Mutex<Log>>);

    struct Log {
        store: Weak<Inner>,
        epoch: Option<Epoch>,
        last_epoch: u64,
        index: u64,
        held: bool,
        waiting: VecDeque<Waiting>,
        committed: Vec<Vec<StoreAction>>,
    }

    struct Waiting {
        actions: Vec<StoreAction>,
        done: oneshot::Sender<Result<Version, ProposeError>>,
    }

    impl MemoryProposer {
        /// A store that commits in memory, at once.
        pub fn store() -> Store {
            Self::with_store().0
        }

        pub fn with_store() -> (Store, Self) {
            let store = Store::new();
            let proposer = Self(Arc::new(Mutex::new(Log {
                store: store.downgrade(),
                epoch: Some(Epoch(1)),
                last_epoch: 1,
                index: 0,
                held: false,
                waiting: VecDeque::new(),
                committed: Vec::new(),
            })));
            store.attach(Arc::new(proposer.clone()));
            (store, proposer)
        }

        /// From now on proposals wait, as they do for a slow disk.
        pub fn hold(&self) {
            self.0.lock().held = true;
        }

        /// How many proposals wait.
        pub fn waiting(&self) -> usize {
            self.0.lock().waiting.len()
        }

        /// Commits the oldest waiting proposal.
        pub fn commit_one(&self) {
            let waiting = self.0.lock().waiting.pop_front();
            if let Some(Waiting { actions, done }) = waiting {
                let result = self.commit(actions);
                // The store may have given up on it; the commit stands all the same.
                let _ = done.send(result);
            }
        }

        /// Stops holding and commits all that waits.
        pub fn release(&self) {
            self.0.lock().held = false;
            while self.waiting() > 0 {
                self.commit_one();
            }
        }

        /// Fails all that waits, as losing the leadership does; [`Self::lead`] regains it.
        pub fn lose_leadership(&self) {
            let waiting = {
                let mut log = self.0.lock();
                log.epoch = None;
                std::mem::take(&mut log.waiting)
            };
            for Waiting { done, .. } in waiting {
                let _ = done.send(Err(ProposeError::LeadershipLost));
            }
        }

        pub fn lead(&self) {
            let mut log = self.0.lock();
            log.last_epoch += 1;
            log.epoch = Some(Epoch(log.last_epoch));
        }

        /// Every committed transaction, oldest first.
        pub fn committed(&self) -> Vec<Vec<StoreAction>> {
            self.0.lock().committed.clone()
        }

        fn commit(&self, actions: Vec<StoreAction>) -> Result<Version, ProposeError> {
            // Held while applying: entries are applied in the order of their indices.
            let mut log = self.0.lock();
            let store = log.store.upgrade().map(Store::from_inner);
            let store = store.ok_or_else(|| ProposeError::Log("the store is gone".to_owned()))?;
            log.index += 1;
            let index = log.index;
            store
                .apply(&actions, index)
                .map_err(|error: ApplyError| ProposeError::Log(error.to_string()))?;
            log.committed.push(actions);
            Ok(Version(index))
        }
    }

    impl Proposer for MemoryProposer {
        fn epoch(&self) -> Option<Epoch> {
            self.0.lock().epoch
        }

        fn propose(&self, epoch: Epoch, actions: Vec<StoreAction>) -> ProposeFuture {
            let (done, result) = oneshot::channel();
            {
                let mut log = self.0.lock();
                if log.epoch != Some(epoch) {
                    return futures::future::ready(Err(ProposeError::NotLeader)).boxed();
                }
                log.waiting.push_back(Waiting { actions, done });
            }
            let this = self.clone();
            async move {
                if !this.0.lock().held {
                    // Oldest first, even if this future happens to be polled before its elders.
                    while this.waiting() > 0 {
                        this.commit_one();
                    }
                }
                result.await.unwrap_or(Err(ProposeError::LeadershipLost))
            }
            .boxed()
        }
    }
}
