//! What happened, and the invariants that are checked the moment it happens. Shared by everything in
//! one simulated cluster; nothing here changes the outcome of a run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message as _;
use skep_model::TaskState;
use skep_proto::store_action::Target;
use skep_proto::{InternalRaftRequest, StoreAction, StoreActionKind};

/// What must hold in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invariant {
    OneLeaderATerm,
    MembersApplyTheSameLog,
    NoAcknowledgedWriteIsLost,
    ARefusedWriteNeverHappens,
    VersionNeverGoesBack,
    AStaleIndexNeverWins,
    WatchersSeeNoGapAndNoReversal,
    ObservedStateNeverGoesBack,
    ALeaderKnowsAllThatWasAcknowledged,
    AfterHealingAllAgree,
    AfterHealingWritesSucceed,
    /// Every wait of a run has an end.
    SomethingHappens,
    NobodyPanics,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneLeaderATerm => "one leader a term",
            Self::MembersApplyTheSameLog => "members apply the same log",
            Self::NoAcknowledgedWriteIsLost => "no acknowledged write is lost",
            Self::ARefusedWriteNeverHappens => "a refused write never happens",
            Self::VersionNeverGoesBack => "Version.Index never goes back",
            Self::AStaleIndexNeverWins => "a stale index never wins",
            Self::WatchersSeeNoGapAndNoReversal => "watchers see no gap and no reversal",
            Self::ObservedStateNeverGoesBack => "a task's observed state never goes back",
            Self::ALeaderKnowsAllThatWasAcknowledged => "a leader knows all that was acknowledged",
            Self::AfterHealingAllAgree => "after healing all members agree",
            Self::AfterHealingWritesSucceed => "after healing writes succeed",
            Self::SomethingHappens => "something happens",
            Self::NobodyPanics => "nobody panics",
        })
    }
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

/// How a client's write ended, as the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged,
    /// Said to have had no effect.
    Refused,
    /// Leadership was lost or the manager died: may or may not take effect.
    Unknown,
}

/// Marks in labels by which a write is found again.
pub(crate) const WRITE: &str = "sim.write";
/// The version that an update was based on.
pub(crate) const BASED_ON: &str = "sim.based-on";

#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

#[derive(Default)]
pub(crate) struct Book {
    violations: Vec<Violation>,
    leaders: BTreeMap<u64, u64>,
    /// What each index holds, by its hash.
    entries: BTreeMap<u64, u64>,
    /// The state that the log adds up to: object to version.
    versions: HashMap<String, u64>,
    states: HashMap<String, i32>,
    /// Committed writes and their indexes.
    committed: BTreeMap<u64, u64>,
    acknowledged: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    pub(crate) unknown: u64,
    trace: Vec<String>,
    traced: bool,
}

impl Ledger {
    pub(crate) fn traced() -> Self {
        let ledger = Self::default();
        ledger.0.lock().traced = true;
        ledger
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let mut book = self.0.lock();
        if book.traced {
            book.trace.push(what());
        }
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.0.lock().trace.clone()
    }

    pub(crate) fn violate(&self, invariant: Invariant, what: String) {
        self.0.lock().violate(invariant, what);
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.0.lock().violations.first().cloned()
    }

    pub(crate) fn count(&self) -> (usize, usize, u64) {
        let book = self.0.lock();
        (book.acknowledged.len(), book.refused.len(), book.unknown)
    }

    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        self.0.lock().acknowledged.iter().copied().collect()
    }

    /// A member acts as the leader of a term.
    pub(crate) fn leads(&self, term: u64, member: u64) {
        let mut book = self.0.lock();
        let known = *book.leaders.entry(term).or_insert(member);
        if known != member {
            let what = format!("members {known} and {member} lead in term {term}");
            book.violate(Invariant::OneLeaderATerm, what);
        }
    }

    /// A member became the leader that decides on what it sees.
    pub(crate) fn took_over(&self, member: u64, term: u64, applied: u64) {
        let mut book = self.0.lock();
        let newest = book
            .acknowledged
            .iter()
            .filter_map(|write| book.committed.get(write))
            .max();
        if let Some(&newest) = newest
            && newest > applied
        {
            let what = format!(
                "member {member} leads in term {term} having applied {applied}, but {newest} was acknowledged"
            );
            book.violate(Invariant::ALeaderKnowsAllThatWasAcknowledged, what);
        }
    }

    /// A member applies an entry.
    pub(crate) fn applies(&self, member: u64, index: u64, data: &[u8]) {
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        let hash = hasher.finish();
        let mut book = self.0.lock();
        if let Some(known) = book.entries.get(&index) {
            if *known != hash {
                let what = format!("member {member} applies something else at index {index}");
                book.violate(Invariant::MembersApplyTheSameLog, what);
            }
            return;
        }
        if let Some((&last, _)) = book.entries.last_key_value()
            && last > index
        {
            let what = format!("member {member} applies {index}, which nobody else did");
            book.violate(Invariant::MembersApplyTheSameLog, what);
        }
        book.entries.insert(index, hash);
        match InternalRaftRequest::decode(data) {
            Ok(request) => request
                .action
                .iter()
                .for_each(|action| book.enter(index, action)),
            Err(error) => {
                let what = format!("entry {index} is not understood: {error}");
                book.violate(Invariant::MembersApplyTheSameLog, what);
            }
        }
    }

    pub(crate) fn ended(&self, write: u64, outcome: Outcome) {
        let mut book = self.0.lock();
        match outcome {
            Outcome::Acknowledged => {
                book.acknowledged.insert(write);
                if !book.committed.contains_key(&write) {
                    let what = format!("write {write} was acknowledged before it was committed");
                    book.violate(Invariant::NoAcknowledgedWriteIsLost, what);
                }
            }
            Outcome::Refused => {
                book.refused.insert(write);
                if book.committed.contains_key(&write) {
                    let what = format!("write {write} was refused, but is committed");
                    book.violate(Invariant::ARefusedWriteNeverHappens, what);
                }
            }
            Outcome::Unknown => book.unknown += 1,
        }
    }

    /// The version that the log gives each object.
    pub(crate) fn versions(&self) -> BTreeMap<String, u64> {
        let book = self.0.lock();
        book.versions.iter().map(|(k, v)| (k.clone(), *v)).collect()
    }
}

