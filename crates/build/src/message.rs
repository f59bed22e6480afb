use serde_json::{Value, json};
use skep_engine::ProgressMessage;
use tokio::sync::mpsc;

use crate::error::BuildError;

/// One line of a build's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// What is printed.
    Stream(String),
    /// What a command wrote to its standard error; clients show it in red.
    Errors(String),
    /// A stage's image.
    Image(String),
    /// Of a pull.
    Progress(ProgressMessage),
}

impl Message {
    /// As dockerd writes it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Stream(text) => json!({ "stream": text }),
            Self::Errors(text) => json!({ "stream": format!("\u{1b}[91m{text}\u{1b}[0m") }),
            Self::Image(id) => json!({ "aux": { "ID": id } }),
            Self::Progress(progress) => serde_json::to_value(progress).unwrap_or_default(),
        }
    }
}

/// Where a build's answer goes. The client may go away at any time: the build then ends.
#[derive(Clone)]
pub(crate) struct Output(mpsc::Sender<Result<Message, BuildError>>);

impl Output {
    pub(crate) fn new(sender: mpsc::Sender<Result<Message, BuildError>>) -> Self {
        Self(sender)
    }

    pub(crate) async fn line(&self, text: impl Into<String>) -> Result<(), BuildError> {
        let mut text = text.into();
        text.push('\n');
        self.send(Message::Stream(text)).await
    }

    pub(crate) async fn send(&self, message: Message) -> Result<(), BuildError> {
        self.0.send(Ok(message)).await.map_err(|_| cancelled())
    }

    pub(crate) async fn fail(&self, error: BuildError) {
        // Nobody listens any more: nobody is to be told.
        let _ = self.0.send(Err(error)).await;
    }

    /// Resolves when the client has gone.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

pub(crate) fn cancelled() -> BuildError {
    BuildError::failed("Build cancelled")
}
