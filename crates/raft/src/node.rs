//! The handle by which the rest of the program uses its raft member.

mod core;
mod driver;

use crate::members::Members;
use crate::storage::{Keyring, LogStorage};
use crate::{
    IfNew, ProposeError, RaftConfig, RaftError, StateMachine, StepError, Transport, convert,
};
use core::{Core, Reply};
pub use driver::Driver;
use parking_lot::Mutex;
use prost::Message as _;
use raft::eraftpb;
use skep_ca::SecretKey;
use skep_proto::{RaftMember, raftpb};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Follower,
    Candidate,
    /// Elected, and everything committed by earlier leaders is applied here: only now may this
    /// member decide on what it sees in its store.
    Leader,
}

/// Who leads, as this member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    pub role: Role,
    /// The leader's raft id, once known.
    pub leader: Option<u64>,
    pub term: u64,
    /// This member was removed from the cluster; it has stopped.
    pub removed: bool,
    /// Stopped by request, by removal or by failure.
    pub stopped: bool,
}

/// What a proposal counts on: the term this member leads in, and that nothing was refused since.
/// State that was looked at in one reign is nothing to build on in another: another leader may have
/// written in between, or an earlier proposal may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reign {
    pub term: u64,
    /// Proposals refused by this member so far.
    pub failures: u64,
}

impl Leadership {
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }
}

/// A member of the raft group. Cheap to clone. When the last handle is dropped the member stops where
/// it is, as after a crash.
#[derive(Clone)]
pub struct RaftNode {
    id: u64,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    max_proposal_bytes: usize,
}

/// What the driver tells its handles.
struct Shared {
    leadership: watch::Sender<Leadership>,
    members: watch::Sender<Arc<Members>>,
    applied: AtomicU64,
    /// See [`Reign`].
    failures: AtomicU64,
    failure: Mutex<Option<Arc<RaftError>>>,
}

type Answer<T> = oneshot::Receiver<Result<T, ProposeError>>;

enum Command {
    Propose {
        reign: Reign,
        data: Vec<u8>,
        reply: Reply<u64>,
    },
    ChangeMembers {
        change: raftpb::ConfChange,
        reply: Reply<u64>,
    },
    Step(eraftpb::Message),
    Unreachable(u64),
    SnapshotSent {
        to: u64,
        arrived: bool,
    },
    TransferLeadership(u64),
    RotateKey {
        key: SecretKey,
        reply: Reply<()>,
    },
    Compact {
        reply: Reply<()>,
    },
    Tick,
    Pace(Duration),
    Stop {
        done: oneshot::Sender<()>,
    },
}

