//! A manager that knows SwarmKit's raft only, as a dockerd.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail like the test itself"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use skep_ca::{NodeRole, SecretKey};
use skep_proto as proto;
use skep_proto::health_server::HealthServer;
use skep_proto::raft_server::{Raft, RaftServer};
use skep_raft::{IfNew, RaftConfig, RaftNode, StateMachine};
use skep_rpc::{Connector, Health, NodeSecurity, RaftTransport, Slot};
use support::{Log, Manager, Swarm, eventually};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};
use tower::Service as _;

#[derive(Clone, Default)]
struct Plain {
    raft: Slot<RaftNode>,
    calls: Arc<AtomicUsize>,
    /// Only the oldest of the two calls.
    is_old: bool,
}

impl Plain {
    fn step(&self, message: Option<proto::raftpb::Message>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let (Some(raft), Some(message)) = (self.raft.get(), message) {
            raft.step(message).unwrap();
        }
    }
}

#[async_trait::async_trait]
impl Raft for Plain {
    async fn process_raft_message(
        &self,
        request: Request<proto::ProcessRaftMessageRequest>,
    ) -> Result<Response<proto::ProcessRaftMessageResponse>, Status> {
        self.step(request.into_inner().message);
        Ok(Response::new(proto::ProcessRaftMessageResponse {}))
    }

    async fn stream_raft_message(
        &self,
        request: Request<Streaming<proto::StreamRaftMessageRequest>>,
    ) -> Result<Response<proto::StreamRaftMessageResponse>, Status> {
        if self.is_old {
            return Err(Status::unimplemented("unknown method"));
        }
        let mut messages = request.into_inner();
        let first = messages.message().await?;
        assert!(messages.message().await?.is_none(), "one message, one call");
        self.step(first.and_then(|request| request.message));
        Ok(Response::new(proto::StreamRaftMessageResponse {}))
    }

    async fn resolve_address(
        &self,
        _request: Request<proto::ResolveAddressRequest>,
    ) -> Result<Response<proto::ResolveAddressResponse>, Status> {
        Err(Status::not_found("nobody"))
    }
}

async fn serve(listener: TcpListener, security: Arc<NodeSecurity>, plain: Plain) {
    let health = Health::default();
    health.set_serving(true);
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(security.current().server_config().clone());
        let (plain, health) = (plain.clone(), health.clone());
        tokio::spawn(async move {
            let tls = acceptor.accept(socket).await.unwrap();
            let service = hyper::service::service_fn(move |request: http::Request<_>| {
                let (plain, health) = (plain.clone(), health.clone());
                async move {
                    let request = request.map(|body: hyper::body::Incoming| Body::new(body));
                    let path = request.uri().path().to_owned();
                    if path.starts_with("/docker.swarmkit.v1.Raft/") {
                        RaftServer::new(plain).call(request).await
                    } else if path.starts_with("/docker.swarmkit.v1.Health/") {
                        HealthServer::new(health).call(request).await
                    } else {
                        Ok(Status::unimplemented("unknown service").into_http())
                    }
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // How the connection ends is of no interest.
            let _ = http.serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

async fn replicates_to(plain: Plain) {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let leader = Manager::found(&swarm, "m1", directory.path().join("m1")).await;
    let security = swarm.security(NodeRole::Manager, "old");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let advertise = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(serve(listener, Arc::clone(&security), plain.clone()));

    let connector = Connector::new(security);
    let to = leader.addr.to_string();
    let joined = skep_rpc::join_raft(&connector, &to, &advertise)
        .await
        .unwrap();
    let if_new = IfNew::Join {
        raft_id: joined.raft_id,
        members: joined.members,
    };
    let transport = RaftTransport::new(connector);
    let mut config = RaftConfig::new(directory.path().join("old"), SecretKey::generate(), if_new);
    config.ticks = skep_raft::Ticks::Every(swarm.tick);
    let log = Arc::new(Log::default());
    let machine = Arc::clone(&log) as Arc<dyn StateMachine>;
    let raft = RaftNode::start(config, machine, Arc::new(transport.clone())).unwrap();
    transport.attach(&raft);
    plain.raft.set(Arc::new(raft.clone()));

    for i in 0..20_u8 {
        leader.propose(vec![i]).await;
    }
    eventually("entries arrive", || log.entries().len() == 20).await;
    assert!(leader.transport.is_active(raft.id()));
    assert!(plain.calls.load(Ordering::Relaxed) > 1);
    plain.raft.clear();
    raft.stop().await;
    transport.stop();
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_without_our_stream_gets_a_call_for_each_message() {
    replicates_to(Plain::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_without_any_stream_gets_the_oldest_call() {
    let old = Plain {
        is_old: true,
        ..Plain::default()
    };
    replicates_to(old).await;
}
