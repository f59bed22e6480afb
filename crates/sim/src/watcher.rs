//! A subscriber on each manager that keeps its own copy by events alone.

use std::collections::BTreeMap;

use skep_model::Object;
use skep_store::{Event, Store, View, Watch, WatchError, WatchFilter};

use crate::ledger::{Invariant, Ledger};

pub(crate) struct Watcher {
    member: u64,
    watch: Watch,
    /// Object to version.
    copy: BTreeMap<String, u64>,
    newest: u64,
    ledger: Ledger,
    /// How many events it has been told of, if some are to be kept from it.
    forgetful: Option<u64>,
}

fn entry(object: &Object) -> (String, u64) {
    (object.id().to_owned(), object.meta().version.0)
}

/// All objects of a view and their versions.
pub(crate) fn versions(view: &View) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for node in view.nodes() {
        all.extend([entry(&Object::Node(node.clone()))]);
    }
    for service in view.services() {
        all.extend([entry(&Object::Service(service.clone()))]);
    }
    for task in view.tasks() {
        all.extend([entry(&Object::Task(task.clone()))]);
    }
    for config in view.all::<skep_proto::Config>() {
        all.extend([entry(&Object::Config(config.clone()))]);
    }
    all
}

impl Watcher {
    pub(crate) fn new(member: u64, store: &Store, ledger: Ledger) -> Self {
        let (snapshot, watch) = store.snapshot_and_watch(WatchFilter::all());
        Self {
            member,
            watch,
            copy: versions(&snapshot),
            newest: snapshot.version(),
            ledger,
            forgetful: None,
        }
    }

    /// One that misses an event now and then, to see that it is noticed.
    pub(crate) fn forgetful(self) -> Self {
        Self {
            forgetful: Some(0),
            ..self
        }
    }

    /// Takes all events there are.
    pub(crate) fn look(&mut self, store: &Store) {
        while let Some(next) = self.watch.try_next() {
            match next {
                Ok(event) => {
                    if !self.forgets() {
                        self.take(&event);
                    }
                }
                Err(WatchError::Lagged) => {
                    *self = Self::new(self.member, store, self.ledger.clone());
                }
                Err(WatchError::Closed) => return,
            }
        }
    }

    /// Its copy has to be what the store holds.
    pub(crate) fn compare(&self, store: &Store) {
        let held = versions(&store.snapshot());
        if held != self.copy {
            let what = format!(
                "a watcher of member {} has {:?}, the store {held:?}",
                self.member, self.copy
            );
            self.wrong(what);
        }
    }

    fn forgets(&mut self) -> bool {
        let Some(count) = &mut self.forgetful else {
            return false;
        };
        *count += 1;
        count.is_multiple_of(20)
    }

    fn take(&mut self, event: &Event) {
        let (id, _) = entry(event.object());
        if event.version < self.newest {
            self.wrong(format!("event {} after {}", event.version, self.newest));
        }
        self.newest = event.version;
        let version = |object: &Object| object.meta().version.0;
        let before = match &event.new {
            Some(new) => self.copy.insert(id.clone(), version(new)),
            None => self.copy.remove(&id),
        };
        if before != event.old.as_ref().map(version) {
            self.wrong(format!(
                "{id} was {before:?} to a watcher of member {}, and {:?} to the event",
                self.member,
                event.old.as_ref().map(version)
            ));
        }
    }

    fn wrong(&self, what: String) {
        self.ledger
            .violate(Invariant::WatchersSeeNoGapAndNoReversal, what);
    }
}
