//! Brings the logs of tasks from the nodes that have them to whoever asked.
//!
//! ```text
//!   subscribe_logs ──> subscription ──> listen_subscriptions (of each node concerned)
//!         ^                                       │ agent reads
//!         └────────────── messages <──────── publish_logs
//! ```
//!
//! Logs are never stored here. A subscription that follows ends with its reader; any other when all
//! nodes concerned have said that they are done.

mod subscription;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use skep_model::{NodeId, Object, ObjectKind, Task, id};
use skep_proto as proto;
use skep_store::{Store, WatchError, WatchFilter};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::dispatcher::{Caller, ResponseStream};
use subscription::Subscription;

/// How many messages a subscriber may be behind before the nodes have to wait for it.
const BUFFER: usize = 64;

/// SwarmKit's Logs and LogBroker services. Works on the leader only.
#[derive(Debug)]
pub struct LogBroker {
    store: Store,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Present while this manager leads.
    stopped: Option<CancellationToken>,
    subscriptions: BTreeMap<String, Arc<Subscription>>,
    listeners: BTreeMap<NodeId, Listener>,
    last_listener: u64,
}

/// A connected agent.
#[derive(Debug)]
struct Listener {
    /// Tells this connection from the node's next one.
    number: u64,
    messages: mpsc::UnboundedSender<Result<proto::SubscriptionMessage, Status>>,
}

impl LogBroker {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            state: Mutex::default(),
        }
    }

    /// Serves until `stopped`.
    pub(crate) async fn run(&self, stopped: CancellationToken) {
        self.state.lock().stopped = Some(stopped.clone());
        stopped.cancelled().await;
        *self.state.lock() = State::default();
    }

    fn stopped(&self) -> Result<CancellationToken, Status> {
        let stopped = self.state.lock().stopped.clone();
        stopped.ok_or_else(|| Status::unknown("broker is not running"))
    }

    /// The logs of what the selector names. A stream that ends with an error lacks some of them; the
    /// error says which and why.
    pub fn subscribe_logs(
        self: &Arc<Self>,
        request: proto::SubscribeLogsRequest,
    ) -> Result<ResponseStream<proto::SubscribeLogsMessage>, Status> {
        let selector = request
            .selector
            .ok_or_else(|| Status::invalid_argument("log selector must be provided"))?;
        if selector.service_ids.is_empty()
            && selector.task_ids.is_empty()
            && selector.node_ids.is_empty()
        {
            return Err(Status::invalid_argument("log selector must not be empty"));
        }
        let stopped = self.stopped()?;
        let (output, messages) = mpsc::channel(BUFFER);
        let message = proto::SubscriptionMessage {
            id: id::random_text(),
            selector: Some(selector),
            options: request.options,
            close: false,
        };
        let subscription = Arc::new(Subscription::new(message, output));
        let kinds = WatchFilter::kinds([ObjectKind::Task]);
        let (snapshot, watch) = self.store.snapshot_and_watch(kinds);
        let nodes = subscription.select(&snapshot);
        {
            let mut state = self.state.lock();
            let id = subscription.id().to_owned();
            state.subscriptions.insert(id, Arc::clone(&subscription));
            for node in nodes {
                state.announce(&subscription, &node);
            }
        }
        tokio::spawn(Arc::clone(self).tend(subscription, watch, stopped));
        Ok(ReceiverStream::new(messages).boxed())
    }

    /// Looks after a subscription until it ends.
    async fn tend(
        self: Arc<Self>,
        subscription: Arc<Subscription>,
        mut watch: skep_store::Watch,
        stopped: CancellationToken,
    ) {
        let output = subscription.output().clone();
        loop {
            tokio::select! {
                biased;
                () = stopped.cancelled() => break,
                () = output.closed() => break,
                () = subscription.completed() => {
                    if let Some(error) = subscription.error() {
                        // Whoever asked may be gone.
                        let _ = output.send(Err(Status::unknown(error))).await;
                    }
                    break;
                }
                event = watch.next(), if subscription.follows() => match event {
                    Ok(event) => if let Some(Object::Task(task)) = &event.new {
                        self.consider(&subscription, task);
                    },
                    Err(WatchError::Lagged) => {
                        let snapshot = self.store.snapshot();
                        snapshot.tasks().for_each(|task| self.consider(&subscription, task));
                    }
                    Err(WatchError::Closed) => break,
                },
            }
        }
        self.close(&subscription);
    }

    /// A followed task may have come to a node that was not asked so far.
    fn consider(&self, subscription: &Arc<Subscription>, task: &Task) {
        if let Some(node) = subscription.add(task) {
            self.state.lock().announce(subscription, &node);
        }
    }

    fn close(&self, subscription: &Subscription) {
        let mut state = self.state.lock();
        state.subscriptions.remove(subscription.id());
        let message = proto::SubscriptionMessage {
            close: true,
            ..subscription.message().clone()
        };
        for node in subscription.asked() {
            state.tell(&node, message.clone());
        }
    }

    /// The subscriptions that concern the caller's node: those there are, and then each new one.
    pub async fn listen_subscriptions(
        self: &Arc<Self>,
        caller: &Caller,
        _request: proto::ListenSubscriptionsRequest,
    ) -> Result<ResponseStream<proto::SubscriptionMessage>, Status> {
        let stopped = self.stopped()?;
        let (messages, receiver) = mpsc::unbounded_channel();
        let number = self.state.lock().connect(&caller.node_id, messages.clone());
        let (broker, node) = (Arc::clone(self), caller.node_id.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = messages.closed() => {}
            }
            broker.state.lock().disconnect(&node, number);
        });
        Ok(UnboundedReceiverStream::new(receiver).boxed())
    }

    /// Takes one subscription's logs from the caller's node. Returns when the node is done or the
    /// subscriber is gone.
    pub async fn publish_logs(
        &self,
        caller: &Caller,
        messages: impl Stream<Item = proto::PublishLogsMessage> + Send,
    ) -> Result<proto::PublishLogsResponse, Status> {
        let stopped = self.stopped()?;
        let mut messages = std::pin::pin!(messages);
        let mut current: Option<Arc<Subscription>> = None;
        let result = loop {
            let message = tokio::select! {
                () = stopped.cancelled() => break Err(Status::unknown("broker is not running")),
                message = messages.next() => message,
            };
            let Some(message) = message else { break Ok(()) };
            let subscription = match self.subscription_of(current.as_ref(), &message) {
                Ok(subscription) => Arc::clone(current.insert(subscription)),
                Err(error) => break Err(error),
            };
            if message.close {
                break Ok(());
            }
            if let Err(error) = check_origin(caller, &message) {
                break Err(error);
            }
            let logs = proto::SubscribeLogsMessage {
                messages: message.messages,
            };
            if subscription.output().send(Ok(logs)).await.is_err() {
                // The subscriber is gone.
                break Ok(());
            }
        };
        if let Some(subscription) = current {
            let error = result
                .as_ref()
                .err()
                .map(|error: &Status| error.message().to_owned());
            subscription.done(&caller.node_id, error);
        }
        result.map(|()| proto::PublishLogsResponse {})
    }

    fn subscription_of(
        &self,
        current: Option<&Arc<Subscription>>,
        message: &proto::PublishLogsMessage,
    ) -> Result<Arc<Subscription>, Status> {
        let id = &message.subscription_id;
        if id.is_empty() {
            return Err(Status::invalid_argument("missing subscription ID"));
        }
        match current {
            Some(current) if current.id() == id => Ok(Arc::clone(current)),
            Some(_) => Err(Status::invalid_argument(
                "different subscription IDs in the same session",
            )),
            None => {
                let found = self.state.lock().subscriptions.get(id).cloned();
                found.ok_or_else(|| Status::not_found("unknown subscription ID"))
            }
        }
    }
}

