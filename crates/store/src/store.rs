use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use skep_model::proto::store_action::Target;
use skep_model::proto::{StoreAction, StoreActionKind, StoreSnapshot};
use skep_model::{Object, Task, Timestamp};
use tokio::sync::{Semaphore, watch as latest};

use crate::snapshot::{Snapshot, View};
use crate::watch::Hub;
use crate::{
    ApplyError, Epoch, Event, ProposeError, ProposeFuture, Proposer, Stored, Transaction,
    UpdateError, Watch, WatchFilter,
};

/// After this many changes a batch starts another transaction.
pub const MAX_CHANGES_PER_TRANSACTION: usize = 200;

/// The largest transaction that is proposed.
pub const MAX_TRANSACTION_BYTES: usize = 1_572_864;

/// How many transactions may wait for the log at once; past that, writers wait their turn.
const MAX_IN_FLIGHT: usize = 256;

/// The replicated objects. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

pub(crate) struct Inner {
    /// Held while a transaction is validated and handed to the proposer, never across an await.
    writer: Mutex<Writer>,
    committed: RwLock<Snapshot>,
    /// Held while `committed` changes, so that a snapshot and a subscription taken together match.
    hub: Arc<Mutex<Hub>>,
    changed: latest::Sender<u64>,
    proposer: RwLock<Option<Arc<dyn Proposer>>>,
    in_flight: Semaphore,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

#[derive(Default)]
struct Writer {
    /// Present while transactions are in flight.
    tip: Option<Tip>,
}

/// The state as it will be when all that is in flight has committed.
struct Tip {
    epoch: Epoch,
    view: Arc<View>,
    in_flight: usize,
    /// Something in flight failed: nobody may build on this state any more.
    broken: bool,
    /// How the youngest transaction in flight ended.
    youngest: latest::Receiver<Option<Result<(), ProposeError>>>,
    /// Dropped with the tip, which wakes those who wait for a clean start.
    settled: latest::Sender<()>,
}

/// What an attempt to start a transaction comes to.
enum Attempt<T, E> {
    /// It is in flight.
    Proposed(T, Proposal),
    /// There was nothing to write, or the closure refused; it may have seen uncommitted changes.
    Decided(
        Result<T, E>,
        Option<latest::Receiver<Option<Result<(), ProposeError>>>>,
    ),
    Failed(ProposeError),
}

struct Proposal {
    future: ProposeFuture,
    outcome: latest::Sender<Option<Result<(), ProposeError>>>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("version", &self.snapshot().version())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// An empty store that takes writes once a proposer is attached.
    pub fn new() -> Self {
        Self::with_clock(|| Timestamp::from(SystemTime::now()))
    }

    /// As [`Self::new`], but objects are stamped with this clock's time.
    pub fn with_clock(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            writer: Mutex::default(),
            committed: RwLock::default(),
            hub: Arc::default(),
            changed: latest::Sender::new(0),
            proposer: RwLock::default(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            clock: Box::new(clock),
        }))
    }

    /// Where transactions go from now on. Separate from [`Self::new`], because consensus needs the
    /// store to apply to before it can start.
    pub fn attach(&self, proposer: Arc<dyn Proposer>) {
        *self.0.proposer.write() = Some(proposer);
    }

    /// Takes no more writes and ends all subscriptions. Reads still work.
    pub fn close(&self) {
        self.0.proposer.write().take();
        self.0.hub.lock().close();
    }

    #[cfg(any(test, feature = "test-support"))]
    pub(crate) fn downgrade(&self) -> std::sync::Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    #[cfg(any(test, feature = "test-support"))]
    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self(inner)
    }
}

/// Reading.
impl Store {
    /// The committed state. O(1).
    pub fn snapshot(&self) -> Snapshot {
        self.0.committed.read().clone()
    }

    /// Events from now on.
    pub fn watch(&self, filter: WatchFilter) -> Watch {
        self.snapshot_and_watch(filter).1
    }

    /// A snapshot, and exactly the events after it.
    pub fn snapshot_and_watch(&self, filter: WatchFilter) -> (Snapshot, Watch) {
        let mut hub = self.0.hub.lock();
        let watch = Hub::subscribe(&self.0.hub, &mut hub, filter);
        (self.snapshot(), watch)
    }

