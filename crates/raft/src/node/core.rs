//! Owns raft: takes commands, makes rounds durable, sends, applies. Knows no thread, clock or
//! randomness: the same commands over the same disk do the same.

use super::{Command, Leadership, Reign, Role, Shared};
use crate::members::{ClusterState, Members};
use crate::storage::LogStorage;
use crate::{ProposeError, RaftConfig, RaftError, StateMachine, Ticks, Transport, convert, logger};
use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};
use raft::{RawNode, SnapshotStatus, StateRole};
use skep_ca::SecretKey;
use skep_proto::{RaftMember, raftpb};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

pub(super) type Reply<T> = oneshot::Sender<Result<T, ProposeError>>;

/// Largest append message; a larger entry goes alone.
const MAX_MESSAGE_BYTES: u64 = 1 << 20;
const MAX_INFLIGHT: usize = 256;

pub(super) struct Core {
    raw: RawNode<LogStorage>,
    state_machine: Arc<dyn StateMachine>,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared>,
    /// The time between two ticks.
    pace: Duration,
    /// Election timeouts follow from it and the term.
    seed: u64,
    started: bool,
    /// Proposals by the index they got. Another term at that index: another leader overwrote them.
    waiting: BTreeMap<u64, Waiter>,
    members: Members,
    /// As of the last applied entry.
    conf_state: ConfState,
    applied: u64,
    applied_term: u64,
    removed: bool,
    snapshot_interval: u64,
    snapshot_bytes: u64,
    keep_entries: u64,
    /// Who asked for the stop hears of it when this is dropped: last, after the files are closed.
    stopped_by: Option<oneshot::Sender<()>>,
}

struct Waiter {
    term: u64,
    kind: EntryType,
    reply: Reply<u64>,
}

impl Core {
    pub(super) fn new(
        config: &RaftConfig,
        storage: LogStorage,
        state_machine: Arc<dyn StateMachine>,
        transport: Arc<dyn Transport>,
        shared: Arc<Shared>,
    ) -> Result<Self, RaftError> {
        let snapshot = storage.read_snapshot()?;
        let core = raft::Config {
            id: storage.raft_id(),
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: storage.snapshot_index(),
            check_quorum: true,
            pre_vote: false,
            max_size_per_msg: MAX_MESSAGE_BYTES,
            max_inflight_msgs: MAX_INFLIGHT,
            ..raft::Config::default()
        };
        let members = Members::clone(&shared.members.borrow());
        let pace = match config.ticks {
            Ticks::Every(pace) => pace,
            Ticks::Manual => Duration::ZERO,
        };
        let mut this = Self {
            raw: RawNode::new(&core, storage, &logger::logger())?,
            state_machine,
            transport,
            shared,
            pace,
            seed: config.seed,
            started: false,
            waiting: BTreeMap::new(),
            members,
            conf_state: ConfState::default(),
            applied: 0,
            applied_term: 0,
            removed: false,
            snapshot_interval: config.snapshot_interval,
            snapshot_bytes: config.snapshot_bytes,
            keep_entries: config.keep_entries,
            stopped_by: None,
        };
        if let Some(snapshot) = snapshot {
            this.restore(&snapshot)?;
        }
        Ok(this)
    }

    pub(super) fn pace(&self) -> Duration {
        self.pace
    }

    /// Carries out commands and all that follows from them. False: this member has stopped.
    pub(super) fn work(&mut self, commands: impl IntoIterator<Item = Command>) -> bool {
        match self.serve(commands) {
            Ok(ControlFlow::Continue(())) => return true,
            Ok(ControlFlow::Break(())) => {}
            Err(error) => self.fail(error),
        }
        self.halt();
        false
    }

    fn fail(&mut self, error: RaftError) {
        let error = Arc::new(error);
        let chain: &dyn std::error::Error = &*error;
        tracing::error!(
            raft.id = self.raw.raft.id,
            error = chain,
            "raft has stopped"
        );
        *self.shared.failure.lock() = Some(Arc::clone(&error));
        for (_, waiter) in std::mem::take(&mut self.waiting) {
            let failed = Err(ProposeError::Failed(Arc::clone(&error)));
            let _ = waiter.reply.send(failed);
        }
    }

