//! Raft messages between managers.
//!
//! One task for each other member. It first offers skep's own stream, which stays open and carries
//! messages without waiting for the answer to the one before; a member that does not know it is a
//! dockerd, and gets one call for each message. Snapshots always go by a call of their own, beside
//! the rest: heartbeats must not wait behind them.

mod peer;
mod send;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use skep_proto::{RaftMember, raftpb};
use skep_raft::{RaftNode, SKEP_TICK, SWARMKIT_TICK, Transport};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::connect::Connector;
use peer::Peer;

/// Messages that wait for a member; with more, the oldest thing to do is to let raft probe.
const QUEUE: usize = 4096;

/// Which members answer, by raft id.
pub type Reachability = BTreeMap<u64, bool>;

/// The way to the other members. Cheap to clone. It is made before the `RaftNode` that uses it, and
/// [attached](Self::attach) to it afterwards.
#[derive(Clone)]
pub struct RaftTransport(Arc<Shared>);

struct Shared {
    connector: Connector,
    runtime: Handle,
    /// Given back when raft stops: it holds this transport in turn.
    raft: RwLock<Option<RaftNode>>,
    peers: Mutex<HashMap<u64, Link>>,
    reachable: watch::Sender<Arc<Reachability>>,
    /// Members that speak SwarmKit's raft only. While there is one, everyone keeps SwarmKit's pace:
    /// its leader sends a heartbeat a second.
    swarmkit: Mutex<BTreeSet<u64>>,
    removed: CancellationToken,
    stop: CancellationToken,
}

/// One other member.
struct Link {
    addr: String,
    queue: mpsc::Sender<raftpb::Message>,
    /// For calls that are passed on to the leader: apart from raft's messages, which would otherwise
    /// wait behind large answers.
    channel: Channel,
    /// Ends the task at once; it drains its queue otherwise.
    stop: CancellationToken,
}

