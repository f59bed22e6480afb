//! The swarm moves to another root certificate, and has its certificates issued elsewhere.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail like the test itself"
)]

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use skep_agent::DispatcherClient as _;
use skep_ca::{JoinToken, NodeIdentity, NodeRole, RootCa};
use skep_manager::{Manager, ManagerConfig};
use skep_proto as proto;
use skep_proto::issuance_status::State;
use skep_rpc::{
    Backends, Connector, ExternalClient, Leader, LeaderRoute, NodeSecurity, Remotes, Renewer,
    RpcServer, Slot, StoreAuthority, Uplink,
};
use skep_store::{MemoryProposer, Store};
use support::{Swarm, eventually};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::Status;

struct Here;

#[async_trait::async_trait]
impl LeaderRoute for Here {
    fn now(&self) -> Option<Leader> {
        Some(Leader::Here)
    }

    async fn wait(&self) -> Result<Leader, Status> {
        Ok(Leader::Here)
    }
}

/// A manager's port with everything behind it that issues certificates.
struct Port {
    addr: SocketAddr,
    store: Store,
    manager: Manager,
    authority: Arc<StoreAuthority>,
    _server: RpcServer,
    _leads: watch::Sender<bool>,
    _members: watch::Sender<Arc<Vec<skep_manager::Member>>>,
    stop: CancellationToken,
}

