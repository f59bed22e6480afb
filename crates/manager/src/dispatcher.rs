//! The Dispatcher service: nodes' sessions and heartbeats, the tasks each node is to run, and what
//! becomes of them.
//!
//! It serves on the leader only; elsewhere, and after a loss of leadership, every call is refused
//! and every stream ends, so that agents look for the leader.

mod assignments;
mod node_state;
mod sessions;
mod writer;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use skep_model::defaults;
use skep_model::ext::{ClusterExt as _, ClusterSpecExt as _};
use skep_model::{NodeId, ObjectKind, Task};
use skep_proto as proto;
use skep_store::{Selector, Snapshot, Store, WatchError, WatchFilter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::members::{Members, weighted_peers};
use assignments::AssignmentSet;
use sessions::{Rhythm, Session, Sessions};
use writer::Update;

/// Who is calling, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub node_id: NodeId,
    /// Where it calls from; `None` within one process.
    pub addr: Option<IpAddr>,
}

pub type ResponseStream<T> = BoxStream<'static, Result<T, Status>>;

/// What a user asks for may be anything; deadlines must stay computable.
const MAX_HEARTBEAT_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// How many messages a stream may be ahead of its reader.
const STREAM_BUFFER: usize = 8;

pub struct Dispatcher {
    store: Store,
    node_id: NodeId,
    members: Members,
    /// Present while this manager leads.
    running: Mutex<Option<Running>>,
}

/// One term of leading.
#[derive(Clone)]
struct Running {
    sessions: Arc<Sessions>,
    updates: mpsc::UnboundedSender<Update>,
    stopped: CancellationToken,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

impl Dispatcher {
    pub(crate) fn new(store: Store, node_id: NodeId, members: Members) -> Self {
        Self {
            store,
            node_id,
            members,
            running: Mutex::new(None),
        }
    }

    /// Serves until `stopped`. To be called when this manager has become the leader.
    pub(crate) async fn run(&self, stopped: CancellationToken) {
        let (updates, queue) = mpsc::unbounded_channel();
        let sessions = Arc::new(Sessions::default());
        let running = Running {
            sessions: Arc::clone(&sessions),
            updates,
            stopped: stopped.clone(),
        };
        node_state::expect_all(&self.store, &sessions, self.rhythm());
        // Before anyone can register: what comes later in the queue overrides.
        node_state::mark_unknown(&running.updates, &self.store.snapshot());
        *self.running.lock() = Some(running.clone());
        let write = writer::run(self.store.clone(), self.node_id.clone(), queue);
        let expire = node_state::expire(&sessions, &running.updates);
        tokio::select! {
            () = stopped.cancelled() => {}
            () = write => {}
            () = expire => {}
        }
        *self.running.lock() = None;
        // Streams hold clones of the token; a term that ended otherwise must end them too.
        stopped.cancel();
    }

    fn running(&self) -> Result<Running, Status> {
        let running = self.running.lock().clone();
        running
            .filter(|running| !running.stopped.is_cancelled())
            .ok_or_else(|| Status::aborted("dispatcher is stopped"))
    }

    fn rhythm(&self) -> Rhythm {
        let snapshot = self.store.snapshot();
        let spec = snapshot
            .the_cluster()
            .map(|cluster| *cluster.spec().dispatcher());
        let period = spec
            .and_then(|spec| spec.heartbeat_period)
            .and_then(|period| defaults::duration_from_wire(&period))
            .filter(|period| !period.is_zero())
            .unwrap_or(defaults::HEARTBEAT_PERIOD)
            .min(MAX_HEARTBEAT_PERIOD);
        Rhythm::new(period)
    }

    /// Registers the node, or goes on with the session it names, and tells it what every node must
    /// know, again whenever that changes.
    pub async fn session(
        &self,
        caller: &Caller,
        request: proto::SessionRequest,
    ) -> Result<ResponseStream<proto::SessionMessage>, Status> {
        let running = self.running()?;
        let known = running
            .sessions
            .get(&caller.node_id, &request.session_id)
            .is_ok();
        if !known {
            running.sessions.check_rate(&caller.node_id)?;
        }
        if self.store.snapshot().node(&caller.node_id).is_none() {
            return Err(Status::unknown("node not found"));
        }
        // The session first: a deadline that passes between the two would mark the node as down
        // after it was marked as ready.
        let session = if known {
            let session = running.sessions.get(&caller.node_id, &request.session_id)?;
            running.sessions.beat(&session, self.rhythm());
            session
        } else {
            running.sessions.register(&caller.node_id, self.rhythm())
        };
        self.mark_ready(&running, caller, request.description)
            .await?;
        let messages = SessionMessages::new(self, &session);
        tracing::info!(node.id = %caller.node_id, "node registered");
        Ok(stream(session, running.stopped, messages))
    }

