//! This manager as a member of the raft group: what other managers ask of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use skep_proto as proto;
use skep_proto::health_check_response::ServingStatus;
use skep_proto::health_client::HealthClient;
use skep_proto::raftpb;
use skep_raft::{Members, ProposeError, RaftNode, StepError};
use tokio::sync::Mutex;
use tonic::{Code, Status};

use crate::authorize::go;
use crate::connect::Connector;
use crate::identity::RemoteNode;
use crate::transport::RaftTransport;

/// A manager that wants to join must answer within this time at the address it gives.
const DIAL_BACK: Duration = Duration::from_secs(5);
/// A successor that has not taken over by then will not.
const HAND_OVER: Duration = Duration::from_secs(5);
const LOST_LEADERSHIP: &str = "raft: failed to process the request: node lost leader status";
const CANNOT_REMOVE: &str =
    "raft: member cannot be removed, because removing it may result in loss of quorum";

pub struct RaftMember {
    raft: RaftNode,
    transport: RaftTransport,
    connector: Connector,
    /// One change at a time, so that each sees the members that the one before left.
    changing: Mutex<()>,
}

impl RaftMember {
    pub fn new(raft: RaftNode, transport: RaftTransport, connector: Connector) -> Self {
        Self {
            raft,
            transport,
            connector,
            changing: Mutex::default(),
        }
    }

    pub fn raft(&self) -> &RaftNode {
        &self.raft
    }

    fn members(&self) -> Arc<Members> {
        Arc::clone(&self.raft.members().borrow())
    }

    /// Only a removed sender is told of a refusal: it must leave. All else is raft's to sort out.
    pub(crate) fn step(&self, message: raftpb::Message) -> Result<(), Status> {
        match self.raft.step(message) {
            Ok(()) => Ok(()),
            Err(error @ StepError::MemberRemoved) => Err(Status::not_found(error.to_string())),
            Err(error) => {
                tracing::debug!(%error, "dropped a raft message");
                Ok(())
            }
        }
    }

    pub(crate) fn resolve_address(&self, raft_id: u64) -> Result<String, Status> {
        let members = self.members();
        let member = members.get(raft_id);
        let member =
            member.ok_or_else(|| Status::not_found(format!("member {raft_id:x} not found")))?;
        Ok(member.addr.clone())
    }

    /// Adds the calling manager to the group, or changes its address if it is in it.
    pub async fn join(
        &self,
        caller: &RemoteNode,
        request: proto::JoinRequest,
    ) -> Result<proto::JoinResponse, Status> {
        let _one = self.changing.lock().await;
        self.check_leading(Code::FailedPrecondition)?;
        let addr = reachable_addr(&request.addr, caller)?;
        self.check_health(&addr).await?;
        let members = self.members();
        let known = members
            .iter()
            .find(|member| member.node_id == caller.node_id);
        let raft_id = known.map_or_else(|| unused_id(&members), |member| member.raft_id);
        let member = proto::RaftMember {
            raft_id,
            node_id: caller.node_id.clone(),
            addr,
            status: None,
        };
        match known {
            Some(known) if known.addr == member.addr => {}
            Some(_) => {
                self.raft.update_member(member).await.map_err(refused)?;
                tracing::info!(node.id = %caller.node_id, "a manager has a new address");
            }
            None => {
                self.raft.add_member(member).await.map_err(refused)?;
                tracing::info!(node.id = %caller.node_id, "a manager joined");
            }
        }
        Ok(self.join_response(raft_id))
    }

    fn join_response(&self, raft_id: u64) -> proto::JoinResponse {
        let members = self.members();
        proto::JoinResponse {
            raft_id,
            members: members.iter().cloned().collect(),
            removed_members: members.removed().collect(),
        }
    }

    /// Removes a member, if the others are enough to go on.
    pub async fn leave(&self, raft_id: u64) -> Result<(), Status> {
        let _one = self.changing.lock().await;
        self.check_leading(Code::Unknown)?;
        if !self.can_remove(raft_id) {
            return Err(Status::unknown(CANNOT_REMOVE));
        }
        self.raft.remove_member(raft_id).await.map_err(refused)?;
        tracing::info!(raft.id = raft_id, "a manager left");
        Ok(())
    }

