//! A node without containers and a manager without a cluster, for scenarios on a paused clock.

use crate::agent::{Agent, AgentConfig};
use crate::*;
use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use parking_lot::Mutex;
use skep_model::{Task, TaskState, TaskStatus};
use skep_proto as proto;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tonic::Status;

pub(super) struct Lab {
    pub(super) dir: tempfile::TempDir,
    pub(super) node: Arc<FakeNode>,
    pub(super) manager: Arc<FakeManager>,
}

pub(super) fn task(id: &str, desired_state: TaskState) -> Task {
    Task {
        id: id.into(),
        desired_state,
        service_id: Some("service".into()),
        node_id: Some("node-1".into()),
        status: TaskStatus {
            state: TaskState::Assigned,
            ..Default::default()
        },
        ..Default::default()
    }
}

pub(super) fn running(id: &str) -> Task {
    task(id, TaskState::Running)
}

impl Lab {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            node: Arc::default(),
            manager: Arc::default(),
        }
    }

    pub(super) fn start(&self) -> Agent {
        let config = AgentConfig {
            log_broker: Some(Arc::clone(&self.manager) as _),
            ..AgentConfig::new(
                "node-1".into(),
                self.dir.path(),
                Arc::new(NodeHandle(Arc::clone(&self.node))),
                Arc::clone(&self.manager) as _,
            )
        };
        Agent::start(config).unwrap()
    }

    /// Waits, for as long as a scenario may take, until something holds.
    pub(super) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..120_000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("waited in vain until {what}");
    }

    pub(super) async fn reported(&self, id: &str, state: TaskState) -> TaskStatus {
        let found = || self.manager.state.lock().reports.get(id).cloned();
        self.until(&format!("{id} is reported {state:?}"), || {
            found().is_some_and(|status| status.state == state)
        })
        .await;
        found().unwrap()
    }

    pub(super) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path().join("tasks"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// The executor: remembers what it was asked, and fails or waits as told.
#[derive(Default)]
pub(super) struct FakeNode {
    state: Mutex<NodeState>,
    unblocked: Notify,
}

#[derive(Default)]
struct NodeState {
    calls: Vec<(String, &'static str)>,
    exits: HashMap<String, watch::Sender<Option<i32>>>,
    refused: HashSet<String>,
    failures: Vec<Failure>,
    secrets_seen: HashMap<String, String>,
    block_prepare: bool,
    preparing: usize,
    hostname: String,
    configured: Vec<String>,
    keys: usize,
}

struct Failure {
    task: String,
    call: &'static str,
    error: ControllerError,
    always: bool,
}

impl FakeNode {
    pub(super) fn calls(&self, id: &str) -> Vec<&'static str> {
        let state = self.state.lock();
        state
            .calls
            .iter()
            .filter(|(task, _)| task == id)
            .map(|(_, call)| *call)
            .collect()
    }

    pub(super) fn count(&self, id: &str, call: &str) -> usize {
        self.calls(id).iter().filter(|made| **made == call).count()
    }

    pub(super) fn forget_calls(&self) {
        self.state.lock().calls.clear();
    }

    pub(super) fn exit(&self, id: &str, code: i32) {
        self.exits(id).send_replace(Some(code));
    }

    pub(super) fn refuse(&self, id: &str) {
        self.state.lock().refused.insert(id.to_owned());
    }

    pub(super) fn fail(&self, id: &str, call: &'static str, error: ControllerError) {
        let failure = Failure {
            task: id.to_owned(),
            call,
            error,
            always: false,
        };
        self.state.lock().failures.push(failure);
    }

    pub(super) fn fail_always(&self, id: &str, call: &'static str, error: ControllerError) {
        let failure = Failure {
            task: id.to_owned(),
            call,
            error,
            always: true,
        };
        self.state.lock().failures.push(failure);
    }

    pub(super) fn recover(&self, id: &str) {
        self.state
            .lock()
            .failures
            .retain(|failure| failure.task != id);
    }

    pub(super) fn secret_seen_by(&self, id: &str) -> Option<String> {
        self.state.lock().secrets_seen.get(id).cloned()
    }

    pub(super) fn block_prepare(&self, block: bool) {
        self.state.lock().block_prepare = block;
        self.unblocked.notify_waiters();
    }

    pub(super) fn preparing(&self) -> usize {
        self.state.lock().preparing
    }

    pub(super) fn rename(&self, hostname: &str) {
        self.state.lock().hostname = hostname.to_owned();
    }

    pub(super) fn configured(&self) -> Vec<String> {
        self.state.lock().configured.clone()
    }

    pub(super) fn keys(&self) -> usize {
        self.state.lock().keys
    }

    fn exits(&self, id: &str) -> watch::Sender<Option<i32>> {
        let mut state = self.state.lock();
        state
            .exits
            .entry(id.to_owned())
            .or_insert_with(|| watch::Sender::new(None))
            .clone()
    }

    fn call(&self, id: &str, call: &'static str) -> Result<(), ControllerError> {
        let mut state = self.state.lock();
        state.calls.push((id.to_owned(), call));
        let fails = |failure: &Failure| failure.task == id && failure.call == call;
        let Some(position) = state.failures.iter().position(fails) else {
            return Ok(());
        };
        let error = state.failures[position].error.clone();
        if !state.failures[position].always {
            state.failures.remove(position);
        }
        Err(error)
    }
}

/// The executor needs a handle that controllers can keep.
struct NodeHandle(Arc<FakeNode>);

struct FakeController {
    id: String,
    node: Arc<FakeNode>,
    dependencies: Arc<Dependencies>,
}

#[async_trait::async_trait]
impl Executor for NodeHandle {
    async fn describe(&self) -> Result<proto::NodeDescription, ControllerError> {
        let hostname = self.0.state.lock().hostname.clone();
        Ok(proto::NodeDescription {
            hostname,
            ..Default::default()
        })
    }

    async fn configure(&self, node: &proto::Node) -> Result<(), ControllerError> {
        self.0.state.lock().configured.push(node.id.clone());
        self.0.call(&node.id, "configure")
    }

    fn controller(
        &self,
        task: &Task,
        dependencies: Arc<Dependencies>,
    ) -> Result<Arc<dyn Controller>, ControllerError> {
        let id = task.id.to_string();
        if self.0.state.lock().refused.contains(&id) {
            return Err(ControllerError::fatal("exec: unsupported runtime"));
        }
        Ok(Arc::new(FakeController {
            id,
            node: Arc::clone(&self.0),
            dependencies,
        }))
    }

    async fn set_network_bootstrap_keys(
        &self,
        keys: &[proto::EncryptionKey],
    ) -> Result<(), ControllerError> {
        self.0.state.lock().keys += keys.len();
        Ok(())
    }
}

#[async_trait::async_trait]
impl Controller for FakeController {
    async fn update(&self, _task: &Task) -> Result<(), ControllerError> {
        self.node.call(&self.id, "update")
    }

    async fn prepare(&self) -> Result<(), ControllerError> {
        if let Some(secret) = self.dependencies.secret("s1") {
            self.node
                .state
                .lock()
                .secrets_seen
                .insert(self.id.clone(), secret.id.clone());
        }
        self.node.state.lock().preparing += 1;
        loop {
            let unblocked = self.node.unblocked.notified();
            if !self.node.state.lock().block_prepare {
                break;
            }
            unblocked.await;
        }
        self.node.call(&self.id, "prepare")
    }

    async fn start(&self) -> Result<(), ControllerError> {
        self.node.call(&self.id, "start")
    }

    async fn wait(&self) -> Result<(), ControllerError> {
        self.node.call(&self.id, "wait")?;
        let mut exits = self.node.exits(&self.id).subscribe();
        let code = exits.wait_for(Option::is_some).await.unwrap().unwrap();
        match code {
            0 => Ok(()),
            code => Err(ControllerError::Exit {
                code,
                cause: None,
                container: None,
            }),
        }
    }

    async fn shutdown(&self) -> Result<(), ControllerError> {
        self.node.call(&self.id, "shutdown")
    }

    async fn terminate(&self) -> Result<(), ControllerError> {
        self.node.call(&self.id, "terminate")
    }

    async fn remove(&self) -> Result<(), ControllerError> {
        self.node.call(&self.id, "remove")
    }

    async fn close(&self) -> Result<(), ControllerError> {
        self.node.call(&self.id, "close")
    }

    async fn container_status(&self) -> Result<Option<proto::ContainerStatus>, ControllerError> {
        let container_id = format!("container-of-{}", self.id);
        Ok(Some(proto::ContainerStatus {
            container_id,
            ..Default::default()
        }))
    }

    async fn logs(
        &self,
        options: proto::LogSubscriptionOptions,
    ) -> Result<LogStream, ControllerError> {
        let line = |text: &str| {
            let data = format!("{} {text}", self.id).into_bytes();
            Ok(proto::LogMessage {
                data,
                ..Default::default()
            })
        };
        let lines = futures::stream::iter([line("one"), line("two")]);
        if options.follow {
            return Ok(lines.chain(futures::stream::pending()).boxed());
        }
        Ok(lines.boxed())
    }
}

/// The manager: hands out what the test assigns, and remembers what it is told.
#[derive(Default)]
pub(super) struct FakeManager {
    pub(super) state: Mutex<ManagerState>,
    reported: Notify,
    spoke: Notify,
}

#[derive(Default)]
pub(super) struct ManagerState {
    reports: HashMap<String, TaskStatus>,
    report_count: usize,
    sessions: Vec<String>,
    hostname: String,
    silent: bool,
    refusing: bool,
    heartbeats: usize,
    session: Option<UnboundedSender<Result<proto::SessionMessage, Status>>>,
    assignments: Option<UnboundedSender<Result<proto::AssignmentsMessage, Status>>>,
    assignment_streams: usize,
    /// Assigned before anyone asked.
    waiting: Option<proto::AssignmentsMessage>,
    version: u64,
    pub(super) subscriptions: Option<UnboundedSender<Result<proto::SubscriptionMessage, Status>>>,
    pub(super) published: Vec<proto::PublishLogsMessage>,
}

impl FakeManager {
    pub(super) fn complete(&self, tasks: impl IntoIterator<Item = Task>) {
        self.send_complete(tasks.into_iter().map(update).collect());
    }

    pub(super) fn complete_with_secret(&self, tasks: impl IntoIterator<Item = Task>, id: &str) {
        let mut changes: Vec<_> = tasks.into_iter().map(update).collect();
        let secret = proto::Secret {
            id: id.into(),
            ..Default::default()
        };
        changes.push(change(proto::assignment::Item::Secret(secret), true));
        self.send_complete(changes);
    }

    fn send_complete(&self, changes: Vec<proto::AssignmentChange>) {
        let mut state = self.state.lock();
        state.version += 1;
        let message = proto::AssignmentsMessage {
            r#type: proto::assignments_message::Type::Complete.into(),
            applies_to: String::new(),
            results_in: state.version.to_string(),
            changes,
        };
        match &state.assignments {
            Some(stream) => stream.unbounded_send(Ok(message)).unwrap(),
            None => state.waiting = Some(message),
        }
    }

    pub(super) fn increment(&self, tasks: impl IntoIterator<Item = Task>) {
        self.send_increment(tasks.into_iter().map(update).collect());
    }

    pub(super) fn increment_removing(&self, id: &str) {
        let gone = proto::Task {
            id: id.into(),
            ..Default::default()
        };
        self.send_increment(vec![change(proto::assignment::Item::Task(gone), false)]);
    }

    fn send_increment(&self, changes: Vec<proto::AssignmentChange>) {
        let mut state = self.state.lock();
        let applies_to = state.version.to_string();
        state.version += 1;
        let message = proto::AssignmentsMessage {
            r#type: proto::assignments_message::Type::Incremental.into(),
            applies_to,
            results_in: state.version.to_string(),
            changes,
        };
        state
            .assignments
            .as_ref()
            .unwrap()
            .unbounded_send(Ok(message))
            .unwrap();
    }

    /// A message is lost on its way.
    pub(super) fn lose_one(&self) {
        self.state.lock().version += 1;
    }

    /// Answers no call for a session.
    pub(super) fn be_silent(&self) {
        let mut state = self.state.lock();
        state.silent = true;
        state.assignments = None;
    }

    pub(super) fn speak_again(&self) {
        let mut state = self.state.lock();
        state.silent = false;
        state.reports.clear();
        self.spoke.notify_waiters();
    }

    pub(super) fn refuse_sessions(&self, refuse: bool) {
        self.state.lock().refusing = refuse;
    }

    pub(super) fn break_session(&self) {
        let mut state = self.state.lock();
        state.assignments = None;
        let session = state.session.take().unwrap();
        session
            .unbounded_send(Err(Status::aborted("leadership moved")))
            .unwrap();
    }

    pub(super) fn forget_reports(&self) {
        self.state.lock().reports.clear();
    }

    pub(super) async fn next_report(&self) {
        self.reported.notified().await;
    }

    pub(super) fn sessions(&self) -> Vec<String> {
        self.state.lock().sessions.clone()
    }

    pub(super) fn hostname(&self) -> String {
        self.state.lock().hostname.clone()
    }

    pub(super) fn heartbeats(&self) -> usize {
        self.state.lock().heartbeats
    }

    pub(super) fn report_count(&self) -> usize {
        self.state.lock().report_count
    }

    pub(super) fn assignment_streams(&self) -> usize {
        self.state.lock().assignment_streams
    }
}

fn update(task: Task) -> proto::AssignmentChange {
    change(proto::assignment::Item::Task((&task).into()), true)
}

fn change(item: proto::assignment::Item, keep: bool) -> proto::AssignmentChange {
    use proto::assignment_change::AssignmentAction as Action;
    proto::AssignmentChange {
        assignment: Some(proto::Assignment { item: Some(item) }),
        action: if keep { Action::Update } else { Action::Remove }.into(),
    }
}

#[async_trait::async_trait]
impl DispatcherClient for FakeManager {
    async fn session(
        &self,
        request: proto::SessionRequest,
    ) -> Result<ResponseStream<proto::SessionMessage>, Status> {
        loop {
            let spoke = self.spoke.notified();
            if !self.state.lock().silent {
                break;
            }
            spoke.await;
        }
        let mut state = self.state.lock();
        state.sessions.push(request.session_id);
        state.hostname = request.description.unwrap().hostname;
        if state.refusing {
            return Err(Status::unavailable("nobody home"));
        }
        let (sender, receiver) = unbounded();
        let first = proto::SessionMessage {
            session_id: format!("session-{}", state.sessions.len()),
            node: Some(proto::Node {
                id: "node-1".into(),
                ..Default::default()
            }),
            network_bootstrap_keys: vec![proto::EncryptionKey::default()],
            ..Default::default()
        };
        sender.unbounded_send(Ok(first)).unwrap();
        state.session = Some(sender);
        Ok(receiver.boxed())
    }

    async fn heartbeat(
        &self,
        _request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Status> {
        self.state.lock().heartbeats += 1;
        let period = Duration::from_secs(5).try_into().ok();
        Ok(proto::HeartbeatResponse { period })
    }

    async fn update_task_status(
        &self,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<proto::UpdateTaskStatusResponse, Status> {
        let mut state = self.state.lock();
        state.report_count += 1;
        for update in request.updates {
            let status = TaskStatus::try_from(update.status.unwrap()).unwrap();
            state.reports.insert(update.task_id, status);
        }
        self.reported.notify_waiters();
        Ok(proto::UpdateTaskStatusResponse {})
    }

    async fn assignments(
        &self,
        _request: proto::AssignmentsRequest,
    ) -> Result<ResponseStream<proto::AssignmentsMessage>, Status> {
        let mut state = self.state.lock();
        let (sender, receiver) = unbounded();
        if let Some(message) = state.waiting.take() {
            sender.unbounded_send(Ok(message)).unwrap();
        }
        state.assignments = Some(sender);
        state.assignment_streams += 1;
        Ok(receiver.boxed())
    }
}

#[async_trait::async_trait]
impl LogBrokerClient for FakeManager {
    async fn listen_subscriptions(
        &self,
        _request: proto::ListenSubscriptionsRequest,
    ) -> Result<ResponseStream<proto::SubscriptionMessage>, Status> {
        let (sender, receiver) = unbounded();
        self.state.lock().subscriptions = Some(sender);
        Ok(receiver.boxed())
    }

    async fn publish_logs(
        &self,
        mut messages: futures::stream::BoxStream<'static, proto::PublishLogsMessage>,
    ) -> Result<proto::PublishLogsResponse, Status> {
        while let Some(message) = messages.next().await {
            self.state.lock().published.push(message);
        }
        Ok(proto::PublishLogsResponse {})
    }
}