/// What of an object the checks look at.
struct Seen<'a> {
    id: &'a str,
    version: u64,
    labels: Option<&'a BTreeMap<String, String>>,
    state: Option<i32>,
}

fn look(target: &Target) -> Option<Seen<'_>> {
    let version = |meta: &Option<skep_proto::Meta>| {
        let version = meta.as_ref().and_then(|meta| meta.version.as_ref());
        version.map_or(0, |version| version.index)
    };
    Some(match target {
        Target::Service(service) => Seen {
            id: &service.id,
            version: version(&service.meta),
            labels: service
                .spec
                .as_ref()
                .and_then(|spec| Some(&spec.annotations.as_ref()?.labels)),
            state: None,
        },
        Target::Config(config) => Seen {
            id: &config.id,
            version: version(&config.meta),
            labels: config
                .spec
                .as_ref()
                .and_then(|spec| Some(&spec.annotations.as_ref()?.labels)),
            state: None,
        },
        Target::Task(task) => Seen {
            id: &task.id,
            version: version(&task.meta),
            labels: task.annotations.as_ref().map(|a| &a.labels),
            state: Some(task.status.as_ref().map_or(0, |status| status.state)),
        },
        Target::Node(node) => Seen {
            id: &node.id,
            version: version(&node.meta),
            labels: None,
            state: None,
        },
        _ => return None,
    })
}

impl Book {
    fn violate(&mut self, invariant: Invariant, what: String) {
        self.trace.push(format!("VIOLATED {invariant}: {what}"));
        self.violations.push(Violation { invariant, what });
    }

    /// Enters one committed action; the first member to apply it comes here, in the log's order.
    fn enter(&mut self, index: u64, action: &StoreAction) {
        let Some(seen) = action.target.as_ref().and_then(look) else {
            return;
        };
        if action.action() == StoreActionKind::StoreActionRemove {
            self.versions.remove(seen.id);
            self.states.remove(seen.id);
            return;
        }
        let before = self.versions.insert(seen.id.to_owned(), seen.version);
        if seen.version > index || before.is_some_and(|before| before >= seen.version) {
            let what = format!(
                "{} has version {} at index {index}, and had {before:?}",
                seen.id, seen.version
            );
            self.violate(Invariant::VersionNeverGoesBack, what);
        }
        self.check_labels(index, &seen, before);
        if let Some(state) = seen.state {
            let before = self.states.insert(seen.id.to_owned(), state);
            if before.is_some_and(|before| before > state) {
                let name = |state| TaskState::try_from(state).map_or("?", TaskState::as_str);
                let what = format!(
                    "{} is {} at index {index}, and was {}",
                    seen.id,
                    name(state),
                    before.map_or("?", name)
                );
                self.violate(Invariant::ObservedStateNeverGoesBack, what);
            }
        }
    }

    fn check_labels(&mut self, index: u64, seen: &Seen<'_>, before: Option<u64>) {
        let label = |key: &str| seen.labels?.get(key)?.parse::<u64>().ok();
        if let Some(write) = label(WRITE) {
            if self.refused.contains(&write) {
                let what = format!("write {write} was refused, but is at index {index}");
                self.violate(Invariant::ARefusedWriteNeverHappens, what);
            }
            self.committed.entry(write).or_insert(index);
        }
        if let Some(based_on) = label(BASED_ON)
            && before != Some(based_on)
        {
            let what = format!(
                "{} was changed at index {index} by who had seen {based_on}, over {before:?}",
                seen.id
            );
            self.violate(Invariant::AStaleIndexNeverWins, what);
        }
    }
}
