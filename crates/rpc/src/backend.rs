//! What stands behind the port: traits that the manager's parts implement, and where they are put.

use futures::stream::BoxStream;
use skep_manager::{Control, Dispatcher, LogBroker};
use skep_proto as proto;
use skep_store::Store;
use std::sync::Arc;
use tonic::Status;

use crate::health::Health;
use crate::identity::RemoteNode;
use crate::leader::LeaderRoute;
use crate::member::RaftMember;
use crate::slot::Slot;

pub type ResponseStream<T> = BoxStream<'static, Result<T, Status>>;

/// The leader's conversation with agents.
#[async_trait::async_trait]
pub trait DispatcherBackend: Send + Sync + 'static {
    async fn session(
        &self,
        caller: &RemoteNode,
        request: proto::SessionRequest,
    ) -> Result<ResponseStream<proto::SessionMessage>, Status>;

    async fn heartbeat(
        &self,
        caller: &RemoteNode,
        request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Status>;

    async fn update_task_status(
        &self,
        caller: &RemoteNode,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<proto::UpdateTaskStatusResponse, Status>;

    async fn assignments(
        &self,
        caller: &RemoteNode,
        request: proto::AssignmentsRequest,
    ) -> Result<ResponseStream<proto::AssignmentsMessage>, Status>;

    /// The endpoint feed for the caller's node.
    fn endpoints(
        &self,
        caller: &RemoteNode,
    ) -> Result<ResponseStream<proto::feed::EndpointUpdate>, Status> {
        let _ = caller;
        Err(Status::unimplemented("no endpoint feed here"))
    }
}

/// How agents are asked for logs, and how managers read them.
#[async_trait::async_trait]
pub trait LogBackend: Send + Sync + 'static {
    async fn listen_subscriptions(
        &self,
        caller: &RemoteNode,
        request: proto::ListenSubscriptionsRequest,
    ) -> Result<ResponseStream<proto::SubscriptionMessage>, Status>;

    async fn publish_logs(
        &self,
        caller: &RemoteNode,
        messages: BoxStream<'static, proto::PublishLogsMessage>,
    ) -> Result<proto::PublishLogsResponse, Status>;

    async fn subscribe_logs(
        &self,
        request: proto::SubscribeLogsRequest,
    ) -> Result<ResponseStream<proto::SubscribeLogsMessage>, Status>;
}

/// Issues certificates.
#[async_trait::async_trait]
pub trait CertificateAuthority: Send + Sync + 'static {
    /// The cluster's root certificates, PEM: what join tokens are the digest of.
    fn root_certificates(&self) -> Result<Vec<u8>, Status>;

    fn unlock_key(&self) -> Result<proto::GetUnlockKeyResponse, Status>;

    /// `caller` is `None` for a node that has no (valid) certificate: its token must say that it
    /// may join.
    async fn issue(
        &self,
        caller: Option<&RemoteNode>,
        request: proto::IssueNodeCertificateRequest,
    ) -> Result<proto::IssueNodeCertificateResponse, Status>;

    /// Waits until the certificate is issued or refused.
    async fn status(
        &self,
        request: proto::NodeCertificateStatusRequest,
    ) -> Result<proto::NodeCertificateStatusResponse, Status>;
}

/// Attaches containers outside of services to networks.
#[async_trait::async_trait]
pub trait ResourceBackend: Send + Sync + 'static {
    async fn attach_network(
        &self,
        caller: &RemoteNode,
        request: proto::AttachNetworkRequest,
    ) -> Result<proto::AttachNetworkResponse, Status>;

    async fn detach_network(
        &self,
        caller: &RemoteNode,
        request: proto::DetachNetworkRequest,
    ) -> Result<proto::DetachNetworkResponse, Status>;
}

/// Nodes that were removed, and whose certificates are refused from then on.
pub trait RemovedNodes: Send + Sync + 'static {
    fn is_removed(&self, node_id: &str) -> bool;
}

/// All that a manager's port leads to. Clones share their slots.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    pub leader: Slot<dyn LeaderRoute>,
    pub removed: Slot<dyn RemovedNodes>,
    pub dispatcher: Slot<dyn DispatcherBackend>,
    pub logs: Slot<dyn LogBackend>,
    pub authority: Slot<dyn CertificateAuthority>,
    pub resources: Slot<dyn ResourceBackend>,
    pub control: Slot<Control>,
    pub raft: Slot<RaftMember>,
    pub health: Health,
}

impl Backends {
    /// Takes everything away that a manager has: the port then answers like one that is not a member
    /// of the raft group.
    pub fn clear(&self) {
        self.leader.clear();
        self.removed.clear();
        self.dispatcher.clear();
        self.logs.clear();
        self.authority.clear();
        self.resources.clear();
        self.control.clear();
        self.raft.clear();
    }
}

impl RemovedNodes for Store {
    fn is_removed(&self, node_id: &str) -> bool {
        self.snapshot()
            .the_cluster()
            .is_some_and(|cluster| cluster.blacklisted_certificates.contains_key(node_id))
    }
}

#[async_trait::async_trait]
impl DispatcherBackend for Dispatcher {
    async fn session(
        &self,
        caller: &RemoteNode,
        request: proto::SessionRequest,
    ) -> Result<ResponseStream<proto::SessionMessage>, Status> {
        Self::session(self, &caller.caller(), request).await
    }

    async fn heartbeat(
        &self,
        caller: &RemoteNode,
        request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Status> {
        Self::heartbeat(self, &caller.caller(), request).await
    }

    async fn update_task_status(
        &self,
        caller: &RemoteNode,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<proto::UpdateTaskStatusResponse, Status> {
        Self::update_task_status(self, &caller.caller(), request).await
    }

    async fn assignments(
        &self,
        caller: &RemoteNode,
        request: proto::AssignmentsRequest,
    ) -> Result<ResponseStream<proto::AssignmentsMessage>, Status> {
        Self::assignments(self, &caller.caller(), request).await
    }

    fn endpoints(
        &self,
        caller: &RemoteNode,
    ) -> Result<ResponseStream<proto::feed::EndpointUpdate>, Status> {
        Ok(Self::endpoints(self, &caller.caller()))
    }
}

/// The manager's log broker as a backend. It needs a type of its own: some of the broker's calls are
/// on its `Arc`.
#[derive(Debug)]
pub struct BrokerLogs(pub Arc<LogBroker>);

#[async_trait::async_trait]
impl LogBackend for BrokerLogs {
    async fn listen_subscriptions(
        &self,
        caller: &RemoteNode,
        request: proto::ListenSubscriptionsRequest,
    ) -> Result<ResponseStream<proto::SubscriptionMessage>, Status> {
        self.0.listen_subscriptions(&caller.caller(), request).await
    }

    async fn publish_logs(
        &self,
        caller: &RemoteNode,
        messages: BoxStream<'static, proto::PublishLogsMessage>,
    ) -> Result<proto::PublishLogsResponse, Status> {
        self.0.publish_logs(&caller.caller(), messages).await
    }

    async fn subscribe_logs(
        &self,
        request: proto::SubscribeLogsRequest,
    ) -> Result<ResponseStream<proto::SubscribeLogsMessage>, Status> {
        self.0.subscribe_logs(request)
    }
}