impl RaftTransport {
    /// Must be called within a tokio runtime.
    pub fn new(connector: Connector) -> Self {
        Self(Arc::new(Shared {
            connector,
            runtime: Handle::current(),
            raft: RwLock::new(None),
            peers: Mutex::default(),
            reachable: watch::Sender::default(),
            swarmkit: Mutex::default(),
            removed: CancellationToken::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Follows the members of `raft` and tells it of failures, until it stops.
    pub fn attach(&self, raft: &RaftNode) {
        *self.0.raft.write() = Some(raft.clone());
        self.follow_members(&raft.members().borrow(), raft.id());
        let (transport, raft) = (self.clone(), raft.clone());
        self.0
            .runtime
            .spawn(async move { transport.follow(raft).await });
    }

    /// Whether the last that was heard of a member is that it answers.
    pub fn is_active(&self, raft_id: u64) -> bool {
        self.0
            .reachable
            .borrow()
            .get(&raft_id)
            .copied()
            .unwrap_or(false)
    }

    pub fn reachability(&self) -> watch::Receiver<Arc<Reachability>> {
        self.0.reachable.subscribe()
    }

    /// Cancelled when another member says that this one was removed from the cluster. It may never
    /// hear of it through the log: the others no longer send to it.
    pub fn removed(&self) -> &CancellationToken {
        &self.0.removed
    }

    /// For calls to a member; `None` if it is not known.
    pub fn channel(&self, raft_id: u64) -> Option<Channel> {
        let peers = self.0.peers.lock();
        peers.get(&raft_id).map(|link| link.channel.clone())
    }

    /// Ends all connections.
    pub fn stop(&self) {
        self.0.stop.cancel();
        self.0.peers.lock().clear();
        *self.0.raft.write() = None;
    }

    async fn follow(&self, raft: RaftNode) {
        let (mut members, mut leadership) = (raft.members(), raft.leadership());
        let id = raft.id();
        // This task must not be what keeps raft alive.
        drop(raft);
        loop {
            {
                let members = members.borrow_and_update().clone();
                self.follow_members(&members, id);
            }
            if leadership.borrow_and_update().stopped {
                break;
            }
            tokio::select! {
                () = self.0.stop.cancelled() => break,
                changed = members.changed() => if changed.is_err() { break },
                changed = leadership.changed() => if changed.is_err() { break },
            }
        }
        // A member that was removed may still have to tell the others that it has heard of it: the
        // tasks drain their queues.
        self.0.peers.lock().clear();
        *self.0.raft.write() = None;
    }

    fn follow_members(&self, members: &skep_raft::Members, this: u64) {
        let mut peers = self.0.peers.lock();
        peers.retain(|id, _| members.get(*id).is_some());
        for member in members.iter().filter(|member| member.raft_id != this) {
            match peers.get(&member.raft_id) {
                Some(link) if link.addr == member.addr => {}
                known => {
                    if let Some(old) = known {
                        old.stop.cancel();
                    }
                    if let Some(link) = self.link(member) {
                        peers.insert(member.raft_id, link);
                    }
                }
            }
        }
        self.set_pace(|swarmkit| swarmkit.retain(|id| peers.contains_key(id)));
        self.0.reachable.send_if_modified(|known| {
            let gone = known.keys().any(|id| !peers.contains_key(id));
            if gone {
                Arc::make_mut(known).retain(|id, _| peers.contains_key(id));
            }
            gone
        });
    }

    fn link(&self, member: &RaftMember) -> Option<Link> {
        let channel = match self.0.connector.lazy(&member.addr) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::error!(raft.id = member.raft_id, %error, "a manager cannot be reached");
                return None;
            }
        };
        let (queue, messages) = mpsc::channel(QUEUE);
        let stop = self.0.stop.child_token();
        let peer = Peer::new(member.raft_id, member.addr.clone(), self.clone(), messages);
        let stopped = stop.clone();
        self.0.runtime.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = peer.run() => {}
            }
        });
        Some(Link {
            addr: member.addr.clone(),
            queue,
            channel,
            stop,
        })
    }

    fn connector(&self) -> &Connector {
        &self.0.connector
    }

    fn raft(&self) -> Option<RaftNode> {
        self.0.raft.read().clone()
    }

    fn set_reachable(&self, raft_id: u64, reachable: bool) {
        self.0.reachable.send_if_modified(|known| {
            let changed = known.get(&raft_id) != Some(&reachable);
            if changed {
                tracing::debug!(
                    raft.id = raft_id,
                    reachable,
                    "a manager's reachability changed"
                );
                Arc::make_mut(known).insert(raft_id, reachable);
            }
            changed
        });
    }

    /// A member told what it speaks; it may have been replaced by another program since.
    fn set_dialect(&self, raft_id: u64, swarmkit: bool) {
        self.set_pace(|members| {
            if swarmkit {
                members.insert(raft_id);
            } else {
                members.remove(&raft_id);
            }
        });
    }

    fn set_pace(&self, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let mut swarmkit = self.0.swarmkit.lock();
        let before = swarmkit.is_empty();
        change(&mut swarmkit);
        let alone = swarmkit.is_empty();
        if before != alone
            && let Some(raft) = self.raft()
        {
            raft.set_pace(if alone { SKEP_TICK } else { SWARMKIT_TICK });
        }
    }

    fn report_unreachable(&self, raft_id: u64) {
        self.set_reachable(raft_id, false);
        if let Some(raft) = self.raft() {
            raft.report_unreachable(raft_id);
        }
    }

    fn report_snapshot(&self, raft_id: u64, arrived: bool) {
        if let Some(raft) = self.raft() {
            raft.report_snapshot(raft_id, arrived);
        }
    }

    /// What a member that was given up in the meantime was to be sent.
    fn undelivered(&self, message: &raftpb::Message) {
        if message.r#type() == raftpb::MessageType::MsgSnap {
            self.report_snapshot(message.to, false);
        }
        self.report_unreachable(message.to);
    }
}

impl Transport for RaftTransport {
    fn send(&self, message: raftpb::Message) {
        let queue = {
            let peers = self.0.peers.lock();
            peers.get(&message.to).map(|link| link.queue.clone())
        };
        let lost = match queue {
            None => message,
            Some(queue) => match queue.try_send(message) {
                Ok(()) => return,
                Err(error) => error.into_inner(),
            },
        };
        tracing::debug!(raft.to = lost.to, "dropped a raft message");
        self.undelivered(&lost);
    }
}

impl std::fmt::Debug for RaftTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftTransport")
            .field("reachable", &**self.0.reachable.borrow())
            .finish_non_exhaustive()
    }
}