/// A node speaks for itself only.
fn check_origin(caller: &Caller, message: &proto::PublishLogsMessage) -> Result<(), Status> {
    for log in &message.messages {
        let node = log.context.as_ref().map_or("", |context| &context.node_id);
        if caller.node_id != *node {
            return Err(Status::permission_denied(format!(
                "invalid NodeID: expected={};received={node}",
                caller.node_id
            )));
        }
    }
    Ok(())
}

impl State {
    /// Tells a node of a subscription, or notes that it cannot be told.
    fn announce(&mut self, subscription: &Subscription, node: &NodeId) {
        if !self.tell(node, subscription.message().clone()) {
            subscription.done(node, Some(format!("node {node} is not available")));
        }
    }

    fn tell(&mut self, node: &NodeId, message: proto::SubscriptionMessage) -> bool {
        let listener = self.listeners.get(node);
        listener.is_some_and(|listener| listener.messages.send(Ok(message)).is_ok())
    }

    fn connect(
        &mut self,
        node: &NodeId,
        messages: mpsc::UnboundedSender<Result<proto::SubscriptionMessage, Status>>,
    ) -> u64 {
        for subscription in self.subscriptions.values().filter(|s| s.asks(node)) {
            // The other end is held by the caller.
            let _ = messages.send(Ok(subscription.message().clone()));
        }
        self.last_listener += 1;
        let listener = Listener {
            number: self.last_listener,
            messages,
        };
        self.listeners.insert(node.clone(), listener);
        self.last_listener
    }

    fn disconnect(&mut self, node: &NodeId, number: u64) {
        // The node may have come back already.
        if self
            .listeners
            .get(node)
            .is_some_and(|listener| listener.number == number)
        {
            self.listeners.remove(node);
            for subscription in self.subscriptions.values().filter(|s| s.asks(node)) {
                let error = format!("node {node} disconnected unexpectedly");
                subscription.done(node, Some(error));
            }
        }
    }
}
