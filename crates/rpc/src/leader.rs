//! Where the leader is, for calls that only it answers.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skep_raft::{Leadership, RaftNode};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use crate::transport::RaftTransport;

/// SwarmKit's text, which users see when the quorum is lost.
pub const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers \
                             are online. Make sure more than half of the managers are online.";
/// SwarmKit's ten ticks of a second: after so long without a leader nobody waits for one any more.
const LOST_QUORUM: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub enum Leader {
    /// This manager leads.
    Here,
    There {
        raft_id: u64,
        channel: Channel,
    },
}

#[async_trait::async_trait]
pub trait LeaderRoute: Send + Sync + 'static {
    /// The leader at this moment, if there is one.
    fn now(&self) -> Option<Leader>;

    /// Waits for a leader while an election may be under way.
    async fn wait(&self) -> Result<Leader, Status>;
}

/// The leader as raft knows it.
pub struct RaftLeader {
    raft_id: u64,
    leadership: watch::Receiver<Leadership>,
    transport: RaftTransport,
    leaderless_since: Arc<Mutex<Option<Instant>>>,
    _follow: tokio_util::sync::DropGuard,
}

impl RaftLeader {
    pub fn new(raft: &RaftNode, transport: RaftTransport) -> Self {
        let leaderless_since = Arc::new(Mutex::new(Some(Instant::now())));
        let stop = CancellationToken::new();
        tokio::spawn(follow(
            raft.leadership(),
            Arc::clone(&leaderless_since),
            stop.clone(),
        ));
        Self {
            raft_id: raft.id(),
            leadership: raft.leadership(),
            transport,
            leaderless_since,
            _follow: stop.drop_guard(),
        }
    }

    fn locate(&self, leadership: &Leadership) -> Option<Leader> {
        if leadership.stopped {
            return None;
        }
        match leadership.leader? {
            id if id == self.raft_id => leadership.is_leader().then_some(Leader::Here),
            raft_id => {
                let channel = self.transport.channel(raft_id)?;
                Some(Leader::There { raft_id, channel })
            }
        }
    }
}

/// Notes since when there is no leader.
async fn follow(
    mut leadership: watch::Receiver<Leadership>,
    since: Arc<Mutex<Option<Instant>>>,
    stop: CancellationToken,
) {
    loop {
        let known = leadership.borrow_and_update().leader.is_some();
        {
            let mut since = since.lock();
            *since = match (known, *since) {
                (true, _) => None,
                (false, None) => Some(Instant::now()),
                (false, since) => since,
            };
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

#[async_trait::async_trait]
impl LeaderRoute for RaftLeader {
    fn now(&self) -> Option<Leader> {
        self.locate(&self.leadership.borrow())
    }

    async fn wait(&self) -> Result<Leader, Status> {
        if let Some(leader) = self.now() {
            return Ok(leader);
        }
        let lost = || Status::unknown(NO_LEADER);
        let since = self.leaderless_since.lock().unwrap_or_else(Instant::now);
        let mut leadership = self.leadership.clone();
        let found = async {
            loop {
                let leader = self.locate(&leadership.borrow_and_update());
                if leader.is_some() {
                    return leader;
                }
                // A leader whose address is not known yet shows up by itself shortly.
                tokio::select! {
                    changed = leadership.changed() => if changed.is_err() { return None },
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
            }
        };
        tokio::time::timeout_at(since + LOST_QUORUM, found)
            .await
            .ok()
            .flatten()
            .ok_or_else(lost)
    }
}
