//! A manager that comes back under another address tells the others.

use std::sync::Arc;
use std::time::Duration;

use skep_raft::RaftNode;
use skep_rpc::{Connector, NodeSecurity, Remotes};
use tokio_util::sync::CancellationToken;

use super::Place;
use crate::address;

/// Between two attempts: there may be no leader yet.
const RETRY: Duration = Duration::from_secs(2);

pub(super) struct Announcer {
    raft: RaftNode,
    security: Arc<NodeSecurity>,
    remotes: Arc<Remotes>,
    node_id: String,
    listen_addr: String,
    advertise_addr: String,
}

impl Announcer {
    pub(super) fn new(place: &Place, raft: RaftNode) -> Self {
        Self {
            raft,
            security: Arc::clone(&place.security),
            remotes: Arc::clone(&place.remotes),
            node_id: place.node_id.clone(),
            listen_addr: place.listen_addr.clone(),
            advertise_addr: place.advertise_addr.clone(),
        }
    }

    /// Until the members know where this one is now.
    pub(super) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.announce() => {}
        }
    }

    async fn announce(&self) {
        let mut members = self.raft.members();
        // A member that has just joined has told its address then.
        if members
            .wait_for(|m| m.get(self.raft.id()).is_some())
            .await
            .is_err()
        {
            return;
        }
        while let Some(addr) = self.news() {
            match self.tell(&addr).await {
                Ok(()) => {
                    tracing::info!(addr, "this manager is at another address now");
                    return;
                }
                Err(reason) => tracing::debug!(addr, reason, "cannot tell the new address yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// This manager's address, if the members believe another one.
    fn news(&self) -> Option<String> {
        let members = self.raft.members().borrow().clone();
        let known = members.get(self.raft.id())?;
        let now = if self.advertise_addr.is_empty() {
            let other = members.iter().find(|m| m.raft_id != known.raft_id)?;
            let host = address::on_route(&self.listen_addr, &other.addr);
            let (_, port) = self.listen_addr.rsplit_once(':')?;
            if host.is_empty() {
                return None;
            }
            address::join_host_port(&host, port)
        } else {
            self.advertise_addr.clone()
        };
        (known.addr != now).then_some(now)
    }

    async fn tell(&self, addr: &str) -> Result<(), String> {
        if self.raft.leadership().borrow().is_leader() {
            let member = self.raft.members().borrow().get(self.raft.id()).cloned();
            let mut member = member.ok_or("this manager is no member any more")?;
            addr.clone_into(&mut member.addr);
            let told = self.raft.update_member(member).await;
            return told.map(drop).map_err(|error| error.to_string());
        }
        let connector = Connector::new(Arc::clone(&self.security));
        let mut others = self.remotes.list();
        others.retain(|remote| remote.node_id != self.node_id);
        let mut reason = "no other manager is known".to_owned();
        for other in others {
            match skep_rpc::join_raft(&connector, &other.addr, addr).await {
                Ok(_) => return Ok(()),
                Err(status) => status.message().clone_into(&mut reason),
            }
        }
        Err(reason)
    }
}
