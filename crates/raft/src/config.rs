//! How a node is started.

use crate::{Disk, RealDisk};
use skep_ca::SecretKey;
use skep_proto::RaftMember;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// What drives the node's logical clock.
#[derive(Debug, Clone, Copy)]
pub enum Ticks {
    /// Every so often, by the machine's monotonic clock.
    Every(Duration),
    /// Only when `RaftNode::tick` is called: tests decide what time it is.
    Manual,
}

/// What to do when `state_dir` holds no log yet.
#[derive(Debug, Clone)]
pub enum IfNew {
    /// Refuse: this member must exist already.
    Refuse,
    /// Found a cluster with this member as the only one.
    Bootstrap(RaftMember),
    /// Wait for the leader that has added this member; `members` are the others, for the transport.
    Join {
        raft_id: u64,
        members: Vec<RaftMember>,
    },
}

#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// Holds nothing but this node's log and snapshots; created when missing.
    pub state_dir: PathBuf,
    /// Where `state_dir` is.
    pub disk: Arc<dyn Disk>,
    /// Encrypts everything in `state_dir`.
    pub dek: SecretKey,
    /// Further keys that may have been used: the pending one, after a crash during its rotation.
    pub former_deks: Vec<SecretKey>,
    pub if_new: IfNew,
    /// Go on as the only member, whoever else there was: the quorum is lost for good. All that is in
    /// the log counts as committed.
    pub alone: bool,
    pub ticks: Ticks,
    /// An election timeout is this many ticks, or up to twice as many.
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// Entries between two snapshots.
    pub snapshot_interval: u64,
    /// Bytes of log between two snapshots: bounds the log on disk and in memory, however large the
    /// entries are.
    pub snapshot_bytes: u64,
    /// Entries kept behind a snapshot, so that a member that lags a little needs no snapshot.
    pub keep_entries: u64,
    /// A larger proposal is refused.
    pub max_proposal_bytes: usize,
    /// Spreads election timeouts. Members need not have different ones.
    pub seed: u64,
}

/// The pace of SwarmKit's managers: an election takes 10 to 20 s.
pub const SWARMKIT_TICK: Duration = Duration::from_secs(1);
/// The pace among skep managers: a heartbeat that often, and the next leader stands 0.8 to 1.6 s
/// after the last sign of life of the one before. A sync of the disk that takes longer than an
/// election would cost the leader its place, so not shorter.
pub const SKEP_TICK: Duration = Duration::from_millis(80);

impl RaftConfig {
    /// SwarmKit's settings, but for the pace.
    pub fn new(state_dir: impl Into<PathBuf>, dek: SecretKey, if_new: IfNew) -> Self {
        Self {
            state_dir: state_dir.into(),
            disk: Arc::new(RealDisk),
            dek,
            former_deks: Vec::new(),
            if_new,
            alone: false,
            ticks: Ticks::Every(SKEP_TICK),
            election_ticks: 10,
            heartbeat_ticks: 1,
            snapshot_interval: 10_000,
            snapshot_bytes: 8 << 20,
            keep_entries: 500,
            max_proposal_bytes: 3 << 19,
            seed: 0,
        }
    }
}
