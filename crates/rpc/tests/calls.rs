//! Calls between nodes: who is let in, who answers, what survives a renewal.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail like the test itself"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use skep_agent::{DispatcherClient as _, LogBrokerClient as _};
use skep_ca::{CertificateInfo, JoinToken, NodeRole};
use skep_proto as proto;
use skep_proto::control_client::ControlClient;
use skep_proto::dispatcher_client::DispatcherClient;
use skep_rpc::{
    Connector, DispatcherBackend, LogBackend, NodeSecurity, RemoteNode, Remotes, ResponseStream,
    Slot, StoreAuthority, Uplink,
};
use skep_store::MemoryProposer;
use skep_store::Store;
use support::{Manager, PATIENCE, Swarm, eventually, leader_of, three};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Status};

/// A dispatcher and log broker that write down who calls.
#[derive(Default)]
struct Fake {
    callers: Mutex<Vec<RemoteNode>>,
    statuses: Mutex<Vec<String>>,
    logs: Mutex<Vec<String>>,
    assignments: watch::Sender<proto::AssignmentsMessage>,
}

impl Fake {
    fn note(&self, caller: &RemoteNode) {
        self.callers.lock().push(caller.clone());
    }
}

#[async_trait::async_trait]
impl DispatcherBackend for Fake {
    async fn session(
        &self,
        caller: &RemoteNode,
        _request: proto::SessionRequest,
    ) -> Result<ResponseStream<proto::SessionMessage>, Status> {
        self.note(caller);
        let message = proto::SessionMessage {
            session_id: "session".into(),
            ..Default::default()
        };
        let endless = futures::stream::pending();
        Ok(futures::stream::iter([Ok(message)]).chain(endless).boxed())
    }

