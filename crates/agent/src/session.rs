//! One registration with a manager, from the first message to the first failure.

use crate::agent::{AgentState, Shared};
use crate::assignments::{Assignments, Sequence};
use crate::{Executor, log_subscription};
use futures::StreamExt as _;
use skep_proto as proto;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// SwarmKit's limit for a call to the dispatcher.
const CALL: Duration = Duration::from_secs(5);
/// How often the node is described anew.
const DESCRIBE: Duration = Duration::from_secs(20);
/// Between attempts to configure the node as the managers say.
const CONFIGURE: Duration = Duration::from_secs(5);
/// Least time between two status reports: what changes within it goes into one. The first change
/// after a quiet time goes at once.
const REPORT_PACE: Duration = Duration::from_millis(5);
/// Statuses in one report, as SwarmKit's agents send at most.
const REPORT_SIZE: usize = 1024;

/// Why a session ended. There is no good end: the agent begins the next one.
pub(crate) struct SessionEnd {
    /// To go on with the same session, if the manager still knows it.
    pub(crate) session_id: String,
    /// The session came about before it ended.
    pub(crate) was_registered: bool,
    pub(crate) status: Status,
}

pub(crate) struct Session<'a> {
    shared: &'a Shared,
    id: String,
}

/// The node as the managers see it, and whether the executor has it so. Outlives sessions.
#[derive(Default)]
pub(crate) struct Configuration {
    wanted: Option<proto::Node>,
    applied: bool,
}

impl Configuration {
    fn want(&mut self, node: &proto::Node) {
        let essence = essence(node);
        if self.wanted.as_ref().map(self::essence) != Some(essence) {
            self.wanted = Some(node.clone());
            self.applied = false;
        }
    }

    async fn apply(&mut self, executor: &dyn Executor) {
        let Some(node) = self.wanted.as_ref().filter(|_| !self.applied) else {
            return;
        };
        match executor.configure(node).await {
            Ok(()) => self.applied = true,
            Err(error) => tracing::error!(%error, "cannot configure the node"),
        }
    }
}

/// The parts of a session run until one fails.
enum Never {}

impl<'a> Session<'a> {
    pub(crate) async fn run(shared: &'a Shared, previous: &str) -> SessionEnd {
        let mut session = Self {
            shared,
            id: previous.to_owned(),
        };
        let mut was_registered = false;
        let status = match session.register().await {
            Ok((description, messages)) => {
                was_registered = true;
                let Err(status) = session.serve(description, messages).await;
                status
            }
            Err(status) => status,
        };
        SessionEnd {
            session_id: session.id,
            was_registered,
            status,
        }
    }