impl RaftNode {
    /// Opens or founds the log, restores the state machine from its snapshot and starts the thread.
    /// Reads and writes files: call it where blocking is allowed. A lone member is the leader a few
    /// milliseconds later.
    pub fn start(
        config: RaftConfig,
        state_machine: Arc<dyn StateMachine>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, RaftError> {
        let (node, driver) = Self::prepare(config, state_machine, transport)?;
        std::thread::Builder::new()
            .name("raft".to_owned())
            .spawn(move || driver.run())
            .map_err(RaftError::Thread)?;
        Ok(node)
    }

    /// As [`Self::start`], but the caller drives it.
    pub fn prepare(
        config: RaftConfig,
        state_machine: Arc<dyn StateMachine>,
        transport: Arc<dyn Transport>,
    ) -> Result<(Self, Driver), RaftError> {
        let (storage, known) = open(&config)?;
        let id = storage.raft_id();
        let unknown = Leadership {
            role: Role::Follower,
            leader: None,
            term: 0,
            removed: false,
            stopped: false,
        };
        let shared = Arc::new(Shared {
            leadership: watch::Sender::new(unknown),
            members: watch::Sender::new(Arc::new(known)),
            applied: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failure: Mutex::new(None),
        });
        let (commands, queue) = mpsc::channel();
        let core = Core::new(
            &config,
            storage,
            state_machine,
            transport,
            Arc::clone(&shared),
        )?;
        let node = Self {
            id,
            commands,
            shared,
            max_proposal_bytes: config.max_proposal_bytes,
        };
        Ok((node, Driver::new(core, queue, config.ticks)))
    }

    /// This member's raft id, as its log says.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What to propose with, if this member leads and has applied all that earlier leaders
    /// committed. Take it before looking at the state.
    pub fn reign(&self) -> Option<Reign> {
        // In this order: a refusal in between makes the reign void, never one too late.
        let failures = self.shared.failures.load(Ordering::Acquire);
        let leadership = self.shared.leadership.borrow();
        (leadership.is_leader() && !leadership.stopped).then_some(Reign {
            term: leadership.term,
            failures,
        })
    }

    /// Replicates one entry; returns its index once it is committed and applied *here*. Proposals
    /// that wait at the same time share a write and a sync. Only the leader accepts any, and only in
    /// the reign that they count on. Takes its place in the log by being called, not by being polled.
    pub fn propose(
        &self,
        reign: Reign,
        data: Vec<u8>,
    ) -> impl Future<Output = Result<u64, ProposeError>> + Send + 'static {
        let answer = if data.len() > self.max_proposal_bytes {
            // Like any refusal: others may count on it already.
            self.shared.failures.fetch_add(1, Ordering::AcqRel);
            Err(ProposeError::TooLarge)
        } else {
            Ok(self.ask(|reply| Command::Propose { reign, data, reply }))
        };
        let shared = Arc::clone(&self.shared);
        async move { shared.answer(answer?).await }
    }

    /// Hands over a peer's message. Does not block.
    pub fn step(&self, message: raftpb::Message) -> Result<(), StepError> {
        if self.shared.members.borrow().is_removed(message.from) {
            return Err(StepError::MemberRemoved);
        }
        if message.to != self.id {
            return Err(StepError::WrongReceiver {
                to: message.to,
                this: self.id,
            });
        }
        let message = convert::message_from_wire(message)?;
        self.commands
            .send(Command::Step(message))
            .map_err(|_| StepError::Stopped)
    }

    /// The present leadership, and its changes. Closes when the member is gone.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// The present members, and their changes.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.shared.members.subscribe()
    }

    /// The last entry that the state machine has seen.
    pub fn applied_index(&self) -> u64 {
        self.shared.applied.load(Ordering::Acquire)
    }

    /// Why the member stopped, if not by request.
    pub fn failure(&self) -> Option<Arc<RaftError>> {
        self.shared.failure.lock().clone()
    }

    /// Adds a voting member. It must then be started with [`IfNew::Join`].
    pub async fn add_member(&self, member: RaftMember) -> Result<u64, ProposeError> {
        self.change(raftpb::ConfChangeType::ConfChangeAddNode, member)
            .await
    }

    /// Tells everyone a member's new address.
    pub async fn update_member(&self, member: RaftMember) -> Result<u64, ProposeError> {
        self.change(raftpb::ConfChangeType::ConfChangeUpdateNode, member)
            .await
    }

    /// Removes a member for good: its id cannot come back.
    pub async fn remove_member(&self, raft_id: u64) -> Result<u64, ProposeError> {
        let member = RaftMember {
            raft_id,
            ..Default::default()
        };
        self.change(raftpb::ConfChangeType::ConfChangeRemoveNode, member)
            .await
    }

    /// Asks the leader, which this member must be, to make `to` the leader.
    pub fn transfer_leadership(&self, to: u64) {
        self.tell(Command::TransferLeadership(to));
    }

    /// The transport could not deliver to this member.
    pub fn report_unreachable(&self, raft_id: u64) {
        self.tell(Command::Unreachable(raft_id));
    }

    /// A snapshot arrived, or did not. Must be told once for each one sent: until then the receiver
    /// gets nothing else.
    pub fn report_snapshot(&self, to: u64, arrived: bool) {
        self.tell(Command::SnapshotSent { to, arrived });
    }

    /// Moves everything on disk to another key; returns when nothing is left under the old one. The
    /// caller must have stored the new key as pending before, and promotes it afterwards.
    pub async fn rotate_dek(&self, key: SecretKey) -> Result<(), ProposeError> {
        self.request(|reply| Command::RotateKey { key, reply })
            .await
    }

    /// Takes a snapshot and drops old entries now.
    pub async fn compact(&self) -> Result<(), ProposeError> {
        self.request(|reply| Command::Compact { reply }).await
    }

    /// Advances the logical clock by one, with [`crate::Ticks::Manual`].
    pub fn tick(&self) {
        self.tell(Command::Tick);
    }

    /// The time between two ticks, from now on: short among skep managers, SwarmKit's second as soon
    /// as one of its managers is a member.
    pub fn set_pace(&self, pace: Duration) {
        self.tell(Command::Pace(pace));
    }

    /// Stops and waits until the files are closed; they may then be opened again.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        self.tell(Command::Stop { done });
        // The driver answers by dropping the sender, whether it stops now or has stopped long ago.
        let _ = stopped.await;
    }

    async fn change(
        &self,
        kind: raftpb::ConfChangeType,
        member: RaftMember,
    ) -> Result<u64, ProposeError> {
        let change = raftpb::ConfChange {
            id: 0,
            r#type: kind.into(),
            node_id: member.raft_id,
            context: member.encode_to_vec(),
        };
        self.request(|reply| Command::ChangeMembers { change, reply })
            .await
    }

    async fn request<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, ProposeError> {
        self.shared.answer(self.ask(command)).await
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply));
        answer
    }

    /// To a stopped driver this says nothing: requests notice by their dropped reply, and the rest
    /// no longer matters.
    fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

