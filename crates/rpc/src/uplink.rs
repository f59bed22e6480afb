//! A node's way to a manager: to the leader in the same process, to the leader that the manager here
//! knows of, or to one of the managers it has heard of, which passes its calls on.

mod agent;
mod certificate;

use std::sync::Arc;

use parking_lot::Mutex;
use tonic::Status;
use tonic::transport::Channel;

use crate::backend::{CertificateAuthority, DispatcherBackend, LogBackend};
use crate::connect::Connector;
use crate::identity::RemoteNode;
use crate::leader::{Leader, LeaderRoute};
use crate::remotes::{Remote, Remotes};
use crate::slot::Slot;

/// SwarmKit's text for a node that knows no manager.
const NO_REMOTES: &str = "no remote hosts provided";

/// The manager on this node.
pub struct LocalManager {
    /// This node, as its own client.
    pub caller: RemoteNode,
    pub leader: Arc<dyn LeaderRoute>,
    pub dispatcher: Arc<dyn DispatcherBackend>,
    pub logs: Arc<dyn LogBackend>,
    pub authority: Arc<dyn CertificateAuthority>,
}

/// A node's connection to the managers. Implements the agent's `DispatcherClient` and
/// `LogBrokerClient`; a new session chooses its manager anew, and the other calls follow it.
pub struct Uplink {
    connector: Connector,
    remotes: Arc<Remotes>,
    local: Slot<LocalManager>,
    /// Of the latest session.
    route: Mutex<Option<Route>>,
}

#[derive(Clone)]
enum Route {
    /// This manager leads.
    Local(Arc<LocalManager>),
    Remote {
        channel: Channel,
        /// `None`: the leader, known from raft.
        remote: Option<Remote>,
    },
}

impl Uplink {
    /// `local` is filled while a manager runs on this node.
    pub fn new(connector: Connector, remotes: Arc<Remotes>, local: Slot<LocalManager>) -> Self {
        Self {
            connector,
            remotes,
            local,
            route: Mutex::new(None),
        }
    }

    pub fn remotes(&self) -> &Arc<Remotes> {
        &self.remotes
    }

    /// The manager that the present session is with, if it is another node.
    pub fn manager(&self) -> Option<Remote> {
        match &*self.route.lock() {
            Some(Route::Remote { remote, .. }) => remote.clone(),
            _ => None,
        }
    }

    /// The manager here, if there is one and it knows the leader; another one otherwise.
    async fn choose(&self) -> Result<Route, Status> {
        if let Some(local) = self.local.get() {
            return match local.leader.wait().await? {
                Leader::Here => Ok(Route::Local(local)),
                Leader::There { channel, .. } => Ok(Route::Remote {
                    channel,
                    remote: None,
                }),
            };
        }
        self.choose_remote(None).await
    }

    async fn choose_remote(&self, avoid: Option<&str>) -> Result<Route, Status> {
        let remote = self.remotes.select(avoid);
        let remote = remote.ok_or_else(|| Status::unavailable(NO_REMOTES))?;
        match self.connector.connect(&remote.addr).await {
            Ok(channel) => Ok(Route::Remote {
                channel,
                remote: Some(remote),
            }),
            Err(error) => {
                self.remotes.observe(&remote, false);
                Err(error.into())
            }
        }
    }

    fn route(&self) -> Result<Route, Status> {
        let route = self.route.lock().clone();
        route.ok_or_else(|| Status::unavailable("there is no session with a manager"))
    }
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink")
            .field("remotes", &self.remotes)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