    async fn register(
        &mut self,
    ) -> Result<
        (
            proto::NodeDescription,
            crate::ResponseStream<proto::SessionMessage>,
        ),
        Status,
    > {
        let description = self.describe().await?;
        let request = proto::SessionRequest {
            description: Some(description.clone()),
            session_id: self.id.clone(),
        };
        let begin = async {
            let mut messages = self.shared.dispatcher.session(request).await?;
            let first = messages
                .next()
                .await
                .unwrap_or_else(|| Err(closed("session")))?;
            Ok::<_, Status>((messages, first))
        };
        let (messages, first) = timeout(CALL, begin)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("session initiation timed out")))?;
        self.id.clone_from(&first.session_id);
        self.take_message(first).await;
        self.shared.state.send_modify(|state| {
            state.registered = true;
            state.last_error = None;
        });
        self.shared.worker.board().report_all_again();
        tracing::info!(node.id = %self.shared.node_id, "registered with a manager");
        Ok((description, messages))
    }

    async fn serve(
        &self,
        description: proto::NodeDescription,
        messages: crate::ResponseStream<proto::SessionMessage>,
    ) -> Result<Never, Status> {
        tokio::select! {
            end = self.heartbeat() => end,
            end = self.listen(messages) => end,
            end = self.configure_again() => end,
            end = self.watch_assignments() => end,
            end = self.report() => end,
            end = self.watch_subscriptions() => end,
            end = self.watch_description(description) => end,
        }
    }

    async fn heartbeat(&self) -> Result<Never, Status> {
        loop {
            let request = proto::HeartbeatRequest {
                session_id: self.id.clone(),
            };
            let answer = timeout(CALL, self.shared.dispatcher.heartbeat(request))
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("heartbeat timed out")))?;
            let period = answer
                .period
                .and_then(|period| Duration::try_from(period).ok());
            sleep(period.filter(|period| !period.is_zero()).unwrap_or(CALL)).await;
        }
    }

    async fn listen(
        &self,
        mut messages: crate::ResponseStream<proto::SessionMessage>,
    ) -> Result<Never, Status> {
        loop {
            let message = messages
                .next()
                .await
                .unwrap_or_else(|| Err(closed("session")))?;
            self.take_message(message).await;
        }
    }

    async fn take_message(&self, message: proto::SessionMessage) {
        let message = Arc::new(message);
        let before = self.shared.state.borrow().message.clone();
        let executor = &self.shared.executor;
        if let Some(node) = &message.node {
            let mut configuration = self.shared.configuration.lock().await;
            configuration.want(node);
            configuration.apply(&**executor).await;
        }
        let keys = &message.network_bootstrap_keys;
        let known = before.as_ref().map(|before| &before.network_bootstrap_keys);
        if !keys.is_empty()
            && known != Some(keys)
            && let Err(error) = executor.set_network_bootstrap_keys(keys).await
        {
            tracing::error!(%error, "cannot set the network keys");
        }
        self.shared
            .state
            .send_modify(|state: &mut AgentState| state.message = Some(message));
    }

    /// What could not be done may work later, without another word from the managers.
    async fn configure_again(&self) -> Result<Never, Status> {
        loop {
            sleep(CONFIGURE).await;
            let mut configuration = self.shared.configuration.lock().await;
            configuration.apply(&*self.shared.executor).await;
        }
    }

    async fn watch_assignments(&self) -> Result<Never, Status> {
        loop {
            let request = proto::AssignmentsRequest {
                session_id: self.id.clone(),
            };
            let mut stream = self.shared.dispatcher.assignments(request).await?;
            let mut sequence = Sequence::default();
            loop {
                let message = stream
                    .next()
                    .await
                    .unwrap_or_else(|| Err(closed("assignments")))?;
                if !sequence.follows(&message) {
                    tracing::warn!("missed an assignment, asking for all of them");
                    break;
                }
                if !self.shared.leaving.is_cancelled() {
                    self.shared
                        .worker
                        .assign(Assignments::from_message(message));
                }
            }
        }
    }

    async fn report(&self) -> Result<Never, Status> {
        let board = self.shared.worker.board();
        let mut next = Instant::now();
        loop {
            board.unreported().await;
            sleep_until(next).await;
            let batch = board.take(REPORT_SIZE);
            let updates = batch.iter().map(|(task, status)| {
                proto::update_task_status_request::TaskStatusUpdate {
                    task_id: task.into(),
                    status: Some(status.into()),
                }
            });
            let request = proto::UpdateTaskStatusRequest {
                session_id: self.id.clone(),
                updates: updates.collect(),
            };
            // Should this session end before the answer, the next one reports everything again.
            if let Err(status) = self.shared.dispatcher.update_task_status(request).await {
                board.give_back(batch.into_iter().map(|(task, _)| task));
                return Err(status);
            }
            next = Instant::now() + REPORT_PACE;
        }
    }

    /// Ends the session when the node is no longer as described, so that the next one says how it is.
    async fn watch_description(&self, registered: proto::NodeDescription) -> Result<Never, Status> {
        let mut often = interval_at(Instant::now() + DESCRIBE, DESCRIBE);
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tls = self.shared.tls_info.subscribe();
        loop {
            tokio::select! {
                _ = often.tick() => {}
                _ = tls.changed() => {}
            }
            match self.describe().await {
                Ok(description) if description != registered => {
                    return Err(Status::aborted("the node's description changed"));
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "the node's description is unavailable"),
            }
        }
    }

    async fn describe(&self) -> Result<proto::NodeDescription, Status> {
        let mut description = self
            .shared
            .executor
            .describe()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        if let Some(hostname) = &self.shared.hostname {
            description.hostname.clone_from(hostname);
        }
        description
            .tls_info
            .clone_from(&self.shared.tls_info.borrow());
        Ok(description)
    }

    async fn watch_subscriptions(&self) -> Result<Never, Status> {
        let Some(client) = &self.shared.log_broker else {
            return std::future::pending().await;
        };
        let request = proto::ListenSubscriptionsRequest {};
        let mut stream = match client.listen_subscriptions(request).await {
            Ok(stream) => stream,
            Err(status) => return unsupported(status).await,
        };
        // Both end with the session: the manager subscribes anew in the next one.
        let mut open: HashMap<String, CancellationToken> = HashMap::new();
        let mut serving: JoinSet<String> = JoinSet::new();
        loop {
            let message = tokio::select! {
                message = stream.next() => message.unwrap_or_else(|| Err(closed("subscriptions"))),
                Some(done) = serving.join_next() => {
                    if let Ok(id) = done {
                        open.remove(&id);
                    }
                    continue;
                }
            };
            let subscription = match message {
                Ok(subscription) => subscription,
                Err(status) => return unsupported(status).await,
            };
            let id = subscription.id.clone();
            if subscription.close {
                if let Some(token) = open.remove(&id) {
                    token.cancel();
                }
            } else if !open.contains_key(&id) {
                let closed = CancellationToken::new();
                open.insert(id.clone(), closed.clone());
                let (worker, client) = (Arc::clone(&self.shared.worker), Arc::clone(client));
                serving.spawn(async move {
                    log_subscription::serve(worker, client, subscription, closed).await;
                    id
                });
            }
        }
    }
}

/// A manager without log subscriptions is no reason to end the session.
async fn unsupported(status: Status) -> Result<Never, Status> {
    if status.code() == Code::Unimplemented {
        tracing::warn!("the manager does not support log subscriptions");
        return std::future::pending().await;
    }
    Err(status)
}

/// What of a node matters to the executor: the rest changes with every heartbeat.
fn essence(node: &proto::Node) -> proto::Node {
    proto::Node {
        status: None,
        meta: None,
        ..node.clone()
    }
}

fn closed(stream: &str) -> Status {
    Status::unavailable(format!("the manager closed the {stream} stream"))
}