    /// The version of the committed state, for those who only want to know that something changed.
    pub fn changed(&self) -> latest::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Everything, for a raft snapshot.
    pub fn save(&self) -> StoreSnapshot {
        self.snapshot().save()
    }
}

/// Writing.
impl Store {
    /// Runs a transaction: `f` reads and changes, then everything it changed is committed at once,
    /// or nothing is. Resolves when the changes are visible in [`Self::snapshot`].
    ///
    /// `f` may see changes that are still on their way to the log. They come first in the log, so
    /// this transaction cannot be committed without them; and if `f` refuses or changes nothing
    /// because of them, this waits until they are committed.
    ///
    /// `f` runs under the writers' lock: it must be quick, and must not call the store.
    /// Dropping the future does not stop a transaction that was handed to the log.
    pub async fn update<T, E>(
        &self,
        f: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, UpdateError<E>> {
        let permit = self
            .0
            .in_flight
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let mut f = Some(f);
        let attempt = loop {
            let settled = match self.try_begin(&mut f) {
                Ok(attempt) => break attempt,
                Err(settled) => settled,
            };
            wait_until_dropped(settled).await;
        };
        match attempt {
            Attempt::Failed(error) => Err(error.into()),
            Attempt::Decided(result, None) => result.map_err(UpdateError::Rejected),
            Attempt::Decided(result, Some(mut seen)) => {
                drop(permit);
                outcome_of(&mut seen)
                    .await
                    .map_err(|_| ProposeError::Superseded)?;
                result.map_err(UpdateError::Rejected)
            }
            Attempt::Proposed(value, proposal) => {
                let store = self.clone();
                // On its own task: the writer's count must go down even if our caller gives up.
                let driver = tokio::spawn(async move {
                    let result = proposal.future.await.map(|_| ());
                    store.settle(&result);
                    proposal.outcome.send_replace(Some(result.clone()));
                    result
                });
                driver.await.unwrap_or(Err(ProposeError::LeadershipLost))?;
                Ok(value)
            }
        }
    }

    /// Validates and proposes in one go, or says what to wait for first.
    fn try_begin<T, E, F>(&self, f: &mut Option<F>) -> Result<Attempt<T, E>, latest::Receiver<()>>
    where
        F: FnOnce(&mut Transaction) -> Result<T, E>,
    {
        let proposer = self.0.proposer.read().clone();
        let mut writer = self.0.writer.lock();
        let Some((proposer, epoch)) =
            proposer.and_then(|proposer| proposer.epoch().map(|epoch| (proposer, epoch)))
        else {
            return Ok(Attempt::Failed(ProposeError::NotLeader));
        };
        if let Some(tip) = &writer.tip
            && (tip.broken || tip.epoch != epoch)
        {
            return Err(tip.settled.subscribe());
        }
        let committed = self.snapshot();
        let (base, seen) = match &writer.tip {
            Some(tip) => (Arc::clone(&tip.view), Some(tip.youngest.clone())),
            None => (Arc::clone(&committed.0), None),
        };
        let version = base.version.max(committed.version) + 1;
        let mut transaction = Transaction::new(&base, version, (self.0.clock)());
        let f = f.take().expect("a transaction begins once");
        let value = match f(&mut transaction) {
            Ok(value) if !transaction.is_empty() => value,
            result => return Ok(Attempt::Decided(result, seen)),
        };
        if transaction.bytes() > MAX_TRANSACTION_BYTES {
            let size = transaction.bytes();
            return Ok(Attempt::Failed(ProposeError::TooLarge { size }));
        }
        let (view, actions) = transaction.finish();
        let (outcome, youngest) = latest::channel(None);
        let future = proposer.propose(epoch, actions);
        writer.advance(epoch, view, youngest);
        Ok(Attempt::Proposed(value, Proposal { future, outcome }))
    }

    fn settle(&self, result: &Result<(), ProposeError>) {
        let mut writer = self.0.writer.lock();
        let Some(tip) = &mut writer.tip else { return };
        tip.in_flight -= 1;
        tip.broken |= result.is_err();
        if tip.in_flight == 0 {
            writer.tip = None;
        }
    }
}

impl Writer {
    fn advance(
        &mut self,
        epoch: Epoch,
        view: View,
        youngest: latest::Receiver<Option<Result<(), ProposeError>>>,
    ) {
        let view = Arc::new(view);
        if let Some(tip) = &mut self.tip {
            tip.view = view;
            tip.youngest = youngest;
            tip.in_flight += 1;
        } else {
            let settled = latest::Sender::new(());
            self.tip = Some(Tip {
                epoch,
                view,
                in_flight: 1,
                broken: false,
                youngest,
                settled,
            });
        }
    }
}

async fn wait_until_dropped(mut settled: latest::Receiver<()>) {
    while settled.changed().await.is_ok() {}
}

async fn outcome_of(
    seen: &mut latest::Receiver<Option<Result<(), ProposeError>>>,
) -> Result<(), ProposeError> {
    match seen.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
        Err(_) => Err(ProposeError::LeadershipLost),
    }
}