    /// Whether the members that remain and can be reached are a majority of those that remain.
    pub fn can_remove(&self, raft_id: u64) -> bool {
        let members = self.members();
        let others = || members.iter().filter(|member| member.raft_id != raft_id);
        let reachable = others()
            .filter(|m| m.raft_id == self.raft.id() || self.transport.is_active(m.raft_id))
            .count();
        let left = others().count();
        left > 0 && reachable > left / 2
    }

    /// Makes another member the leader, if this one is and another can be reached. Whether this
    /// member no longer leads.
    pub async fn hand_over(&self) -> bool {
        let reachable = self.transport.reachability().borrow().clone();
        let mut leadership = self.raft.leadership();
        for (&raft_id, _) in reachable.iter().filter(|(_, reachable)| **reachable) {
            self.raft.transfer_leadership(raft_id);
            let deposed = leadership.wait_for(|l| l.stopped || !l.is_leader());
            if tokio::time::timeout(HAND_OVER, deposed).await.is_ok() {
                return true;
            }
        }
        !leadership.borrow().is_leader()
    }

    fn check_leading(&self, code: Code) -> Result<(), Status> {
        if self.raft.leadership().borrow().is_leader() {
            return Ok(());
        }
        Err(Status::new(code, LOST_LEADERSHIP))
    }

    /// A member that cannot be reached would only cost the others their quorum.
    async fn check_health(&self, addr: &str) -> Result<(), Status> {
        let check = async {
            let channel = self.connector.connect(addr).await?;
            let request = proto::HealthCheckRequest {
                service: "Raft".to_owned(),
            };
            HealthClient::new(channel).check(request).await
        };
        let answer = tokio::time::timeout(DIAL_BACK, check)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")))
            .map_err(|error| {
                let text = format!(
                    "could not connect to prospective new cluster member using its advertised \
                     address: {}",
                    go(&error)
                );
                Status::new(error.code(), text)
            })?;
        match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            status => Err(Status::unknown(format!(
                "health check returned status {}",
                status.as_str_name()
            ))),
        }
    }
}

/// A manager need not know its own address: an unspecified one stands for where it calls from.
fn reachable_addr(addr: &str, caller: &RemoteNode) -> Result<String, Status> {
    let invalid =
        || Status::invalid_argument(format!("invalid address {addr} in raft join request"));
    let (host, port) = addr.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => {
            let ip = caller.ip().ok_or_else(invalid)?;
            Ok(SocketAddr::new(ip.to_canonical(), port).to_string())
        }
        _ => Ok(addr.to_owned()),
    }
}

/// An id of 63 bits, as SwarmKit draws it, that was never a member's.
fn unused_id(members: &Members) -> u64 {
    loop {
        let id = rand::random_range(1..=i64::MAX as u64);
        if members.get(id).is_none() && !members.is_removed(id) {
            return id;
        }
    }
}

fn refused(error: ProposeError) -> Status {
    Status::unknown(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_replaced_by_where_the_call_comes_from() {
        let caller = RemoteNode {
            node_id: "n".into(),
            roles: Vec::new(),
            organization: "c".into(),
            addr: "10.1.2.3:40000".into(),
            forwarded_by: None,
        };
        let addr = |addr: &str| reachable_addr(addr, &caller).map_err(|e| e.message().to_owned());
        assert_eq!(addr("0.0.0.0:2377").unwrap(), "10.1.2.3:2377");
        assert_eq!(addr("[::]:2377").unwrap(), "10.1.2.3:2377");
        assert_eq!(addr("192.0.2.1:2377").unwrap(), "192.0.2.1:2377");
        assert_eq!(
            addr("manager.example:2377").unwrap(),
            "manager.example:2377"
        );
        assert_eq!(
            addr("nonsense").unwrap_err(),
            "invalid address nonsense in raft join request"
        );
    }
}