    /// Tells everyone that this member does nothing any more.
    pub(super) fn halt(&mut self) {
        self.shared.leadership.send_modify(|leadership| {
            leadership.role = Role::Follower;
            leadership.leader = None;
            leadership.removed = self.removed;
            leadership.stopped = true;
        });
    }

    fn serve(
        &mut self,
        commands: impl IntoIterator<Item = Command>,
    ) -> Result<ControlFlow<()>, RaftError> {
        if !self.started {
            self.started = true;
            self.begin()?;
        }
        for command in commands {
            if self.removed {
                break;
            }
            if let ControlFlow::Break(done) = self.handle(command)? {
                self.raw.mut_store().sync_commit()?;
                self.stopped_by = Some(done);
                return Ok(ControlFlow::Break(()));
            }
            self.draw_election_timeout();
        }
        self.rounds()?;
        self.compact_if_due()?;
        if self.removed {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What was committed before the restart is applied first; a member that is alone need not wait
    /// for an election timeout to find that nobody disagrees.
    fn begin(&mut self) -> Result<(), RaftError> {
        self.draw_election_timeout();
        self.rounds()?;
        if self.is_sole_voter() {
            self.raw.campaign()?;
            self.rounds()?;
        }
        Ok(())
    }

    /// Raft draws its election timeouts from the thread's generator. Ours follow from the term: as
    /// well spread, and the same again when a simulation is replayed.
    fn draw_election_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        let ticks = raft.election_timeout();
        let drawn = mix(self.seed ^ mix(raft.id) ^ raft.term) as usize % ticks;
        raft.set_randomized_election_timeout(ticks + drawn);
    }

    fn handle(&mut self, command: Command) -> Result<ControlFlow<oneshot::Sender<()>>, RaftError> {
        match command {
            Command::Propose { reign, data, reply } => self.propose_data(reign, data, reply),
            Command::ChangeMembers { change, reply } => self.change_members(&change, reply),
            // Errors here are about one message of one peer: raft protects itself by ignoring it.
            Command::Step(message) => {
                if let Err(error) = self.raw.step(message) {
                    tracing::debug!(%error, "ignored a raft message");
                }
            }
            Command::Unreachable(id) => self.raw.report_unreachable(id),
            Command::SnapshotSent { to, arrived } => {
                let status = if arrived {
                    SnapshotStatus::Finish
                } else {
                    SnapshotStatus::Failure
                };
                self.raw.report_snapshot(to, status);
            }
            Command::TransferLeadership(to) => self.raw.transfer_leader(to),
            Command::RotateKey { key, reply } => {
                self.rotate_key(key)?;
                let _ = reply.send(Ok(()));
            }
            Command::Compact { reply } => {
                self.rounds()?;
                self.compact()?;
                let _ = reply.send(Ok(()));
            }
            Command::Tick => {
                self.raw.tick();
            }
            Command::Pace(pace) => self.pace = pace,
            Command::Stop { done } => return Ok(ControlFlow::Break(done)),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn change_members(&mut self, change: &raftpb::ConfChange, reply: Reply<u64>) {
        use raftpb::ConfChangeType as Kind;
        let id = change.node_id;
        let refusal = match change.r#type() {
            Kind::ConfChangeAddNode if self.members.is_removed(id) => Some(ProposeError::IdRemoved),
            Kind::ConfChangeRemoveNode | Kind::ConfChangeUpdateNode
                if self.members.get(id).is_none() =>
            {
                Some(ProposeError::IdNotFound)
            }
            // The last member cannot remove itself: nobody would be left to hold the state.
            Kind::ConfChangeRemoveNode if self.conf_state.voters == [id] => {
                Some(ProposeError::CannotRemoveMember)
            }
            _ => None,
        };
        match refusal {
            Some(error) => drop(reply.send(Err(error))),
            None => self.propose(EntryType::EntryConfChange, change.encode_to_vec(), reply),
        }
    }

    /// What was decided in an earlier term, or counting on a proposal that was refused since, must
    /// not enter the log, however long it waited in the queue.
    fn propose_data(&mut self, reign: Reign, data: Vec<u8>, reply: Reply<u64>) {
        let failures = self.shared.failures.load(Ordering::Acquire);
        if reign.term != self.raw.raft.term || reign.failures != failures {
            drop(reply.send(Err(ProposeError::NotLeader)));
            return;
        }
        self.propose(EntryType::EntryNormal, data, reply);
    }

    /// Builds the message itself instead of calling `RawNode::propose_conf_change`, which knows no
    /// UpdateNode.
    fn propose(&mut self, kind: EntryType, data: Vec<u8>, reply: Reply<u64>) {
        if !self.leads() {
            self.refuse(reply);
            return;
        }
        let mut entry = Entry::default();
        entry.set_entry_type(kind);
        entry.data = data.into();
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.raw.raft.id;
        message.set_entries(vec![entry].into());
        match self.raw.raft.step(message) {
            Ok(()) => {
                let index = self.raw.raft.raft_log.last_index();
                let waiter = Waiter {
                    term: self.raw.raft.term,
                    kind,
                    reply,
                };
                self.waiting.insert(index, waiter);
            }
            // While leadership is being handed over.
            Err(_) => self.refuse(reply),
        }
    }

    /// Refuses a proposal, and with it all that were made counting on it.
    fn refuse(&self, reply: Reply<u64>) {
        self.shared.failures.fetch_add(1, Ordering::AcqRel);
        // Whoever proposed may have stopped waiting.
        let _ = reply.send(Err(ProposeError::NotLeader));
    }

    /// Works off what raft has become ready to do.
    fn rounds(&mut self) -> Result<(), RaftError> {
        while !self.removed && self.raw.has_ready() {
            self.round()?;
        }
        Ok(())
    }

    fn round(&mut self) -> Result<(), RaftError> {
        let mut ready = self.raw.ready();
        // A leader's messages may go before its own write: followers write at the same time.
        self.send(ready.take_messages());
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            self.raw.mut_store().install(&snapshot, ready.hs())?;
            self.restore(&snapshot)?;
        }
        if ready.must_sync() {
            let entries = ready.take_entries();
            self.raw.mut_store().append(ready.hs(), entries)?;
        } else if let Some(hard_state) = ready.hs() {
            let commit = hard_state.commit;
            self.raw.mut_store().set_commit(commit);
        }
        self.send(ready.take_persisted_messages());
        self.apply(ready.take_committed_entries())?;
        if self.removed {
            // Everything is written and sent. Raft would look for this member among its own, to count
            // what it has written after its removal, and panic, for it is not there any more.
            return Ok(());
        }

        let mut light = self.raw.advance_append(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().set_commit(commit);
        }
        self.send(light.take_messages());
        self.apply(light.take_committed_entries())?;
        self.raw.advance_apply();
        self.announce();
        Ok(())
    }

    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            match convert::message_to_wire(message) {
                Ok(message) => self.transport.send(message),
                Err(error) => tracing::warn!(%error, "did not send a raft message"),
            }
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), RaftError> {
        for entry in entries {
            let index = entry.index;
            match entry.get_entry_type() {
                // A new leader's first entry is empty.
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => {
                    self.state_machine
                        .apply(index, &entry.data)
                        .map_err(|source| RaftError::StateMachine {
                            what: "apply the entry",
                            index,
                            source,
                        })?;
                }
                EntryType::EntryConfChange => self.apply_change(&entry)?,
                EntryType::EntryConfChangeV2 => {
                    let reason = "joint membership changes are not supported".to_owned();
                    return Err(RaftError::BadEntry { index, reason });
                }
            }
            self.applied = index;
            self.applied_term = entry.term;
            self.shared.applied.store(index, Ordering::Release);
            self.answer(&entry);
        }
        Ok(())
    }