/// What consensus calls.
impl Store {
    /// Applies a committed entry. On an error nothing of it was applied, and this manager must not
    /// go on.
    pub fn apply(&self, actions: &[StoreAction], version: u64) -> Result<(), ApplyError> {
        let hub = self.0.hub.lock();
        let mut view = (*self.snapshot().0).clone();
        view.version = version;
        let mut events = Vec::with_capacity(actions.len());
        for action in actions {
            apply_one(&mut view, action, version, &mut events)?;
        }
        *self.0.committed.write() = Snapshot(Arc::new(view));
        for event in events {
            hub.publish(event);
        }
        self.0.changed.send_replace(version);
        Ok(())
    }

    /// Replaces everything, as a raft snapshot demands. Every subscriber is told to start over.
    pub fn restore(&self, snapshot: StoreSnapshot, version: u64) -> Result<(), ApplyError> {
        let view = View::restore(snapshot, version)?;
        let hub = self.0.hub.lock();
        *self.0.committed.write() = Snapshot(Arc::new(view));
        hub.all_lagged();
        self.0.changed.send_replace(version);
        Ok(())
    }
}

fn apply_one(
    view: &mut View,
    action: &StoreAction,
    version: u64,
    events: &mut Vec<Event>,
) -> Result<(), ApplyError> {
    let kind = StoreActionKind::try_from(action.action)
        .map_err(|_| ApplyError::UnknownAction(action.action))?;
    let event = match action.target.as_ref().ok_or(ApplyError::NoTarget)? {
        Target::Task(task) if kind == StoreActionKind::StoreActionRemove => {
            remove::<Task>(view, &task.id)
        }
        Target::Task(task) => put(view, kind, Task::try_from(task.clone())?)?,
        Target::Node(node) => put_or_remove(view, kind, node)?,
        Target::Service(service) => put_or_remove(view, kind, service)?,
        Target::Network(network) => put_or_remove(view, kind, network)?,
        Target::Cluster(cluster) => put_or_remove(view, kind, cluster)?,
        Target::Secret(secret) => put_or_remove(view, kind, secret)?,
        Target::Config(config) => put_or_remove(view, kind, config)?,
        Target::Volume(volume) => put_or_remove(view, kind, volume)?,
        Target::Resource(resource) => put_or_remove(view, kind, resource)?,
        Target::Extension(extension) => put_or_remove(view, kind, extension)?,
    };
    if let Some((old, new)) = event {
        events.push(Event { version, old, new });
    }
    Ok(())
}

type Sides = Option<(Option<Object>, Option<Object>)>;

fn put_or_remove<T: Stored>(
    view: &mut View,
    kind: StoreActionKind,
    object: &T,
) -> Result<Sides, ApplyError> {
    match kind {
        StoreActionKind::StoreActionRemove => Ok(remove::<T>(view, object.id())),
        _ => put(view, kind, object.clone()),
    }
}

/// An entry was validated before it was proposed, so creating and updating both just put: whether the
/// object was there is no longer a question.
fn put<T: Stored>(view: &mut View, kind: StoreActionKind, object: T) -> Result<Sides, ApplyError> {
    match kind {
        StoreActionKind::StoreActionCreate | StoreActionKind::StoreActionUpdate => {
            let (old, new) = view.insert(Arc::new(object));
            Ok(Some((old.map(T::into_object), Some(new.into_object()))))
        }
        StoreActionKind::Unknown | StoreActionKind::StoreActionRemove => Err(kind.into()),
    }
}

fn remove<T: Stored>(view: &mut View, id: &str) -> Sides {
    let old = view.remove::<T>(id)?;
    Some((Some(old.into_object()), None))
}

#[cfg(test)]
mod tests;