    async fn heartbeat(
        &self,
        caller: &RemoteNode,
        _request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Status> {
        self.note(caller);
        Ok(proto::HeartbeatResponse::default())
    }

    async fn update_task_status(
        &self,
        _caller: &RemoteNode,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<proto::UpdateTaskStatusResponse, Status> {
        let tasks = request.updates.into_iter().map(|update| update.task_id);
        self.statuses.lock().extend(tasks);
        Ok(proto::UpdateTaskStatusResponse {})
    }

    async fn assignments(
        &self,
        _caller: &RemoteNode,
        _request: proto::AssignmentsRequest,
    ) -> Result<ResponseStream<proto::AssignmentsMessage>, Status> {
        Ok(WatchStream::new(self.assignments.subscribe())
            .map(Ok)
            .boxed())
    }
}

#[async_trait::async_trait]
impl LogBackend for Fake {
    async fn listen_subscriptions(
        &self,
        _caller: &RemoteNode,
        _request: proto::ListenSubscriptionsRequest,
    ) -> Result<ResponseStream<proto::SubscriptionMessage>, Status> {
        Ok(futures::stream::pending().boxed())
    }

    async fn publish_logs(
        &self,
        _caller: &RemoteNode,
        mut messages: BoxStream<'static, proto::PublishLogsMessage>,
    ) -> Result<proto::PublishLogsResponse, Status> {
        while let Some(message) = messages.next().await {
            self.logs.lock().push(message.subscription_id);
        }
        Ok(proto::PublishLogsResponse {})
    }

    async fn subscribe_logs(
        &self,
        _request: proto::SubscribeLogsRequest,
    ) -> Result<ResponseStream<proto::SubscribeLogsMessage>, Status> {
        Ok(futures::stream::empty().boxed())
    }
}

fn fake(manager: &Manager) -> Arc<Fake> {
    let fake = Arc::new(Fake::default());
    manager.backends.dispatcher.set(fake.clone());
    manager.backends.logs.set(fake.clone());
    fake
}

fn uplink(connector: Connector, manager: &Manager) -> Uplink {
    let remotes = Remotes::of_addrs([manager.addr.to_string()]);
    Uplink::new(connector, Arc::new(remotes), Slot::default())
}

/// A cluster object with tokens, in a store of its own.
async fn authority(swarm: &Swarm) -> (Store, JoinToken, JoinToken) {
    let (store, _) = MemoryProposer::with_store();
    let (worker, manager) = (
        JoinToken::generate(&swarm.root),
        JoinToken::generate(&swarm.root),
    );
    let cluster = proto::Cluster {
        id: swarm.id.clone(),
        spec: Some(proto::ClusterSpec {
            annotations: Some(proto::Annotations {
                name: "default".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        root_ca: Some(proto::RootCa {
            ca_cert: swarm.root.certificate_pem().into(),
            ca_key: swarm.root.key_pem().unwrap().into(),
            join_tokens: Some(proto::JoinTokens {
                worker: worker.to_string(),
                manager: manager.to_string(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    store.update(|tx| tx.create(cluster)).await.unwrap();
    (store, worker, manager)
}

async fn one(swarm: &Swarm) -> (Manager, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let manager = Manager::found(swarm, "m1", directory.path().join("raft")).await;
    (manager, directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_with_its_token_in_the_role_that_the_token_says() {
    let swarm = Swarm::new();
    let (manager, _directory) = one(&swarm).await;
    let (store, worker, manager_token) = authority(&swarm).await;
    manager
        .backends
        .authority
        .set(Arc::new(StoreAuthority::new(store.clone())));
    let remotes = Remotes::of_addrs([manager.addr.to_string()]);
    let drain = proto::node_spec::Availability::Drain;

    for (token, role) in [
        (&worker, NodeRole::Worker),
        (&manager_token, NodeRole::Manager),
    ] {
        let admitted = skep_rpc::admission(&remotes, token, drain).await.unwrap();
        let identity = admitted.info.identity().unwrap();
        assert_eq!((identity.role, &identity.organization), (role, &swarm.id));
        let node = store
            .snapshot()
            .get::<proto::Node>(&identity.node_id)
            .cloned()
            .unwrap();
        assert_eq!(node.spec.as_ref().unwrap().availability(), drain);
        assert_eq!(
            admitted.root.certificate_pem(),
            swarm.root.certificate_pem()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_refused_in_dockers_words_and_leave_nothing() {
    let swarm = Swarm::new();
    let (manager, _directory) = one(&swarm).await;
    let (store, _, _) = authority(&swarm).await;
    manager
        .backends
        .authority
        .set(Arc::new(StoreAuthority::new(store.clone())));
    let remotes = Remotes::of_addrs([manager.addr.to_string()]);
    let refusal = async |token: &JoinToken| {
        let active = proto::node_spec::Availability::Active;
        let admitted = skep_rpc::admission(&remotes, token, active).await;
        admitted.err().expect("it is refused").to_string()
    };
    let rotated = JoinToken::generate(&swarm.root);
    assert_eq!(
        refusal(&rotated).await,
        "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this \
         cluster"
    );
    let other = JoinToken::generate(&Swarm::new().root);
    let text = refusal(&other).await;
    assert!(
        text.starts_with("remote CA does not match fingerprint. Expected: "),
        "{text}"
    );
    assert_eq!(store.snapshot().nodes().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_session_runs_over_the_wire() {
    let swarm = Swarm::new();
    let (manager, _directory) = one(&swarm).await;
    let fake = fake(&manager);
    let uplink = uplink(swarm.connector(NodeRole::Worker, "w1"), &manager);

    let mut session = uplink
        .session(proto::SessionRequest::default())
        .await
        .unwrap();
    assert_eq!(session.next().await.unwrap().unwrap().session_id, "session");
    uplink
        .heartbeat(proto::HeartbeatRequest::default())
        .await
        .unwrap();
    let update = proto::UpdateTaskStatusRequest {
        updates: vec![proto::update_task_status_request::TaskStatusUpdate {
            task_id: "t1".into(),
            status: None,
        }],
        ..Default::default()
    };
    uplink.update_task_status(update).await.unwrap();
    let mut assignments = uplink
        .assignments(proto::AssignmentsRequest::default())
        .await
        .unwrap();
    assignments.next().await.unwrap().unwrap();
    fake.assignments.send_replace(proto::AssignmentsMessage {
        results_in: "2".into(),
        ..Default::default()
    });
    assert_eq!(assignments.next().await.unwrap().unwrap().results_in, "2");
    let logs = (0..3).map(|i| proto::PublishLogsMessage {
        subscription_id: format!("s{i}"),
        ..Default::default()
    });
    uplink
        .publish_logs(futures::stream::iter(logs.collect::<Vec<_>>()).boxed())
        .await
        .unwrap();

    assert_eq!(*fake.statuses.lock(), ["t1"]);
    assert_eq!(*fake.logs.lock(), ["s0", "s1", "s2"]);
    let callers = fake.callers.lock();
    assert!(
        callers
            .iter()
            .all(|c| c.node_id == "w1" && c.ip().unwrap().is_loopback())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_passes_an_agents_calls_on_to_the_leader_as_the_agents() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let managers = three(&swarm, directory.path()).await;
    let leader = leader_of(&managers).await;
    let follower = &managers[(leader + 1) % 3];
    let fake = fake(&managers[leader]);
    let uplink = uplink(swarm.connector(NodeRole::Worker, "w1"), follower);

    let mut session = uplink
        .session(proto::SessionRequest::default())
        .await
        .unwrap();
    assert_eq!(session.next().await.unwrap().unwrap().session_id, "session");
    let mut assignments = uplink
        .assignments(proto::AssignmentsRequest::default())
        .await
        .unwrap();
    assignments.next().await.unwrap().unwrap();
    let message = proto::PublishLogsMessage::default();
    uplink
        .publish_logs(futures::stream::iter([message]).boxed())
        .await
        .unwrap();
    let caller = fake.callers.lock()[0].clone();
    assert_eq!(caller.node_id, "w1");
    assert_eq!(caller.roles, ["swarm-worker"]);
    assert_eq!(caller.forwarded_by.as_ref(), Some(&follower.node_id));
    assert!(caller.ip().unwrap().is_loopback());

    let channel = swarm.connector(NodeRole::Manager, "m9");
    let channel = channel.connect(&follower.addr.to_string()).await.unwrap();
    let mut second_hop = tonic::Request::new(proto::HeartbeatRequest::default());
    second_hop
        .metadata_mut()
        .insert("redirect", "10.0.0.1:5".parse().unwrap());
    let refused = DispatcherClient::new(channel)
        .heartbeat(second_hop)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        refused.message(),
        "more than one redirect to leader from: [10.0.0.1:5]"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_strangers_and_removed_nodes_are_kept_out() {
    let swarm = Swarm::new();
    let (manager, _directory) = one(&swarm).await;
    fake(&manager);
    let (store, _, _) = authority(&swarm).await;
    manager.backends.removed.set(Arc::new(store.clone()));
    let addr = manager.addr.to_string();

    let channel = swarm
        .connector(NodeRole::Worker, "w1")
        .connect(&addr)
        .await
        .unwrap();
    let request = proto::ListNodesRequest::default();
    let refused = ControlClient::new(channel.clone())
        .list_nodes(request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let beat = || proto::HeartbeatRequest::default();
    DispatcherClient::new(channel.clone())
        .heartbeat(beat())
        .await
        .unwrap();

    store
        .update(|tx| {
            tx.modify::<proto::Cluster>(&swarm.id, |cluster| {
                let expiry = proto::BlacklistedCertificate::default();
                cluster.blacklisted_certificates.insert("w1".into(), expiry);
            })
        })
        .await
        .unwrap();
    let refused = DispatcherClient::new(channel)
        .heartbeat(beat())
        .await
        .unwrap_err();
    assert!(
        refused
            .message()
            .ends_with("node w1 was removed from swarm"),
        "{refused}"
    );

    let mut other = Swarm::new();
    other.id.clone_from(&swarm.id);
    let channel = other.connector(NodeRole::Worker, "w1").connect(&addr).await;
    assert!(channel.is_err(), "the roots differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_while_streams_go_on() {
    let swarm = Swarm::new();
    let (manager, _directory) = one(&swarm).await;
    let fake = fake(&manager);
    let (store, worker, _) = authority(&swarm).await;
    manager
        .backends
        .authority
        .set(Arc::new(StoreAuthority::new(store.clone())));
    let remotes = Arc::new(Remotes::of_addrs([manager.addr.to_string()]));
    let active = proto::node_spec::Availability::Active;
    let admitted = skep_rpc::admission(&remotes, &worker, active)
        .await
        .unwrap();
    let node_id = admitted.info.common_name.unwrap();
    let security = NodeSecurity::new(&admitted.root, admitted.certificate).unwrap();
    let security = Arc::new(security);
    let uplink = Uplink::new(
        Connector::new(Arc::clone(&security)),
        remotes,
        Slot::default(),
    );
    let uplink = Arc::new(uplink);
    let _session = uplink
        .session(proto::SessionRequest::default())
        .await
        .unwrap();
    let mut assignments = uplink
        .assignments(proto::AssignmentsRequest::default())
        .await
        .unwrap();
    assignments.next().await.unwrap().unwrap();

    // The node is promoted: it asks until its certificate says so.
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let renewer = skep_rpc::Renewer::new(
        Arc::clone(&security),
        Arc::clone(&uplink),
        Box::new(move |certificate| {
            *keep.lock() = Some(certificate.certificate_pem.clone());
            Ok(())
        }),
    );
    let stop = tokio_util::sync::CancellationToken::new();
    let renewer = Arc::new(renewer);
    let running = tokio::spawn({
        let (renewer, stop) = (Arc::clone(&renewer), stop.clone());
        async move { renewer.run(stop).await }
    });
    renewer.expect_role(NodeRole::Manager);
    let mut changes = security.subscribe();
    changes.changed().await.unwrap();
    store
        .update(|tx| {
            tx.modify::<proto::Node>(&node_id, |node| node.role = proto::NodeRole::Manager.into())
        })
        .await
        .unwrap();
    let promoted = changes.wait_for(|c| c.identity().role == NodeRole::Manager);
    let promoted = tokio::time::timeout(PATIENCE, promoted)
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert_eq!(promoted.identity().node_id, node_id);
    let kept = kept.lock().clone().unwrap();
    assert_eq!(kept, promoted.certificate().certificate_pem);

    // The manager's own certificate changes too.
    let before =
        CertificateInfo::from_pem(&manager.security.current().certificate().certificate_pem);
    manager
        .security
        .renew(swarm.certificate(NodeRole::Manager, "m1"))
        .unwrap();
    assert!(before.is_ok());
    fake.assignments.send_replace(proto::AssignmentsMessage {
        results_in: "2".into(),
        ..Default::default()
    });
    assert_eq!(assignments.next().await.unwrap().unwrap().results_in, "2");
    let _session = uplink
        .session(proto::SessionRequest::default())
        .await
        .unwrap();
    let caller = fake.callers.lock().last().cloned().unwrap();
    assert_eq!(
        caller.roles,
        ["swarm-manager"],
        "a new connection shows the new certificate"
    );
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_past_its_certificate_may_only_ask_for_a_new_one() {
    let swarm = Swarm::new();
    let (manager, _directory) = one(&swarm).await;
    fake(&manager);
    let (store, _, _) = authority(&swarm).await;
    manager
        .backends
        .authority
        .set(Arc::new(StoreAuthority::new(store.clone())));
    let node = proto::Node {
        id: "w1".into(),
        ..Default::default()
    };
    store.update(|tx| tx.create(node)).await.unwrap();
    let long_ago = OffsetDateTime::now_utc() - Duration::from_secs(86_400);
    let expired = swarm.certificate_at(NodeRole::Worker, "w1", long_ago);
    let security = Arc::new(NodeSecurity::new(&swarm.root, expired).unwrap());
    let uplink = uplink(Connector::new(security), &manager);

    let refused = uplink
        .session(proto::SessionRequest::default())
        .await
        .err()
        .unwrap();
    assert!(
        refused
            .message()
            .ends_with("the certificate of node w1 has expired"),
        "{refused}"
    );
    let renewed = uplink.renew(&swarm.root).await.unwrap();
    let info = CertificateInfo::from_pem(&renewed.certificate_pem).unwrap();
    assert_eq!(info.common_name.as_deref(), Some("w1"));
    assert!(info.not_after > OffsetDateTime::now_utc());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_signs_what_another_one_left_unsigned() {
    let swarm = Swarm::new();
    let (store, _, _) = authority(&swarm).await;
    let key = skep_ca::NodeKey::generate().unwrap();
    let node = proto::Node {
        id: "w1".into(),
        spec: Some(proto::NodeSpec {
            membership: proto::node_spec::Membership::Accepted.into(),
            ..Default::default()
        }),
        certificate: Some(proto::Certificate {
            cn: "w1".into(),
            csr: key.request_pem().unwrap().into_bytes(),
            status: Some(proto::IssuanceStatus {
                state: proto::issuance_status::State::Pending.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    store.update(|tx| tx.create(node)).await.unwrap();
    let authority = Arc::new(StoreAuthority::new(store));
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let (authority, stop) = (Arc::clone(&authority), stop.clone());
        async move { authority.run(stop).await }
    });
    let ask = proto::NodeCertificateStatusRequest {
        node_id: "w1".into(),
    };
    use skep_rpc::CertificateAuthority as _;
    let answer = tokio::time::timeout(PATIENCE, authority.status(ask))
        .await
        .unwrap()
        .unwrap();
    let certificate = String::from_utf8(answer.certificate.unwrap().certificate).unwrap();
    swarm
        .root
        .verify(&certificate, OffsetDateTime::now_utc())
        .unwrap();
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_does_no_harm() {
    let swarm = Swarm::new();
    let (manager, _directory) = one(&swarm).await;
    fake(&manager);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 4096],
        &[0x16, 3, 1, 0xff, 0xff, 1, 0],
    ] {
        let mut socket = tokio::net::TcpStream::connect(manager.addr).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        // It hangs up; with an alert or without one.
        let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut Vec::new()))
            .await
            .unwrap();
    }
    let channel = swarm.connector(NodeRole::Worker, "w1");
    let channel = channel.connect(&manager.addr.to_string()).await.unwrap();
    let mut client = DispatcherClient::new(channel.clone());
    client
        .heartbeat(proto::HeartbeatRequest::default())
        .await
        .unwrap();

    let mut unknown = tonic::client::Grpc::new(channel);
    unknown.ready().await.unwrap();
    let path = "/skep.v9.Nothing/Method".parse().unwrap();
    let codec: tonic_prost::ProstCodec<proto::HeartbeatRequest, proto::HeartbeatResponse> =
        tonic_prost::ProstCodec::default();
    let request = tonic::Request::new(proto::HeartbeatRequest::default());
    let refused = unknown.unary(request, path, codec).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nobody_waits_long_to_hear_of_it() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let first = Manager::found(&swarm, "m1", directory.path().join("m1")).await;
    let second = Manager::join(&swarm, "m2", directory.path().join("m2"), first.addr).await;
    eventually("both are members", || {
        second.raft.members().borrow().len() == 2
    })
    .await;
    second.stop().await;
    let uplink = uplink(swarm.connector(NodeRole::Worker, "w1"), &first);
    eventually("it steps down", || {
        !first.raft.leadership().borrow().is_leader()
    })
    .await;
    let session = uplink.session(proto::SessionRequest::default());
    let refused = tokio::time::timeout(PATIENCE, session)
        .await
        .unwrap()
        .err()
        .unwrap();
    assert_eq!(refused.message(), skep_rpc::NO_LEADER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_port_can_be_bound_again_at_once() {
    let swarm = Swarm::new();
    let (manager, _directory) = one(&swarm).await;
    let fake = fake(&manager);
    let uplink = uplink(swarm.connector(NodeRole::Worker, "w1"), &manager);
    let mut session = uplink
        .session(proto::SessionRequest::default())
        .await
        .unwrap();
    session.next().await.unwrap().unwrap();
    let stopped = tokio::time::timeout(PATIENCE, manager.stop())
        .await
        .expect("streams end");
    let ended = tokio::time::timeout(PATIENCE, session.next())
        .await
        .unwrap();
    assert!(ended.is_none_or(|message| message.is_err()));
    let again = Manager::resume(&swarm, stopped).await;
    again.leads().await;
    drop(fake);
}

/// A manager's store as raft keeps it, near enough: what the leader commits, the other sees later.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_has_the_leader_write_and_then_reads_what_was_written() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let mut managers = three(&swarm, directory.path()).await;
    let leader = leader_of(&managers).await;
    let (store, _, _) = authority(&swarm).await;
    let (_members, members) = watch::channel(Arc::default());
    let control = skep_manager::Control::new(store.clone(), members);
    for manager in &managers {
        manager.backends.control.set(Arc::new(control.clone()));
    }
    let follower = &managers[(leader + 1) % 3];
    let route = follower.backends.leader.get().unwrap();
    let router = skep_rpc::ControlRouter::new(control, store, route, Arc::new(Fake::default()));

    let secret = |name: &str| proto::CreateSecretRequest {
        spec: Some(proto::SecretSpec {
            annotations: Some(proto::Annotations {
                name: name.into(),
                ..Default::default()
            }),
            data: b"hidden".to_vec(),
            ..Default::default()
        }),
    };
    let created = router.create_secret(secret("one")).await.unwrap();
    let id = created.secret.unwrap().id;
    let ask = proto::GetSecretRequest {
        secret_id: id.clone(),
    };
    router.get_secret(&ask).unwrap();
    let refused = router.create_secret(secret("one")).await.unwrap_err();
    assert!(refused.to_string().contains("AlreadyExists"), "{refused}");
    let remove = proto::RemoveSecretRequest { secret_id: id };
    router.remove_secret(remove.clone()).await.unwrap();
    let refused = router.remove_secret(remove).await.unwrap_err();
    assert_eq!(refused.code, skep_manager::Code::NotFound);

    // The leader dies: the write waits for the next one.
    managers.remove(leader).stop().await;
    router.create_secret(secret("two")).await.unwrap();
}
