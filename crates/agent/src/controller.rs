//! One task's hold on what runs it.

use futures::stream::BoxStream;
use skep_model::Task;
use skep_proto as proto;
use std::fmt;

pub type LogStream = BoxStream<'static, Result<proto::LogMessage, ControllerError>>;

/// Carries out what the task's state machine decides. Methods may be called again after they failed,
/// after a restart of the daemon, and after their future was dropped half-way (an update of the task
/// interrupts `prepare`, `start` and `wait`): each must cope with finding its work done or half done.
/// `container_status`, `port_status` and `logs` may be called while another method runs.
#[async_trait::async_trait]
pub trait Controller: Send + Sync + 'static {
    /// The task's definition changed; usually only its desired state.
    async fn update(&self, task: &Task) -> Result<(), ControllerError>;

    /// Makes everything that `start` needs, so that it is quick.
    async fn prepare(&self) -> Result<(), ControllerError>;

    /// Returns once the task runs (and is healthy, where there is a health check).
    async fn start(&self) -> Result<(), ControllerError>;

    /// Returns when the task has ended; an exit code other than zero is an error.
    async fn wait(&self) -> Result<(), ControllerError>;

    /// Asks the task to end and waits for it, for as long as its stop grace period.
    async fn shutdown(&self) -> Result<(), ControllerError>;

    /// Ends the task at once.
    async fn terminate(&self) -> Result<(), ControllerError>;

    /// Removes what the task leaves behind, running or not.
    async fn remove(&self) -> Result<(), ControllerError>;

    /// Nothing more will be asked of this controller. What it controls stays as it is.
    async fn close(&self) -> Result<(), ControllerError>;

    /// `None` while there is no container.
    async fn container_status(&self) -> Result<Option<proto::ContainerStatus>, ControllerError> {
        Ok(None)
    }

    /// The host ports the task got, if it publishes any on the node itself.
    async fn port_status(&self) -> Result<Option<proto::PortStatus>, ControllerError> {
        Ok(None)
    }

    /// The task's output. The agent fills in the context of messages that have none.
    async fn logs(
        &self,
        options: proto::LogSubscriptionOptions,
    ) -> Result<LogStream, ControllerError>;
}

/// Why a controller could not do what it was asked to. The text ends up in `docker service ps`.
#[derive(Debug, Clone, PartialEq)]
pub enum ControllerError {
    /// `prepare` found its work done: goes on.
    TaskPrepared,
    /// `start` found the task started, perhaps even ended: goes on, and `wait` tells.
    TaskStarted,
    /// The process ended with an exit code other than zero.
    Exit {
        code: i32,
        /// Why, beyond the code: out of memory, unhealthy container.
        cause: Option<String>,
        container: Option<proto::ContainerStatus>,
    },
    /// Worth trying again; the text is reported meanwhile.
    Temporary(String),
    /// Ends the task.
    Fatal(String),
}

impl ControllerError {
    pub fn fatal(error: impl fmt::Display) -> Self {
        Self::Fatal(error.to_string())
    }
}

impl fmt::Display for ControllerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TaskPrepared => f.write_str("exec: task already prepared"),
            Self::TaskStarted => f.write_str("exec: task already started"),
            Self::Exit {
                code, cause: None, ..
            } => write!(f, "task: non-zero exit ({code})"),
            Self::Exit {
                code,
                cause: Some(cause),
                ..
            } => {
                write!(f, "task: non-zero exit ({code}): {cause}")
            }
            Self::Temporary(text) | Self::Fatal(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ControllerError {}
