//! The simulated cluster: one queue of events, one clock, one source of chance.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use skep_proto::raftpb;
use skep_raft::{IfNew, RaftNode, StepError};
use skep_store::Store;

use crate::client::{self, Action};
use crate::disk::Ending;
use crate::ledger::{Invariant, Ledger, Violation};
use crate::manager::{Manager, Shared, raft_member};
use crate::network::{MILLIS, Network, SECONDS, Time};
use crate::options::Options;
use crate::watcher;

/// How many users and agents there are.
const CLIENTS: usize = 6;
/// The cluster has to be itself again that long after the last fault.
const RECOVERY: Time = 30 * SECONDS;

#[derive(Debug)]
enum Event {
    Tick {
        member: u64,
        boot: u64,
    },
    /// A manager that was busy goes on.
    Turn(u64),
    Deliver(Box<raftpb::Message>),
    SnapshotLost {
        from: u64,
        to: u64,
    },
    Client(usize),
    Fault,
    Start(u64),
}

/// In the order of time, then of making.
struct Scheduled {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) now: Time,
    order: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    pub(crate) managers: BTreeMap<u64, Manager>,
    pub(crate) network: Network,
    pub(crate) shared: Shared,
    writes: u64,
    /// Clients that wait for an answer.
    waiting: Vec<Arc<AtomicBool>>,
    pub(crate) next_id: u64,
    /// A change of the membership is under way.
    pub(crate) changing: Arc<AtomicBool>,
    pub(crate) faulty: bool,
    pub(crate) events: u64,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let ledger = if options.traced {
            Ledger::traced()
        } else {
            Ledger::default()
        };
        let shared = Shared {
            ledger,
            outbox: Arc::default(),
            clock: Arc::new(AtomicU64::new(0)),
            options,
        };
        let mut world = Self {
            rng: StdRng::seed_from_u64(shared.options.seed),
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            managers: BTreeMap::new(),
            network: Network::default(),
            writes: 0,
            waiting: (0..CLIENTS).map(|_| Arc::default()).collect(),
            next_id: 1,
            changing: Arc::default(),
            faulty: false,
            events: 0,
            shared,
        };
        let first = IfNew::Bootstrap(raft_member(1));
        world.add_manager(first);
        world
    }

    fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let now = self.now;
        self.ledger()
            .note(|| format!("{:>10.4} {}", now as f64 / SECONDS as f64, what()));
    }

    /// A new machine; returns its member's id.
    pub(crate) fn add_manager(&mut self, if_new: IfNew) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let manager = Manager::new(id, if_new, &self.shared.options);
        self.managers.insert(id, manager);
        self.schedule(0, Event::Start(id));
        id
    }

    fn schedule(&mut self, after: Time, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled {
            at: self.now + after,
            order: self.order,
            event,
        }));
    }

    /// Some member that believes it leads; there may be several.
    pub(crate) fn some_leader(&self) -> Option<u64> {
        let leads = |manager: &&Manager| {
            manager
                .process
                .as_ref()
                .is_some_and(|p| p.reigns().is_some())
        };
        let newest = self.managers.values().filter(leads).max_by_key(|manager| {
            manager
                .process
                .as_ref()
                .and_then(crate::manager::Process::reigns)
        });
        newest.map(|manager| manager.id)
    }

    pub(crate) fn node(&self, id: u64) -> Option<&RaftNode> {
        Some(&self.managers.get(&id)?.process.as_ref()?.node)
    }

    fn store(&self, id: u64) -> Option<&Store> {
        Some(&self.managers.get(&id)?.process.as_ref()?.store)
    }

    pub(crate) fn running(&self) -> Vec<u64> {
        let runs = |manager: &&Manager| manager.process.is_some();
        self.managers.values().filter(runs).map(|m| m.id).collect()
    }

    /// The whole run.
    pub(crate) async fn run(&mut self) -> Result<(), Violation> {
        let options = self.shared.options.clone();
        self.until(SECONDS, |world| world.some_leader().is_some())
            .await?;
        self.perform_reliably(client::furnish).await?;
        while self.next_id <= options.managers {
            self.join_member(false);
            let members = self.next_id - 1;
            let joined = move |world: &Self| world.members_known_to_all() == members as usize;
            self.until(20 * SECONDS, joined).await?;
        }
        for client in 0..CLIENTS {
            self.schedule(client as Time * MILLIS, Event::Client(client));
        }
        self.faulty = true;
        self.schedule(0, Event::Fault);
        let end = self.now + options.seconds * SECONDS;
        while self.now < end {
            self.step().await?;
        }
        self.heal().await
    }

    /// Ends all faults and looks whether everyone comes back.
    async fn heal(&mut self) -> Result<(), Violation> {
        self.note(|| "everything is repaired".to_owned());
        self.faulty = false;
        self.network.heal();
        for manager in self.managers.values_mut() {
            manager.tick = 80 * MILLIS;
            manager.busy_until = manager.busy_until.min(self.now);
        }
        let down: Vec<u64> = self
            .managers
            .values()
            .filter(|m| m.process.is_none() && !m.left)
            .map(|m| m.id)
            .collect();
        for id in down {
            self.schedule(MILLIS, Event::Start(id));
        }
        let end = self.now + RECOVERY;
        // The last writes of the clients are over, and one more comes everywhere.
        let idle = |world: &Self| {
            !world
                .waiting
                .iter()
                .any(|waiting| waiting.load(Ordering::Relaxed))
                && !world.changing.load(Ordering::Relaxed)
        };
        let recovered = self
            .until(RECOVERY, |w| w.some_leader().is_some() && idle(w))
            .await;
        recovered.map_err(of_healing)?;
        let written = self.perform_reliably(|_| Ok(())).await;
        written.map_err(of_healing)?;
        let left = end.saturating_sub(self.now).max(SECONDS);
        let agreed = self.until(left, World::all_agree).await;
        if agreed.is_err() {
            let states = self.disagreement();
            self.ledger()
                .violate(Invariant::AfterHealingAllAgree, states);
        }
        for manager in self.managers.values() {
            if let Some(process) = &manager.process {
                process.watcher.compare(&process.store);
            }
        }
        self.verdict()
    }

    fn verdict(&self) -> Result<(), Violation> {
        self.ledger().violation().map_or(Ok(()), Err)
    }

    /// Runs until something is so; it is wrong if that takes too long.
    async fn until(
        &mut self,
        patience: Time,
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> Result<(), Violation> {
        let end = self.now + patience;
        while !is_so(self) {
            if self.now > end {
                return Err(Violation {
                    invariant: Invariant::NobodyPanics,
                    what: format!(
                        "still not so after {} s: {}",
                        patience / SECONDS,
                        self.disagreement()
                    ),
                });
            }
            self.step().await?;
        }
        Ok(())
    }

    /// The next event and all that follows from it at once.
    async fn step(&mut self) -> Result<(), Violation> {
        let Some(Reverse(next)) = self.queue.pop() else {
            return Err(Violation {
                invariant: Invariant::SomethingHappens,
                what: "nothing happens any more".to_owned(),
            });
        };
        self.events += 1;
        self.now = next.at;
        self.shared.clock.store(self.now, Ordering::Relaxed);
        let touched = self.handle(next.event);
        if let Some(id) = touched {
            self.turn(id);
        }
        // Answers wake clients, and those have something to say in turn.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        if let Some(id) = touched {
            self.turn(id);
        }
        self.verdict()
    }

    /// Returns the manager that has something to do.
    fn handle(&mut self, event: Event) -> Option<u64> {
        match event {
            Event::Tick { member, boot } => {
                let manager = self.managers.get(&member)?;
                let (period, busy) = (manager.tick, manager.busy_until > self.now);
                if manager.boot != boot {
                    return None;
                }
                let node = &manager.process.as_ref()?.node;
                // A machine that stands still has no clock that goes on.
                if !busy {
                    node.tick();
                }
                self.schedule(period, Event::Tick { member, boot });
                Some(member)
            }
            Event::Turn(id) => Some(id),
            Event::Deliver(message) => self.deliver(*message),
            Event::SnapshotLost { from, to } => {
                let node = self.node(from)?;
                node.report_snapshot(to, false);
                node.report_unreachable(to);
                Some(from)
            }
            Event::Client(client) => self.client(client),
            Event::Fault => {
                if self.faulty {
                    let after = self.rng.random_range(50 * MILLIS..700 * MILLIS);
                    self.schedule(after, Event::Fault);
                    self.do_something_bad();
                }
                None
            }
            Event::Start(id) => {
                self.start(id);
                Some(id)
            }
        }
    }

    fn start(&mut self, id: u64) {
        let shared = self.shared.clone();
        let Some(manager) = self.managers.get_mut(&id) else {
            return;
        };
        if manager.process.is_some() || manager.left {
            return;
        }
        match manager.start(&shared) {
            Ok(()) => {
                let boot = manager.boot;
                let first = self.rng.random_range(0..80 * MILLIS);
                self.schedule(first, Event::Tick { member: id, boot });
                self.note(|| format!("manager {id} starts"));
            }
            Err(_) if manager.disk.is_dying() => self.crash(id, Ending::PowerCut),
            Err(error) => {
                let what = format!("manager {id} does not start: {}", chain(&error));
                self.ledger()
                    .violate(Invariant::NoAcknowledgedWriteIsLost, what);
            }
        }
    }

    pub(crate) fn crash(&mut self, id: u64, ending: Ending) {
        self.note(|| format!("manager {id}: {ending:?}"));
        let Some(manager) = self.managers.get_mut(&id) else {
            return;
        };
        manager.crash(ending, &mut self.rng);
        let after = if self.faulty {
            self.rng.random_range(10 * MILLIS..2 * SECONDS)
        } else {
            MILLIS
        };
        self.schedule(after, Event::Start(id));
    }

    /// Lets a manager work off what it has been given, if it can work now.
    fn turn(&mut self, id: u64) {
        let now = self.now;
        let Some(manager) = self.managers.get_mut(&id) else {
            return;
        };
        if manager.busy_until > now {
            return;
        }
        let Some(process) = &mut manager.process else {
            return;
        };
        let syncs = manager.disk.syncs();
        let alive = process.driver.turn();
        process.watcher.look(&process.store);
        let synced = manager.disk.syncs() > syncs;
        if let Some(term) = process.reigns()
            && process.led != term
        {
            process.led = term;
            self.shared
                .ledger
                .took_over(id, term, process.node.applied_index());
            self.shared.ledger.note(|| {
                format!(
                    "{:>10.4} manager {id} leads in term {term}",
                    now as f64 / SECONDS as f64
                )
            });
        }
        let mut took = 0;
        if synced && alive {
            took = self.rng.random_range(50..3 * MILLIS);
            manager.busy_until = now + took;
        }
        let sent = std::mem::take(&mut *self.shared.outbox.lock());
        if !alive {
            self.stopped(id);
        } else if took > 0 {
            self.schedule(took, Event::Turn(id));
        }
        for message in sent {
            self.send(message, took);
        }
    }

    /// The member has stopped by itself.
    fn stopped(&mut self, id: u64) {
        let Some(manager) = self.managers.get_mut(&id) else {
            return;
        };
        let Some(process) = &manager.process else {
            return;
        };
        let removed = process.node.leadership().borrow().removed;
        if manager.disk.is_dying() {
            self.crash(id, Ending::PowerCut);
        } else if removed {
            self.leave(id);
        } else {
            let why = process
                .node
                .failure()
                .map_or_else(String::new, |error| chain(&*error));
            let what = format!("manager {id} stopped: {why}");
            self.ledger().violate(Invariant::NobodyPanics, what);
        }
    }

    /// The manager knows that it was removed.
    fn leave(&mut self, id: u64) {
        self.note(|| format!("manager {id} has left"));
        if let Some(manager) = self.managers.get_mut(&id) {
            manager.left = true;
            if let Some(process) = manager.process.take() {
                process.store.close();
            }
        }
    }

    fn send(&mut self, message: raftpb::Message, after: Time) {
        use raftpb::MessageType as Kind;
        let kind = message.r#type();
        if matches!(kind, Kind::MsgApp | Kind::MsgHeartbeat | Kind::MsgSnap) {
            self.ledger().leads(message.term, message.from);
        }
        let (from, to) = (message.from, message.to);
        let arrivals = self.network.carry((from, to), &mut self.rng);
        if arrivals.is_empty() {
            if kind == Kind::MsgSnap {
                self.schedule(after + 100 * MILLIS, Event::SnapshotLost { from, to });
            } else if self.rng.random_bool(0.1)
                && let Some(node) = self.node(from)
            {
                node.report_unreachable(to);
            }
        }
        for arrival in arrivals {
            // What is on the wire is bytes.
            self.schedule(after + arrival, Event::Deliver(Box::new(message.clone())));
        }
    }

    fn deliver(&mut self, message: raftpb::Message) -> Option<u64> {
        let (from, to) = (message.from, message.to);
        let snapshot = message.r#type() == raftpb::MessageType::MsgSnap;
        let stepped = self.node(to).map(|node| node.step(message));
        if snapshot && let Some(sender) = self.node(from) {
            sender.report_snapshot(to, matches!(stepped, Some(Ok(()))));
        }
        match stepped {
            Some(Err(StepError::MemberRemoved)) if !self.network.cut.contains(&(to, from)) => {
                self.leave(from);
                None
            }
            Some(_) => Some(to),
            None => {
                if self.rng.random_bool(0.2)
                    && let Some(sender) = self.node(from)
                {
                    sender.report_unreachable(to);
                }
                None
            }
        }
    }

    fn client(&mut self, client: usize) -> Option<u64> {
        if !self.faulty {
            return None;
        }
        let next = self.rng.random_range(MILLIS..60 * MILLIS);
        self.schedule(next, Event::Client(client));
        if self.waiting[client].load(Ordering::Relaxed) {
            return None;
        }
        let running = self.running();
        if running.is_empty() {
            return None;
        }
        let any = running[self.rng.random_range(0..running.len())];
        let target = self
            .some_leader()
            .filter(|_| self.rng.random_bool(0.7))
            .unwrap_or(any);
        let looks_at = if self.rng.random_bool(0.3) {
            any
        } else {
            target
        };
        let created: Vec<u64> = if self.rng.random_bool(0.1) {
            self.ledger().acknowledged()
        } else {
            Vec::new()
        };
        let seen = self.store(looks_at)?.clone();
        let action = Action::draw(&seen, &created, &mut self.rng);
        self.writes += 1;
        let (write, store) = (self.writes, self.store(target)?.clone());
        let (ledger, waiting) = (self.ledger().clone(), Arc::clone(&self.waiting[client]));
        waiting.store(true, Ordering::Relaxed);
        let (at, mutation) = (self.now, self.shared.options.mutation);
        tokio::spawn(async move {
            let text = format!("write {write} at manager {target}: {action:?}");
            let outcome = action.perform(write, store, mutation).await;
            ledger.note(|| format!("{:>10.4} {text}: {outcome:?}", at as f64 / SECONDS as f64));
            ledger.ended(write, outcome);
            waiting.store(false, Ordering::Relaxed);
        });
        Some(target)
    }

    /// Writes through whoever leads, again and again until it is acknowledged.
    async fn perform_reliably(
        &mut self,
        change: fn(&mut skep_store::Transaction) -> Result<(), skep_store::StoreError>,
    ) -> Result<(), Violation> {
        let end = self.now + RECOVERY;
        loop {
            let done = Arc::new(parking_lot::Mutex::new(None));
            if let Some(store) = self.some_leader().and_then(|id| self.store(id)).cloned() {
                self.writes += 1;
                let (write, ended, ledger) =
                    (self.writes, Arc::clone(&done), self.ledger().clone());
                tokio::spawn(async move {
                    let result = store.update(|tx| {
                        change(tx)?;
                        client::create_config(tx, write)
                    });
                    *ended.lock() = Some(result.await.is_ok());
                    ledger.note(|| format!("reliable write {write}"));
                });
                self.until(RECOVERY, |_| done.lock().is_some()).await?;
            } else {
                self.step().await?;
            }
            if *done.lock() == Some(true) {
                return Ok(());
            }
            if self.now > end {
                return Err(Violation {
                    invariant: Invariant::AfterHealingWritesSucceed,
                    what: self.disagreement(),
                });
            }
        }
    }

    /// How many members everyone in it agrees that there are; 0 while they do not.
    fn members_known_to_all(&self) -> usize {
        let Some(leader) = self.some_leader().and_then(|id| self.node(id)) else {
            return 0;
        };
        let members = leader.members().borrow().clone();
        let agrees = |id| {
            self.node(id)
                .is_some_and(|node| **node.members().borrow() == *members)
        };
        if members.iter().all(|member| agrees(member.raft_id)) {
            members.len()
        } else {
            0
        }
    }

    /// All members hold the same, and it is what the log adds up to.
    fn all_agree(&self) -> bool {
        let Some(leader) = self.some_leader().and_then(|id| self.node(id)) else {
            return false;
        };
        let members = leader.members().borrow().clone();
        let expected = self.ledger().versions();
        members.iter().all(|member| {
            let known = self
                .node(member.raft_id)
                .is_some_and(|node| **node.members().borrow() == *members);
            known
                && self
                    .store(member.raft_id)
                    .is_some_and(|store| watcher::versions(&store.snapshot()) == expected)
        })
    }

    fn disagreement(&self) -> String {
        let expected = self.ledger().versions().len();
        let mut text = format!("the log has {expected} objects");
        for manager in self.managers.values() {
            let state = match &manager.process {
                _ if manager.left => "left".to_owned(),
                None => "down".to_owned(),
                Some(process) => {
                    let leadership = process.node.leadership().borrow().clone();
                    format!(
                        "{:?} of {:?} in term {}, applied {}, members {:?}, {} objects",
                        leadership.role,
                        leadership.leader,
                        leadership.term,
                        process.node.applied_index(),
                        process
                            .node
                            .members()
                            .borrow()
                            .iter()
                            .map(|m| m.raft_id)
                            .collect::<Vec<_>>(),
                        watcher::versions(&process.store.snapshot()).len(),
                    )
                }
            };
            let _ = write!(text, "; manager {}: {state}", manager.id);
        }
        text
    }

    pub(crate) fn finish(self) -> (u64, Ledger) {
        (self.events, self.shared.ledger)
    }
}

/// What takes too long after healing is not just slow.
fn of_healing(violation: Violation) -> Violation {
    match violation.invariant {
        Invariant::SomethingHappens => Violation {
            invariant: Invariant::AfterHealingWritesSucceed,
            ..violation
        },
        _ => violation,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