    fn answer(&mut self, entry: &Entry) {
        let Some(waiter) = self.waiting.remove(&entry.index) else {
            return;
        };
        let result = if waiter.term != entry.term {
            Err(ProposeError::LostLeadership)
        } else if waiter.kind != entry.get_entry_type() {
            // Raft replaces a membership change by an empty entry while another one is pending.
            Err(ProposeError::ConfChangeRefused)
        } else {
            Ok(entry.index)
        };
        // Whoever proposed may have stopped waiting.
        let _ = waiter.reply.send(result);
    }

    fn apply_change(&mut self, entry: &Entry) -> Result<(), RaftError> {
        let bad = |reason: String| RaftError::BadEntry {
            index: entry.index,
            reason,
        };
        let change = raftpb::ConfChange::decode(entry.data.as_ref())
            .map_err(|error| bad(error.to_string()))?;
        let core = convert::conf_change_from_wire(&change)
            .map_err(|kind| bad(format!("membership change of type {kind}")))?;
        if let Some(core) = core {
            self.conf_state = self.raw.apply_conf_change(&core)?;
        }
        if change.r#type() == raftpb::ConfChangeType::ConfChangeRemoveNode {
            self.members.remove(change.node_id);
            self.removed |= change.node_id == self.raw.raft.id;
        } else {
            let member = RaftMember::decode(change.context.as_slice())
                .map_err(|error| bad(error.to_string()))?;
            self.members.put(RaftMember {
                raft_id: change.node_id,
                ..member
            });
        }
        self.shared
            .members
            .send_replace(Arc::new(self.members.clone()));
        self.raw.mut_store().sync_commit()?;
        Ok(())
    }

    /// Replaces all state by a snapshot's.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), RaftError> {
        let metadata = snapshot.get_metadata();
        let index = metadata.index;
        let failed = |source| RaftError::StateMachine {
            what: "restore the snapshot",
            index,
            source,
        };
        let (members, store) =
            ClusterState::decode(&snapshot.data).map_err(|reason| failed(reason.into()))?;
        self.state_machine.restore(index, &store).map_err(failed)?;
        self.members = members;
        self.removed |= self.members.is_removed(self.raw.raft.id);
        self.shared
            .members
            .send_replace(Arc::new(self.members.clone()));
        self.conf_state = metadata.get_conf_state().clone();
        self.applied = index;
        self.applied_term = metadata.term;
        self.shared.applied.store(index, Ordering::Release);
        Ok(())
    }

    fn compact_if_due(&mut self) -> Result<(), RaftError> {
        let store = self.raw.store();
        let entries = self.applied.saturating_sub(store.snapshot_index());
        let bytes = store.appended_bytes();
        let due = store.take_snapshot_wanted()
            || entries >= self.snapshot_interval
            || (bytes >= self.snapshot_bytes && entries > 0);
        if due {
            self.compact()?;
        }
        Ok(())
    }

    /// Takes a snapshot of what is applied. A no-op right after another one, but for a rotated key.
    fn compact(&mut self) -> Result<(), RaftError> {
        let index = self.applied;
        if index == 0 {
            return Ok(());
        }
        let store = self
            .state_machine
            .snapshot()
            .map_err(|source| RaftError::StateMachine {
                what: "take a snapshot",
                index,
                source,
            })?;
        let data = ClusterState::encode(&self.members, store);
        self.raw
            .mut_store()
            .compact(index, &self.conf_state, data, self.keep_entries)?;
        tracing::debug!(index, "took a raft snapshot");
        Ok(())
    }

    fn rotate_key(&mut self, key: SecretKey) -> Result<(), RaftError> {
        self.rounds()?;
        self.raw.mut_store().rotate_key(key);
        if self.applied == 0 {
            // A member that has not heard from a leader yet has an empty log, but a log.
            self.raw.mut_store().rewrite()?;
            return Ok(());
        }
        self.compact()
    }

    /// Publishes role and leader when they changed, and lets those down who wait for a leader that
    /// is none any more.
    fn announce(&mut self) {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            for (_, waiter) in std::mem::take(&mut self.waiting) {
                let _ = waiter.reply.send(Err(ProposeError::LostLeadership));
            }
        }
        let role = match raft.state {
            StateRole::Leader if self.leads() => Role::Leader,
            StateRole::Follower => Role::Follower,
            _ => Role::Candidate,
        };
        // An elected leader that is not ready yet is nobody to send requests to.
        let leader = (raft.leader_id != raft::INVALID_ID
            && (raft.leader_id != raft.id || role == Role::Leader))
            .then_some(raft.leader_id);
        let now = Leadership {
            role,
            leader,
            term: raft.term,
            removed: self.removed,
            stopped: false,
        };
        self.shared.leadership.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }

    /// Elected, and an entry of this very term is applied: so everything before it is.
    fn leads(&self) -> bool {
        let raft = &self.raw.raft;
        raft.state == StateRole::Leader && self.applied_term == raft.term
    }

    fn is_sole_voter(&self) -> bool {
        self.conf_state.voters == [self.raw.raft.id]
    }

    pub(super) fn leads_alone(&self) -> bool {
        self.is_sole_voter() && self.raw.raft.state == StateRole::Leader
    }
}

/// The finalizer of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