impl Shared {
    async fn answer<T>(&self, answer: Answer<T>) -> Result<T, ProposeError> {
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(self
                .failure
                .lock()
                .clone()
                .map_or(ProposeError::Stopped, ProposeError::Failed)),
        }
    }
}

/// Opens the log, or makes one as told. Also returns the members known beforehand.
fn open(config: &RaftConfig) -> Result<(LogStorage, Members), RaftError> {
    let dir = &config.state_dir;
    let disk = || Arc::clone(&config.disk);
    let keys = Keyring::new(config.dek.clone(), config.former_deks.clone());
    if let Some(mut storage) = LogStorage::open(disk(), dir, keys.clone())? {
        if config.alone {
            storage.drop_others()?;
        }
        // A member that stopped before its log told it of anybody still has to reach the others.
        let known = match &config.if_new {
            IfNew::Join { members, .. } => Members::of(members.iter().cloned()),
            IfNew::Refuse | IfNew::Bootstrap(_) => Members::default(),
        };
        return Ok((storage, known));
    }
    let none = eraftpb::HardState::default();
    match &config.if_new {
        IfNew::Refuse => Err(RaftError::NoLog(dir.clone())),
        IfNew::Join { raft_id, members } => {
            let storage = LogStorage::create(disk(), dir, keys, *raft_id, none, Vec::new())?;
            Ok((storage, Members::of(members.iter().cloned())))
        }
        IfNew::Bootstrap(member) => {
            let (hard_state, entry) = founding(member);
            let storage =
                LogStorage::create(disk(), dir, keys, member.raft_id, hard_state, vec![entry])?;
            Ok((storage, Members::default()))
        }
    }
}

/// A new cluster's log begins with the entry that adds its founder, already committed: raft has no
/// other way to learn its first member, and members that join later replay it.
fn founding(member: &RaftMember) -> (eraftpb::HardState, eraftpb::Entry) {
    let change = raftpb::ConfChange {
        id: 0,
        r#type: raftpb::ConfChangeType::ConfChangeAddNode.into(),
        node_id: member.raft_id,
        context: member.encode_to_vec(),
    };
    let mut entry = eraftpb::Entry::default();
    entry.set_entry_type(eraftpb::EntryType::EntryConfChange);
    entry.term = 1;
    entry.index = 1;
    entry.data = change.encode_to_vec().into();
    let hard_state = eraftpb::HardState {
        term: 1,
        commit: 1,
        ..Default::default()
    };
    (hard_state, entry)
}

#[cfg(test)]
mod tests;
