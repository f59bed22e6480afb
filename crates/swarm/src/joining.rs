//! An attempt to join a swarm, which may take longer than its user waits.

use std::path::PathBuf;
use std::sync::Arc;

use skep_agent::Executor;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::node::{Beginning, Node, StartError};
use crate::persisted::NodeState;

type Outcome = Result<Arc<Node>, StartError>;

pub(crate) struct Attempt {
    persisted: NodeState,
    outcome: watch::Receiver<Option<Outcome>>,
    given_up: CancellationToken,
}

impl Attempt {
    /// Begins in the background.
    pub(crate) fn start(
        state_dir: PathBuf,
        persisted: NodeState,
        beginning: Beginning,
        executor: Arc<dyn Executor>,
    ) -> Arc<Self> {
        let (sender, outcome) = watch::channel(None);
        let attempt = Arc::new(Self {
            persisted: persisted.clone(),
            outcome,
            given_up: CancellationToken::new(),
        });
        let given_up = attempt.given_up.clone();
        tokio::spawn(async move {
            let joined = async {
                let node = Node::start(&state_dir, persisted, beginning, executor).await?;
                Ok(Arc::new(node))
            };
            let joined = tokio::select! {
                () = given_up.cancelled() => Err(StartError::Failed("context canceled".into())),
                joined = joined => joined,
            };
            if let Ok(node) = &joined {
                tokio::select! {
                    () = given_up.cancelled() => {}
                    () = node.ready() => {}
                }
            }
            sender.send_replace(Some(joined));
        });
        attempt
    }

    pub(crate) fn persisted(&self) -> &NodeState {
        &self.persisted
    }

    /// Waits until the node takes part in the swarm, or cannot.
    pub(crate) async fn outcome(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        let gone = || Err(StartError::Failed("the attempt has ended".into()));
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }

    /// Ends the attempt; returns the node if it had come so far.
    pub(crate) async fn give_up(&self) -> Option<Arc<Node>> {
        self.given_up.cancel();
        self.outcome().await.ok()
    }
}
