use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use skep_model::{NodeId, Object, ObjectKind, ServiceId, TaskId};
use tokio::sync::Notify;

/// How many events a subscriber may be behind. Past that it is told so and takes a snapshot, which
/// is cheaper than replaying.
const CAPACITY: usize = 16_384;

/// One object's change, committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The log index that made it. Several events have the same if one transaction made them.
    pub version: u64,
    /// `None`: the object was created.
    pub old: Option<Object>,
    /// `None`: the object was removed.
    pub new: Option<Object>,
}

impl Event {
    /// The object as it is now, or, if it is gone, as it last was.
    pub fn object(&self) -> &Object {
        self.new
            .as_ref()
            .or(self.old.as_ref())
            .expect("an event has at least one side")
    }

    fn selectors(&self) -> HashSet<Selector> {
        let object = self.object();
        let mut selectors = HashSet::from([
            Selector::All,
            Selector::Kind(object.kind()),
            Selector::Object(object.kind(), object.id().into()),
        ]);
        for side in [&self.old, &self.new].into_iter().flatten() {
            if let Object::Task(task) = side {
                selectors.extend(task.service_id.clone().map(Selector::TasksOfService));
                selectors.extend(task.node_id.clone().map(Selector::TasksOnNode));
            }
        }
        selectors
    }
}

/// One thing to be told about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    All,
    Kind(ObjectKind),
    Object(ObjectKind, Arc<str>),
    TasksOfService(ServiceId),
    /// Also tasks that leave the node.
    TasksOnNode(NodeId),
}

/// What a subscriber wants to be told about: whatever any of its selectors selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchFilter(HashSet<Selector>);

impl WatchFilter {
    pub fn all() -> Self {
        Self::from_iter([Selector::All])
    }

    pub fn kinds(kinds: impl IntoIterator<Item = ObjectKind>) -> Self {
        kinds.into_iter().map(Selector::Kind).collect()
    }

    /// The node and its tasks.
    pub fn node(id: &NodeId) -> Self {
        Self::from_iter([
            Selector::Object(ObjectKind::Node, id.as_str().into()),
            Selector::TasksOnNode(id.clone()),
        ])
    }

    /// The service and its tasks.
    pub fn service(id: &ServiceId) -> Self {
        Self::from_iter([
            Selector::Object(ObjectKind::Service, id.as_str().into()),
            Selector::TasksOfService(id.clone()),
        ])
    }

    pub fn task(id: &TaskId) -> Self {
        Self::from_iter([Selector::Object(ObjectKind::Task, id.as_str().into())])
    }

    #[must_use]
    pub fn and(mut self, selector: Selector) -> Self {
        self.0.insert(selector);
        self
    }
}

impl FromIterator<Selector> for WatchFilter {
    fn from_iter<I: IntoIterator<Item = Selector>>(selectors: I) -> Self {
        Self(selectors.into_iter().collect())
    }
}

/// Why there is no next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Events were dropped, because the subscriber was too slow or the whole state was replaced.
    /// Take a snapshot and go on: events after this error are newer than what was dropped, though
    /// some may be in the snapshot already (their version says so).
    #[error("the subscriber fell behind and must take a snapshot")]
    Lagged,
    #[error("the store is closed")]
    Closed,
}

/// A subscription: events in the order of their commits. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    id: u64,
    queue: Arc<Queue>,
    hub: std::sync::Weak<Mutex<Hub>>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    events: VecDeque<Arc<Event>>,
    lagged: bool,
    closed: bool,
}

impl Queue {
    fn push(&self, event: &Arc<Event>) {
        let mut state = self.state.lock();
        if state.events.len() >= CAPACITY {
            state.events.clear();
            state.lagged = true;
        }
        // While it lags, what is missed would only be skipped again.
        if !state.lagged {
            state.events.push_back(Arc::clone(event));
        }
        drop(state);
        self.ready.notify_one();
    }

    fn update(&self, change: impl FnOnce(&mut QueueState)) {
        change(&mut self.state.lock());
        self.ready.notify_one();
    }

    fn pop(&self) -> Option<Result<Arc<Event>, WatchError>> {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.lagged) {
            return Some(Err(WatchError::Lagged));
        }
        if let Some(event) = state.events.pop_front() {
            return Some(Ok(event));
        }
        state.closed.then_some(Err(WatchError::Closed))
    }
}

impl Watch {
    /// The next event. Safe to cancel.
    pub async fn next(&mut self) -> Result<Arc<Event>, WatchError> {
        loop {
            if let Some(next) = self.queue.pop() {
                return next;
            }
            self.queue.ready.notified().await;
        }
    }

    /// The next event if there is one by now.
    pub fn try_next(&mut self) -> Option<Result<Arc<Event>, WatchError>> {
        self.queue.pop()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.lock().unsubscribe(self.id);
        }
    }
}

/// Who is told what: one lookup per property of a change, whatever the number of subscribers.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    last_id: u64,
    queues: HashMap<u64, (Arc<Queue>, WatchFilter)>,
    by_selector: HashMap<Selector, HashSet<u64>>,
    closed: bool,
}

impl Hub {
    pub(crate) fn subscribe(this: &Arc<Mutex<Self>>, hub: &mut Self, filter: WatchFilter) -> Watch {
        hub.last_id += 1;
        let id = hub.last_id;
        for selector in &filter.0 {
            hub.by_selector
                .entry(selector.clone())
                .or_default()
                .insert(id);
        }
        let queue = Arc::new(Queue::default());
        if hub.closed {
            queue.update(|state| state.closed = true);
        }
        hub.queues.insert(id, (Arc::clone(&queue), filter));
        Watch {
            id,
            queue,
            hub: Arc::downgrade(this),
        }
    }

    fn unsubscribe(&mut self, id: u64) {
        let Some((_, filter)) = self.queues.remove(&id) else {
            return;
        };
        for selector in filter.0 {
            if let Some(ids) = self.by_selector.get_mut(&selector) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_selector.remove(&selector);
                }
            }
        }
    }

    pub(crate) fn publish(&self, event: Event) {
        if self.queues.is_empty() {
            return;
        }
        let selectors = event.selectors();
        let event = Arc::new(event);
        let ids: HashSet<u64> = selectors
            .iter()
            .filter_map(|s| self.by_selector.get(s))
            .flatten()
            .copied()
            .collect();
        for id in ids {
            if let Some((queue, _)) = self.queues.get(&id) {
                queue.push(&event);
            }
        }
    }

    /// Tells everyone to start over.
    pub(crate) fn all_lagged(&self) {
        for (queue, _) in self.queues.values() {
            queue.update(|state| {
                state.events.clear();
                state.lagged = true;
            });
        }
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        for (queue, _) in self.queues.values() {
            queue.update(|state| state.closed = true);
        }
    }
}

#[cfg(test)]
mod tests;