    /// Returns once the node is READY in the store, with its description.
    async fn mark_ready(
        &self,
        running: &Running,
        caller: &Caller,
        description: Option<proto::NodeDescription>,
    ) -> Result<(), Status> {
        let (update, written) =
            Update::node_ready(caller.node_id.clone(), description, caller.addr);
        let stopped = || Status::aborted("dispatcher is stopped");
        running.updates.send(update).map_err(|_| stopped())?;
        tokio::select! {
            written = written => written.map_err(|_| stopped())?,
            () = running.stopped.cancelled() => Err(stopped()),
        }
    }

    pub async fn heartbeat(
        &self,
        caller: &Caller,
        request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Status> {
        let running = self.running()?;
        let sessions = &running.sessions;
        let session = sessions.get(&caller.node_id, &request.session_id)?;
        let period = sessions.beat(&session, self.rhythm());
        Ok(proto::HeartbeatResponse {
            period: Some(defaults::wire_duration(period)),
        })
    }

    /// Takes note of what became of tasks. Acknowledged before it is committed: an agent that hears
    /// of a new leader reports everything again.
    pub async fn update_task_status(
        &self,
        caller: &Caller,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<proto::UpdateTaskStatusResponse, Status> {
        let running = self.running()?;
        running.sessions.get(&caller.node_id, &request.session_id)?;
        let snapshot = self.store.snapshot();
        let mut updates = Vec::with_capacity(request.updates.len());
        for update in request.updates {
            let Some(status) = update.status else {
                continue;
            };
            // A task that is no longer known was removed meanwhile.
            let Some(task) = snapshot.get::<Task>(&update.task_id) else {
                continue;
            };
            if task.node_id.as_ref() != Some(&caller.node_id) {
                let message = "cannot update a task not assigned this node";
                return Err(Status::permission_denied(message));
            }
            let status = skep_model::TaskStatus::try_from(status)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            updates.push(Update::TaskStatus {
                task: task.id.clone(),
                status,
            });
        }
        for update in updates {
            let stopped = |_| Status::aborted("dispatcher is stopped");
            running.updates.send(update).map_err(stopped)?;
        }
        Ok(proto::UpdateTaskStatusResponse {})
    }

    /// The tasks of the caller's node with the secrets and configs they use: first all of them, then
    /// what changes.
    pub async fn assignments(
        &self,
        caller: &Caller,
        request: proto::AssignmentsRequest,
    ) -> Result<ResponseStream<proto::AssignmentsMessage>, Status> {
        let running = self.running()?;
        let session = running.sessions.get(&caller.node_id, &request.session_id)?;
        let messages = AssignmentMessages::new(&self.store, caller.node_id.clone());
        Ok(stream(session, running.stopped, messages))
    }

    /// The endpoint feed for the caller's node. Any manager has it: what it tells is committed.
    pub fn endpoints(&self, caller: &Caller) -> ResponseStream<proto::feed::EndpointUpdate> {
        crate::endpoints::watch(&self.store, caller.node_id.clone())
    }
}

/// Where a stream's messages come from.
trait Messages: Send + 'static {
    type Message: Send + 'static;

    /// The next message; `None` when there will be no more. Need not be safe to cancel.
    fn next(&mut self) -> impl Future<Output = Option<Self::Message>> + Send;
}

/// Sends messages until the session ends, the dispatcher stops, or nobody listens any more.
fn stream<M: Messages>(
    session: Arc<Session>,
    stopped: CancellationToken,
    mut messages: M,
) -> ResponseStream<M::Message> {
    let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
    tokio::spawn(async move {
        let error = loop {
            let message = tokio::select! {
                biased;
                () = stopped.cancelled() => break Status::aborted("dispatcher is stopped"),
                () = session.ended() => break Status::invalid_argument("session invalid"),
                () = sender.closed() => return,
                message = messages.next() => message,
            };
            let Some(message) = message else {
                break Status::aborted("dispatcher is stopped");
            };
            if sender.send(Ok(message)).await.is_err() {
                return;
            }
        };
        // Nobody may be listening any more, which is as well.
        let _ = sender.send(Err(error)).await;
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver).boxed()
}

/// What a node is told of its session.
struct SessionMessages {
    store: Store,
    members: Members,
    /// Until the one who knows them is gone.
    members_may_change: bool,
    session: Arc<Session>,
    watch: skep_store::Watch,
    last: Option<proto::SessionMessage>,
}

impl SessionMessages {
    fn new(dispatcher: &Dispatcher, session: &Arc<Session>) -> Self {
        let node = &session.node_id;
        let filter = WatchFilter::from_iter([
            Selector::Object(ObjectKind::Node, node.as_str().into()),
            Selector::Kind(ObjectKind::Cluster),
        ]);
        Self {
            store: dispatcher.store.clone(),
            members: dispatcher.members.clone(),
            members_may_change: true,
            session: Arc::clone(session),
            watch: dispatcher.store.watch(filter),
            last: None,
        }
    }

    fn message(&mut self) -> Option<proto::SessionMessage> {
        let snapshot = self.store.snapshot();
        let node = snapshot.node(&self.session.node_id)?;
        let cluster = snapshot.the_cluster();
        let keys = cluster.map(|cluster| cluster.network_bootstrap_keys.clone());
        Some(proto::SessionMessage {
            session_id: self.session.id.clone(),
            node: Some((**node).clone()),
            managers: weighted_peers(&self.members.borrow_and_update()),
            network_bootstrap_keys: keys.unwrap_or_default(),
            root_ca: cluster
                .map(|c| c.root_ca().ca_cert.clone())
                .unwrap_or_default(),
        })
    }
}

impl Messages for SessionMessages {
    type Message = proto::SessionMessage;

    async fn next(&mut self) -> Option<proto::SessionMessage> {
        loop {
            let message = self.message()?;
            if self.last.as_ref() != Some(&message) {
                self.last = Some(message.clone());
                return Some(message);
            }
            tokio::select! {
                event = self.watch.next() => match event {
                    Ok(_) | Err(WatchError::Lagged) => {}
                    Err(WatchError::Closed) => return None,
                },
                changed = self.members.changed(), if self.members_may_change => {
                    self.members_may_change = changed.is_ok();
                }
            }
        }
    }
}

/// What a node is to run.
struct AssignmentMessages {
    store: Store,
    node: NodeId,
    watch: Option<skep_store::Watch>,
    set: AssignmentSet,
    sequence: u64,
}

impl AssignmentMessages {
    fn new(store: &Store, node: NodeId) -> Self {
        let set = AssignmentSet::default();
        Self {
            store: store.clone(),
            node,
            watch: None,
            set,
            sequence: 0,
        }
    }

    /// Starts over with everything: at first, and when events were missed.
    fn complete(&mut self) -> proto::AssignmentsMessage {
        let filter = WatchFilter::from_iter([Selector::TasksOnNode(self.node.clone())]);
        let (snapshot, watch) = self.store.snapshot_and_watch(filter);
        self.watch = Some(watch);
        self.set = AssignmentSet::default();
        for task in snapshot.tasks_on_node(&self.node) {
            self.set.put(&snapshot, task);
        }
        self.message(proto::assignments_message::Type::Complete)
    }

    fn message(&mut self, kind: proto::assignments_message::Type) -> proto::AssignmentsMessage {
        let applies_to = match self.sequence {
            0 => String::new(),
            last => last.to_string(),
        };
        self.sequence += 1;
        proto::AssignmentsMessage {
            r#type: kind.into(),
            applies_to,
            results_in: self.sequence.to_string(),
            changes: self.set.take_changes(),
        }
    }

    fn apply(&mut self, snapshot: &Snapshot, event: &skep_store::Event) {
        let task = |object: &Option<skep_model::Object>| match object {
            Some(skep_model::Object::Task(task)) => Some(Arc::clone(task)),
            _ => None,
        };
        let on_node = |task: &Arc<Task>| task.node_id.as_ref() == Some(&self.node);
        match task(&event.new).filter(on_node) {
            Some(task) => self.set.put(snapshot, &task),
            None => {
                if let Some(task) = task(&event.old) {
                    self.set.remove(&task);
                }
            }
        }
    }
}

impl Messages for AssignmentMessages {
    type Message = proto::AssignmentsMessage;

    async fn next(&mut self) -> Option<proto::AssignmentsMessage> {
        loop {
            let Some(watch) = &mut self.watch else {
                return Some(self.complete());
            };
            let mut next = Some(watch.next().await);
            let snapshot = self.store.snapshot();
            // Whatever has come by now goes into one message.
            while let Some(event) = next {
                match event {
                    Ok(event) => self.apply(&snapshot, &event),
                    Err(WatchError::Lagged) => return Some(self.complete()),
                    Err(WatchError::Closed) => return None,
                }
                next = self.watch.as_mut().and_then(skep_store::Watch::try_next);
            }
            if self.set.has_changes() {
                return Some(self.message(proto::assignments_message::Type::Incremental));
            }
        }
    }
}
