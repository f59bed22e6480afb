//! Starts and stops what only the leader does.

use std::sync::Arc;

use skep_model::NodeId;
use skep_store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::allocation;
use crate::control::{Control, ExternalAuthorities};
use crate::dispatcher::Dispatcher;
use crate::leader;
use crate::log_broker::LogBroker;
use crate::members::Members;

pub struct ManagerConfig {
    /// The node that this manager is on.
    pub node_id: NodeId,
    pub store: Store,
    /// True while this manager leads and its store holds all that was committed before.
    pub leadership: watch::Receiver<bool>,
    pub members: Members,
}

/// One manager of the swarm: a follower until it is told that it leads.
#[derive(Debug)]
pub struct Manager {
    control: Control,
    dispatcher: Arc<Dispatcher>,
    log_broker: Arc<LogBroker>,
    stopped: CancellationToken,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl Manager {
    /// Must be called within a tokio runtime.
    pub fn start(config: ManagerConfig) -> Self {
        let ManagerConfig {
            node_id,
            store,
            leadership,
            members,
        } = config;
        let dispatcher = Arc::new(Dispatcher::new(store.clone(), node_id, members.clone()));
        let log_broker = Arc::new(LogBroker::new(store.clone()));
        let stopped = CancellationToken::new();
        let task = tokio::spawn(follow_leadership(
            store.clone(),
            Arc::clone(&dispatcher),
            Arc::clone(&log_broker),
            leadership,
            stopped.clone(),
        ));
        Self {
            control: Control::new(store, members),
            dispatcher,
            log_broker,
            stopped,
            task: parking_lot::Mutex::new(Some(task)),
        }
    }

    /// Lets the swarm's certificates be issued by authorities outside of it.
    #[must_use]
    pub fn with_external_authorities(mut self, external: Arc<dyn ExternalAuthorities>) -> Self {
        self.control.reach(external);
        self
    }

    pub fn control(&self) -> &Control {
        &self.control
    }

    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    pub fn log_broker(&self) -> &Arc<LogBroker> {
        &self.log_broker
    }

    /// Ends all loops and streams; returns when they have ended. The store stays open.
    pub async fn stop(&self) {
        self.stopped.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(error = %error, "the manager's loops ended badly");
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

async fn follow_leadership(
    store: Store,
    dispatcher: Arc<Dispatcher>,
    log_broker: Arc<LogBroker>,
    mut leadership: watch::Receiver<bool>,
    stopped: CancellationToken,
) {
    loop {
        let elected = async {
            // A sender that is gone will never make us leader.
            if leadership.wait_for(|leads| *leads).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = stopped.cancelled() => return,
            () = elected => {}
        }
        tracing::info!("this manager leads");
        let term = stopped.child_token();
        let lead = async {
            tokio::join!(
                leader::run(store.clone(), term.clone()),
                allocation::run(store.clone(), term.clone()),
                dispatcher.run(term.clone()),
                log_broker.run(term.clone()),
            )
        };
        let deposed = async {
            let _ = leadership.wait_for(|leads| !*leads).await;
            term.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = lead => {}
            () = deposed => {}
        }
        tracing::info!("this manager no longer leads");
    }
}