impl Port {
    async fn open(swarm: &Swarm, ca_config: proto::CaConfig, has_key: bool) -> Self {
        let (store, _) = MemoryProposer::with_store();
        let token = || JoinToken::generate(&swarm.root).to_string();
        let key = swarm.root.key_pem().filter(|_| has_key);
        let cluster = proto::Cluster {
            id: swarm.id.clone(),
            spec: Some(proto::ClusterSpec {
                annotations: Some(proto::Annotations {
                    name: "default".into(),
                    ..Default::default()
                }),
                ca_config: Some(ca_config),
                ..Default::default()
            }),
            root_ca: Some(proto::RootCa {
                ca_cert: swarm.root.certificate_pem().into(),
                ca_key: key.unwrap_or_default().into(),
                join_tokens: Some(proto::JoinTokens {
                    worker: token(),
                    manager: token(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        store.update(|tx| tx.create(cluster)).await.unwrap();
        let security = swarm.security(NodeRole::Manager, "m0");
        let (leads, leadership) = watch::channel(true);
        let (members_sender, members) = watch::channel(Arc::default());
        let manager = Manager::start(ManagerConfig {
            node_id: "m0".into(),
            store: store.clone(),
            leadership,
            members,
        });
        let manager =
            manager.with_external_authorities(Arc::new(ExternalClient::new(Arc::clone(&security))));
        let authority = StoreAuthority::as_node(store.clone(), Arc::clone(&security));
        let authority = Arc::new(authority);
        let backends = Backends::default();
        backends.leader.set(Arc::new(Here));
        backends.removed.set(Arc::new(store.clone()));
        backends.dispatcher.set(manager.dispatcher().clone());
        backends.authority.set(Arc::clone(&authority) as _);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = RpcServer::start(listener, security, backends).unwrap();
        Self {
            addr,
            store,
            manager,
            authority,
            _server: server,
            _leads: leads,
            _members: members_sender,
            stop: CancellationToken::new(),
        }
    }

    /// Does what only the leader does, from here on.
    fn lead(&self) {
        let (authority, stop) = (Arc::clone(&self.authority), self.stop.child_token());
        tokio::spawn(async move { authority.run(stop).await });
    }

    fn root(&self) -> proto::RootCa {
        let snapshot = self.store.snapshot();
        snapshot.the_cluster().unwrap().root_ca.clone().unwrap()
    }

    fn token(&self) -> JoinToken {
        let tokens = self.root().join_tokens.unwrap();
        tokens.worker.parse().unwrap()
    }

    async fn configure(&self, change: impl FnOnce(&mut proto::CaConfig)) -> Result<(), String> {
        let cluster = self.store.snapshot().the_cluster().cloned().unwrap();
        let mut spec = cluster.spec.clone().unwrap();
        change(spec.ca_config.get_or_insert_default());
        let request = proto::UpdateClusterRequest {
            cluster_id: cluster.id.clone(),
            cluster_version: cluster.meta.as_ref().unwrap().version,
            spec: Some(spec),
            rotation: None,
        };
        let updated = self.manager.control().update_cluster(request).await;
        updated.map(drop).map_err(|error| error.message)
    }

    async fn join(&self, token: &JoinToken) -> Result<Node, String> {
        let remotes = Remotes::of_addrs([self.addr.to_string()]);
        let active = proto::node_spec::Availability::Active;
        let admitted = skep_rpc::admission(&remotes, token, active).await;
        let admitted = admitted.map_err(|error| error.to_string())?;
        Ok(Node::start(admitted, remotes))
    }

    fn is_settled(&self, nodes: usize) -> bool {
        let described = |node: &&Arc<proto::Node>| node.description.is_some();
        self.store.snapshot().nodes().filter(described).count() == nodes
    }
}

/// A node's session, and what it does about its certificate.
struct Node {
    security: Arc<NodeSecurity>,
    renewals: Arc<Mutex<usize>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Node {
    fn start(admitted: skep_rpc::Admission, remotes: Remotes) -> Self {
        let security = NodeSecurity::new(&admitted.root, admitted.certificate).unwrap();
        let security = Arc::new(security);
        let connector = Connector::new(Arc::clone(&security));
        let uplink = Arc::new(Uplink::new(connector, Arc::new(remotes), Slot::default()));
        let renewals = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&renewals);
        let renewer = Arc::new(Renewer::new(
            Arc::clone(&security),
            Arc::clone(&uplink),
            Box::new(move |_| {
                *counted.lock() += 1;
                Ok(())
            }),
        ));
        let stop = CancellationToken::new();
        let (renewing, stopped) = (Arc::clone(&renewer), stop.clone());
        tokio::spawn(async move { renewing.run(stopped).await });
        let (known, stopped) = (Arc::clone(&security), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = sessions(&known, &uplink, &renewer) => {}
            }
        });
        Self {
            security,
            renewals,
            _stop: stop.drop_guard(),
        }
    }

    fn trusts(&self, root: &proto::RootCa) -> bool {
        self.security.current().root_pem().as_bytes() == root.ca_cert
    }
}

/// One session after the other: a new one whenever the certificate changes.
async fn sessions(security: &NodeSecurity, uplink: &Uplink, renewer: &Renewer) {
    let mut credentials = security.subscribe();
    loop {
        let info = credentials.borrow_and_update().tls_info().clone();
        let request = proto::SessionRequest {
            description: Some(proto::NodeDescription {
                tls_info: Some(info),
                ..Default::default()
            }),
            ..Default::default()
        };
        // Too many sessions in too short a time are refused; the next turn tries again.
        let Ok(mut messages) = uplink.session(request).await else {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            continue;
        };
        loop {
            tokio::select! {
                _ = credentials.changed() => break,
                message = messages.next() => match message {
                    Some(Ok(message)) => take(security, renewer, &message),
                    _ => break,
                },
            }
        }
    }
}

fn take(security: &NodeSecurity, renewer: &Renewer, message: &proto::SessionMessage) {
    let root = std::str::from_utf8(&message.root_ca).unwrap();
    if root != security.current().root_pem() {
        security
            .trust(&RootCa::from_pem(root, None).unwrap())
            .unwrap();
    }
    let node = message.node.as_ref().unwrap();
    let status = node.certificate.as_ref().unwrap().status.as_ref().unwrap();
    if status.state() == State::Rotate {
        renewer.renew_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_follows_the_swarm_to_its_next_root() {
    let swarm = Swarm::new();
    let port = Port::open(&swarm, proto::CaConfig::default(), true).await;
    let old = port.token();
    let nodes = [
        port.join(&old).await.unwrap(),
        port.join(&old).await.unwrap(),
    ];
    eventually("both have a session", || port.is_settled(2)).await;
    let before = port.root();

    port.configure(|ca| ca.force_rotate = 1).await.unwrap();
    let under_way = port.root();
    assert_eq!(under_way.ca_cert, before.ca_cert);
    assert!(under_way.root_rotation.is_some());
    // Nobody leads yet: whoever comes to lead goes on with what is in the store.
    let newcomer = port.join(&old).await.unwrap();
    eventually("all have sessions", || port.is_settled(3)).await;
    port.lead();
    eventually("the rotation is through", || {
        port.root().root_rotation.is_none()
    })
    .await;

    let after = port.root();
    assert_eq!(after.ca_cert, under_way.root_rotation.unwrap().ca_cert);
    assert_ne!(after.join_tokens, before.join_tokens);
    let all = || {
        nodes
            .iter()
            .chain([&newcomer])
            .all(|node| node.trusts(&after))
    };
    eventually("all nodes trust the next root", all).await;
    assert!(nodes.iter().all(|node| *node.renewals.lock() >= 1));
    assert_eq!(
        *newcomer.renewals.lock(),
        0,
        "its certificate was of the next root"
    );

    let refused = port.join(&old).await.err().unwrap();
    assert!(
        refused.starts_with("remote CA does not match fingerprint."),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_rotation_replaces_the_first() {
    let swarm = Swarm::new();
    let port = Port::open(&swarm, proto::CaConfig::default(), true).await;
    let node = port.join(&port.token()).await.unwrap();
    eventually("it has a session", || port.is_settled(1)).await;
    port.configure(|ca| ca.force_rotate = 1).await.unwrap();
    let first = port.root().root_rotation.unwrap().ca_cert;
    port.lead();
    port.configure(|ca| ca.force_rotate = 2).await.unwrap();
    eventually("the rotation is through", || {
        port.root().root_rotation.is_none()
    })
    .await;
    assert_ne!(port.root().ca_cert, first);
    eventually("the node trusts it", || node.trusts(&port.root())).await;
}

/// An authority that speaks cfssl's protocol, and shows its certificate of the root.
async fn cfssl(root: RootCa, next: RootCa) -> String {
    // Issued to a node of that name, it is good for that name.
    let identity = NodeIdentity {
        organization: "authority".into(),
        role: NodeRole::Worker,
        node_id: "localhost".into(),
    };
    let hour = std::time::Duration::from_secs(3600);
    let certificate = root
        .issue(&identity, hour, OffsetDateTime::now_utc())
        .unwrap();
    let mut config = skep_ca::server_config(&root, &certificate).unwrap();
    config.alpn_protocols.clear();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let roots = Arc::new((root, next));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, roots) = (acceptor.clone(), Arc::clone(&roots));
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(socket).await else {
                    return;
                };
                let service = hyper::service::service_fn(move |request| {
                    let roots = Arc::clone(&roots);
                    async move { Ok::<_, Infallible>(answer(request, &roots).await) }
                });
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(tls), service).await;
            });
        }
    });
    format!("https://localhost:{port}/api/v1/cfssl/sign")
}

async fn answer(request: Request<Incoming>, roots: &(RootCa, RootCa)) -> Response<Full<Bytes>> {
    assert_eq!(request.uri().path(), "/api/v1/cfssl/sign");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let certificate = if asked["profile"] == "CA" {
        assert_eq!(asked["extensions"][0]["id"], "2.5.29.19");
        roots.0.cross_sign(roots.1.certificate_pem()).unwrap()
    } else {
        let name = &asked["subject"]["names"][0];
        let identity = NodeIdentity {
            organization: name["O"].as_str().unwrap().into(),
            role: NodeRole::from_organizational_unit(name["OU"].as_str().unwrap()).unwrap(),
            node_id: asked["subject"]["CN"].as_str().unwrap().into(),
        };
        assert_eq!(asked["hosts"][1], identity.node_id);
        let csr = asked["certificate_request"].as_str().unwrap();
        let hour = std::time::Duration::from_secs(3600);
        roots
            .0
            .sign(csr, &identity, hour, OffsetDateTime::now_utc())
            .unwrap()
    };
    let answer = json!({ "success": true, "result": { "certificate": certificate } });
    Response::new(Full::new(Bytes::from(answer.to_string())))
}

fn copy(root: &RootCa) -> RootCa {
    RootCa::from_pem(root.certificate_pem(), root.key_pem().as_deref()).unwrap()
}

fn authority_at(url: String) -> proto::ExternalCa {
    proto::ExternalCa {
        url,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_elsewhere_signs_and_hands_over_to_a_root_of_the_swarms_own() {
    let swarm = Swarm::new();
    let next = RootCa::generate(OffsetDateTime::now_utc()).unwrap();
    let url = cfssl(copy(&swarm.root), copy(&next)).await;
    let config = proto::CaConfig {
        external_cas: vec![authority_at(url)],
        ..Default::default()
    };
    let port = Port::open(&swarm, config, false).await;
    port.lead();
    let node = port.join(&port.token()).await.unwrap();
    eventually("it has a session", || port.is_settled(1)).await;

    let taken_away = port.configure(|ca| ca.external_cas.clear()).await;
    assert_eq!(
        taken_away.unwrap_err(),
        "there must be at least one valid, reachable external CA corresponding to the current CA \
         certificate"
    );
    port.configure(|ca| {
        ca.signing_ca_cert = next.certificate_pem().into();
        ca.signing_ca_key = next.key_pem().unwrap().into();
    })
    .await
    .unwrap();
    eventually("the rotation is through", || {
        port.root().root_rotation.is_none()
    })
    .await;
    assert_eq!(port.root().ca_key, next.key_pem().unwrap().as_bytes());
    eventually("the node trusts it", || node.trusts(&port.root())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_can_sign_waits_for_somebody_who_can() {
    let swarm = Swarm::new();
    let config = proto::CaConfig {
        external_cas: vec![authority_at("https://localhost:1/".into())],
        ..Default::default()
    };
    let port = Port::open(&swarm, config, true).await;
    port.lead();
    let token = port.token();
    let joining = port.join(&token);
    let mut joining = std::pin::pin!(joining);
    let waits = async {
        eventually("the request is there", || {
            let snapshot = port.store.snapshot();
            let pending = |node: &&Arc<proto::Node>| {
                let certificate = node.certificate.as_ref().unwrap();
                certificate.status.as_ref().unwrap().state() == State::Pending
            };
            snapshot.nodes().filter(pending).count() == 1
        })
        .await;
        // The swarm has the key itself: without the authority it signs.
        port.configure(|ca| ca.external_cas.clear()).await.unwrap();
    };
    tokio::select! {
        _ = joining.as_mut() => panic!("nobody can have signed"),
        () = waits => {}
    }
    tokio::time::timeout(support::PATIENCE, joining)
        .await
        .unwrap()
        .unwrap();
}
