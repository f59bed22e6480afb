//! The endpoint feed: what a node needs to know of the networks it has tasks on.
//!
//! Made of committed state only, so every node that has seen the same version knows the same. What
//! is sent is the difference to what was sent before; whoever begins anew gets everything.

mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use futures::stream;
use skep_model::{NodeId, Object, ObjectKind, Task};
use skep_proto::feed;
use skep_store::{Event, Snapshot, Store, Watch, WatchError, WatchFilter};
use tonic::Status;

use crate::ResponseStream;
use view::networks_of;

/// Updates for one node, from everything on. Ends when events were missed: the node asks again.
pub(crate) fn watch(store: &Store, node: NodeId) -> ResponseStream<feed::EndpointUpdate> {
    let kinds = [
        ObjectKind::Network,
        ObjectKind::Service,
        ObjectKind::Task,
        ObjectKind::Node,
    ];
    let (snapshot, watch) = store.snapshot_and_watch(WatchFilter::kinds(kinds));
    let feed = Feed {
        store: store.clone(),
        node,
        watch,
        sent: None,
        first: Some(snapshot),
    };
    Box::pin(stream::unfold(feed, |mut feed| async move {
        let update = feed.next().await?;
        Some((update, feed))
    }))
}

struct Feed {
    store: Store,
    node: NodeId,
    watch: Watch,
    /// `None` until the first update.
    sent: Option<BTreeMap<String, feed::NetworkState>>,
    first: Option<Snapshot>,
}

impl Feed {
    async fn next(&mut self) -> Option<Result<feed::EndpointUpdate, Status>> {
        loop {
            let snapshot = match self.first.take() {
                Some(snapshot) => snapshot,
                None => match self.changed().await {
                    Ok(()) => self.store.snapshot(),
                    Err(WatchError::Lagged) => {
                        return Some(Err(Status::aborted("events were missed")));
                    }
                    Err(WatchError::Closed) => return None,
                },
            };
            let now = networks_of(&snapshot, &self.node);
            let update = difference(self.sent.as_ref(), &now, snapshot.version());
            self.sent = Some(now);
            if let Some(update) = update {
                return Some(Ok(update));
            }
        }
    }

    /// Waits for a change that can matter, and takes all that have come by then.
    async fn changed(&mut self) -> Result<(), WatchError> {
        let mut matters = false;
        while !matters {
            let event = self.watch.next().await?;
            matters = concerns(&event);
        }
        while let Some(event) = self.watch.try_next() {
            event?;
        }
        Ok(())
    }
}

/// Most events are steps of tasks that have no networks.
fn concerns(event: &Event) -> bool {
    let has_networks = |task: &Task| !task.networks.is_empty();
    match (&event.old, &event.new) {
        (Some(Object::Node(old)), Some(Object::Node(new))) => {
            old.attachments != new.attachments
                || old
                    .status
                    .as_ref()
                    .map(|status| (&status.addr, status.state))
                    != new
                        .status
                        .as_ref()
                        .map(|status| (&status.addr, status.state))
        }
        (_, Some(Object::Task(task))) | (Some(Object::Task(task)), None) => has_networks(task),
        _ => true,
    }
}

/// `None`: nothing to tell.
fn difference(
    sent: Option<&BTreeMap<String, feed::NetworkState>>,
    now: &BTreeMap<String, feed::NetworkState>,
    version: u64,
) -> Option<feed::EndpointUpdate> {
    let Some(sent) = sent else {
        return Some(feed::EndpointUpdate {
            version,
            reset: true,
            networks: now.values().cloned().collect(),
            gone: Vec::new(),
        });
    };
    let changed = now
        .iter()
        .filter(|(id, state)| sent.get(*id) != Some(*state));
    let networks: Vec<_> = changed.map(|(_, state)| state.clone()).collect();
    let gone: Vec<_> = sent
        .keys()
        .filter(|id| !now.contains_key(*id))
        .cloned()
        .collect();
    (!networks.is_empty() || !gone.is_empty()).then_some(feed::EndpointUpdate {
        version,
        reset: false,
        networks,
        gone,
    })
}
