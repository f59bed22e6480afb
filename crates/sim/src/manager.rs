//! One simulated manager: a machine with a disk, and the process on it, which is the production code.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use skep_ca::SecretKey;
use skep_model::Timestamp;
use skep_proto::{RaftMember, raftpb};
use skep_raft::{
    BoxError, Driver, IfNew, RaftConfig, RaftError, RaftNode, StateMachine, Ticks, Transport,
};
use skep_store::{Proposer, Store};
use skep_swarm::{MAX_PROPOSAL_BYTES, RaftProposer, StoreMachine};

use crate::disk::{Ending, SimDisk};
use crate::ledger::{Invariant, Ledger};
use crate::network::Time;
use crate::options::{Mutation, Options};
use crate::watcher::Watcher;

pub(crate) struct Manager {
    pub(crate) id: u64,
    pub(crate) disk: SimDisk,
    pub(crate) process: Option<Process>,
    /// Counts processes, so that what was meant for an earlier one does not reach a later one.
    pub(crate) boot: u64,
    /// How its log begins. `None` once it exists.
    pub(crate) if_new: Option<IfNew>,
    /// Told that it was removed: it never starts again.
    pub(crate) left: bool,
    /// The disk or the processor is at work until then.
    pub(crate) busy_until: Time,
    pub(crate) tick: Time,
    /// By how much its wall clock is wrong, in nanoseconds.
    pub(crate) clock_error: Arc<AtomicI64>,
    keys: Arc<Mutex<Keys>>,
}

/// The data encryption keys, as the node's key file keeps them.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) current: SecretKey,
    pub(crate) pending: Option<SecretKey>,
}

pub(crate) struct Process {
    pub(crate) node: RaftNode,
    pub(crate) driver: Driver,
    pub(crate) store: Store,
    pub(crate) watcher: Watcher,
    /// The term it last led in, as far as it knew.
    pub(crate) led: u64,
}

/// What managers have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) ledger: Ledger,
    pub(crate) outbox: Arc<Mutex<Vec<raftpb::Message>>>,
    pub(crate) clock: Arc<AtomicU64>,
}

pub(crate) fn raft_member(id: u64) -> RaftMember {
    RaftMember {
        raft_id: id,
        node_id: format!("manager{id}"),
        addr: format!("10.0.0.{id}:2377"),
        status: None,
    }
}

impl Manager {
    pub(crate) fn new(id: u64, if_new: IfNew, options: &Options) -> Self {
        let disk = if options.mutation == Some(Mutation::SyncDoesNothing) {
            SimDisk::lying()
        } else {
            SimDisk::default()
        };
        let current = SecretKey::from_slice(&[id as u8; SecretKey::LENGTH])
            .expect("a key of the right length");
        Self {
            id,
            disk,
            process: None,
            boot: 0,
            if_new: Some(if_new),
            left: false,
            busy_until: 0,
            tick: crate::network::MILLIS * 80,
            clock_error: Arc::default(),
            keys: Arc::new(Mutex::new(Keys {
                current,
                pending: None,
            })),
        }
    }

    pub(crate) fn keys(&self) -> Arc<Mutex<Keys>> {
        Arc::clone(&self.keys)
    }

    /// Starts the process on what its disk holds.
    pub(crate) fn start(&mut self, shared: &Shared) -> Result<(), RaftError> {
        self.boot += 1;
        let keys = self.keys.lock().clone();
        let if_new = self.if_new.clone().unwrap_or(IfNew::Refuse);
        let (error, clock) = (Arc::clone(&self.clock_error), Arc::clone(&shared.clock));
        let store = Store::with_clock(move || {
            let micros = i128::from(clock.load(Ordering::Relaxed));
            Timestamp::from_nanos(EPOCH + micros * 1000 + i128::from(error.load(Ordering::Relaxed)))
        });
        let config = RaftConfig {
            former_deks: keys.pending.into_iter().collect(),
            disk: Arc::new(self.disk.clone()),
            ticks: Ticks::Manual,
            snapshot_interval: shared.options.snapshot_interval,
            keep_entries: shared.options.keep_entries,
            max_proposal_bytes: MAX_PROPOSAL_BYTES,
            seed: shared.options.seed,
            ..RaftConfig::new(Path::new("/raft"), keys.current, if_new)
        };
        let machine = Witness {
            member: self.id,
            machine: StoreMachine(store.clone()),
            ledger: shared.ledger.clone(),
        };
        let transport = Outbox(Arc::clone(&shared.outbox));
        let (node, driver) = RaftNode::prepare(config, Arc::new(machine), Arc::new(transport))?;
        self.if_new = None;
        store.attach(shared.options.proposer(&node));
        let mut watcher = Watcher::new(self.id, &store, shared.ledger.clone());
        if shared.options.mutation == Some(Mutation::WatcherMissesEvents) {
            watcher = watcher.forgetful();
        }
        self.process = Some(Process {
            node,
            driver,
            store,
            watcher,
            led: 0,
        });
        Ok(())
    }

    /// The process is gone from one moment to the next; with a power cut the disk loses what it may.
    pub(crate) fn crash(&mut self, ending: Ending, rng: &mut StdRng) {
        if let Some(process) = self.process.take() {
            process.store.close();
        }
        self.disk.restart(ending, rng);
    }
}

impl Process {
    /// Whether it believes that it leads, and in which term.
    pub(crate) fn reigns(&self) -> Option<u64> {
        self.node.reign().map(|reign| reign.term)
    }
}

/// Some day in 2026.
const EPOCH: i128 = 1_780_000_000_000_000_000;

/// The store as raft's state machine, with somebody looking on.
struct Witness {
    member: u64,
    machine: StoreMachine,
    ledger: Ledger,
}

impl StateMachine for Witness {
    fn apply(&self, index: u64, data: &[u8]) -> Result<(), BoxError> {
        let before = self.machine.0.snapshot().version();
        self.ledger.applies(self.member, index, data);
        self.machine.apply(index, data)?;
        if index <= before {
            let what = format!("member {} applies {index} after {before}", self.member);
            self.ledger.violate(Invariant::VersionNeverGoesBack, what);
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        self.machine.snapshot()
    }

    fn restore(&self, index: u64, data: &[u8]) -> Result<(), BoxError> {
        let before = self.machine.0.snapshot().version();
        if index < before {
            let what = format!("member {} restores {index} after {before}", self.member);
            self.ledger.violate(Invariant::VersionNeverGoesBack, what);
        }
        self.machine.restore(index, data)
    }
}

struct Outbox(Arc<Mutex<Vec<raftpb::Message>>>);

impl Transport for Outbox {
    fn send(&self, message: raftpb::Message) {
        self.0.lock().push(message);
    }
}

impl Options {
    fn proposer(&self, node: &RaftNode) -> Arc<dyn Proposer> {
        let proposer = RaftProposer::new(node.clone());
        match self.mutation {
            Some(Mutation::AcknowledgedBeforeCommitted) => {
                Arc::new(crate::mutation::Hasty(proposer))
            }
            Some(Mutation::ReignIsIgnored) => {
                Arc::new(crate::mutation::Careless::new(proposer, node.clone()))
            }
            _ => Arc::new(proposer),
        }
    }
}
