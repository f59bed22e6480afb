//! The agent as the rest of the program sees it, and its outer loop: session after session.

use crate::assignments::Assignments;
use crate::session::{Configuration, Session};
use crate::task_store::{TaskStore, TaskStoreError};
use crate::worker::Worker;
use crate::{DispatcherClient, Executor, LogBrokerClient};
use parking_lot::Mutex;
use rand::Rng as _;
use skep_model::NodeId;
use skep_proto as proto;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// SwarmKit's pauses between sessions: a random part of up to this, growing with each failure.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);

pub struct AgentConfig {
    pub node_id: NodeId,
    /// Holds the tasks of this node; created when missing.
    pub state_dir: PathBuf,
    pub executor: Arc<dyn Executor>,
    pub dispatcher: Arc<dyn DispatcherClient>,
    /// `None`: this node's logs cannot be read through the managers.
    pub log_broker: Option<Arc<dyn LogBrokerClient>>,
    /// Reported instead of the executor's.
    pub hostname: Option<String>,
    pub tls_info: Option<proto::NodeTlsInfo>,
    /// How many tasks are prepared or started at the same time.
    pub concurrent_starts: usize,
}

impl AgentConfig {
    pub fn new(
        node_id: NodeId,
        state_dir: impl Into<PathBuf>,
        executor: Arc<dyn Executor>,
        dispatcher: Arc<dyn DispatcherClient>,
    ) -> Self {
        Self {
            node_id,
            state_dir: state_dir.into(),
            executor,
            dispatcher,
            log_broker: None,
            hostname: None,
            tls_info: None,
            concurrent_starts: 32,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("cannot read the tasks of this node")]
    Tasks(#[from] TaskStoreError),
}

/// How the agent stands with the managers.
#[derive(Debug, Clone, Default)]
pub struct AgentState {
    pub registered: bool,
    /// Why the last session ended, until the next one is registered.
    pub last_error: Option<tonic::Status>,
    /// The latest session message: this node as the managers see it, the managers' addresses, the
    /// root certificate.
    pub message: Option<Arc<proto::SessionMessage>>,
}

/// A running agent. Stop it: dropping it leaves its tasks without anyone who looks after them until
/// the next start.
pub struct Agent {
    shared: Arc<Shared>,
    sessions: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct Shared {
    pub(crate) node_id: NodeId,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) dispatcher: Arc<dyn DispatcherClient>,
    pub(crate) log_broker: Option<Arc<dyn LogBrokerClient>>,
    pub(crate) hostname: Option<String>,
    pub(crate) tls_info: watch::Sender<Option<proto::NodeTlsInfo>>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) state: watch::Sender<AgentState>,
    pub(crate) leaving: CancellationToken,
    pub(crate) configuration: tokio::sync::Mutex<Configuration>,
    stop: CancellationToken,
}

impl Agent {
    /// Resumes the tasks on disk, then registers with a manager in the background. Must be called
    /// within a tokio runtime.
    pub fn start(config: AgentConfig) -> Result<Self, AgentError> {
        let stop = CancellationToken::new();
        let store = TaskStore::open(config.state_dir.join("tasks"))?;
        let executor = Arc::clone(&config.executor);
        let worker = Arc::new(Worker::new(
            executor,
            store,
            config.concurrent_starts,
            stop.clone(),
        ));
        worker.resume()?;
        let shared = Arc::new(Shared {
            node_id: config.node_id,
            executor: config.executor,
            dispatcher: config.dispatcher,
            log_broker: config.log_broker,
            hostname: config.hostname,
            tls_info: watch::Sender::new(config.tls_info),
            worker,
            state: watch::Sender::new(AgentState::default()),
            leaving: CancellationToken::new(),
            configuration: tokio::sync::Mutex::default(),
            stop,
        });
        let sessions = tokio::spawn(together(Arc::clone(&shared)));
        Ok(Self {
            shared,
            sessions: Mutex::new(Some(sessions)),
        })
    }

    /// Stops looking after the tasks; containers go on running. Returns when nothing of the agent
    /// runs any more.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let sessions = self.sessions.lock().take();
        if let Some(sessions) = sessions
            && let Err(error) = sessions.await
        {
            tracing::error!(%error, "the agent's session loop failed");
        }
        self.shared.worker.finished().await;
    }

    /// Leaves the swarm: takes no more tasks, and removes those there are. Returns when they are gone;
    /// stop the agent afterwards.
    pub async fn leave(&self) {
        self.shared.leaving.cancel();
        self.shared.worker.assign(Assignments {
            complete: true,
            ..Assignments::default()
        });
        self.shared.worker.finished().await;
    }

    /// How the agent stands with the managers, and changes of it.
    pub fn state(&self) -> watch::Receiver<AgentState> {
        self.shared.state.subscribe()
    }

    /// This node's certificate changed: it is reported by beginning a new session.
    pub fn set_tls_info(&self, info: proto::NodeTlsInfo) {
        self.shared.tls_info.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&info);
            *known = Some(info);
            changed
        });
    }
}

async fn together(shared: Arc<Shared>) {
    let endpoints = crate::endpoints::follow(&*shared.dispatcher, &*shared.executor, &shared.stop);
    tokio::join!(sessions(Arc::clone(&shared)), endpoints);
}

async fn sessions(shared: Arc<Shared>) {
    let mut backoff = Duration::ZERO;
    let mut session_id = String::new();
    loop {
        let pause = backoff.mul_f64(rand::rng().random_range(0.0..1.0));
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(pause), if !pause.is_zero() => {}
            () = std::future::ready(()), if pause.is_zero() => {}
        }
        let end = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            end = Session::run(&shared, &session_id) => end,
        };
        if end.was_registered {
            backoff = Duration::ZERO;
        }
        backoff = (FIRST_BACKOFF + 2 * backoff).min(LONGEST_BACKOFF);
        session_id = end.session_id;
        tracing::warn!(status = %end.status, ?backoff, "the session with the manager ended");
        shared.state.send_modify(|state| {
            state.registered = false;
            state.last_error = Some(end.status);
        });
    }
}

#[cfg(test)]
mod tests;
