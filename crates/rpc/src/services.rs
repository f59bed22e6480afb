//! The gRPC services, each an adapter onto what stands behind it.

mod agents;
mod authority;
mod control;
mod raft;

use http::{Request, Response};
use skep_proto as proto;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;

use crate::backend::Backends;
use crate::generated::raft_server::RaftServer as RaftStreamServer;
use crate::health::Health;
use crate::identity::RemoteNode;
use crate::policy::Service;
use agents::{AgentService, ResourceService};
use authority::AuthorityService;
use control::ControlService;
use proto::ca_server::CaServer;
use proto::control_server::ControlServer;
use proto::dispatcher_server::DispatcherServer;
use proto::health_server::HealthServer;
use proto::log_broker_server::LogBrokerServer;
use proto::logs_server::LogsServer;
use proto::node_ca_server::NodeCaServer;
use proto::raft_membership_server::RaftMembershipServer;
use proto::raft_server::RaftServer;
use proto::resource_allocator_server::ResourceAllocatorServer;
use raft::RaftService;

/// An agent reports many tasks at once; a raft entry may be larger than gRPC's default of 4 MiB
/// together with others.
const MAX_REQUEST: usize = 16 << 20;
/// A batch of raft messages among skep managers.
const MAX_BATCH: usize = 64 << 20;

pub(crate) struct Services {
    ca: CaServer<AuthorityService>,
    node_ca: NodeCaServer<AuthorityService>,
    dispatcher: DispatcherServer<AgentService>,
    log_broker: LogBrokerServer<AgentService>,
    logs: LogsServer<AgentService>,
    resources: ResourceAllocatorServer<ResourceService>,
    membership: RaftMembershipServer<RaftService>,
    raft: RaftServer<RaftService>,
    raft_stream: RaftStreamServer<RaftService>,
    health: HealthServer<Health>,
    control: ControlServer<ControlService>,
}

impl Services {
    pub(crate) fn new(backends: &Backends) -> Self {
        let authority = AuthorityService(backends.authority.clone());
        let agents = AgentService {
            dispatcher: backends.dispatcher.clone(),
            logs: backends.logs.clone(),
        };
        let raft = RaftService(backends.raft.clone());
        let control = ControlService(backends.control.clone());
        Self {
            // What strangers may send stays at gRPC's 4 MiB.
            ca: CaServer::new(authority.clone()),
            node_ca: NodeCaServer::new(authority),
            dispatcher: DispatcherServer::new(agents.clone())
                .max_decoding_message_size(MAX_REQUEST),
            log_broker: LogBrokerServer::new(agents.clone()).max_decoding_message_size(MAX_REQUEST),
            logs: LogsServer::new(agents),
            resources: ResourceAllocatorServer::new(ResourceService(backends.resources.clone())),
            membership: RaftMembershipServer::new(raft.clone()),
            raft: RaftServer::new(raft.clone()).max_decoding_message_size(MAX_REQUEST),
            raft_stream: RaftStreamServer::new(raft).max_decoding_message_size(MAX_BATCH),
            health: HealthServer::new(backends.health.clone()),
            control: ControlServer::new(control).max_decoding_message_size(MAX_REQUEST),
        }
    }

    pub(crate) async fn call(&self, service: Service, request: Request<Body>) -> Response<Body> {
        let response = match service {
            Service::Ca => self.ca.clone().call(request).await,
            Service::NodeCa => self.node_ca.clone().call(request).await,
            Service::Dispatcher => self.dispatcher.clone().call(request).await,
            Service::LogBroker => self.log_broker.clone().call(request).await,
            Service::Logs => self.logs.clone().call(request).await,
            Service::ResourceAllocator => self.resources.clone().call(request).await,
            Service::RaftMembership => self.membership.clone().call(request).await,
            Service::Raft => self.raft.clone().call(request).await,
            Service::RaftStream => self.raft_stream.clone().call(request).await,
            Service::Health => self.health.clone().call(request).await,
            Service::Control => self.control.clone().call(request).await,
        };
        let Ok(response) = response;
        response
    }
}

/// The node that the gate has let in.
fn caller<T>(request: &tonic::Request<T>) -> Result<RemoteNode, Status> {
    request
        .extensions()
        .get()
        .cloned()
        .ok_or_else(|| Status::permission_denied("Permission denied: no peer info"))
}
