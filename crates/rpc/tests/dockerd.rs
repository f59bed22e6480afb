//! Debian's dockerd as a worker of managers whose port is this crate's.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail like the test itself"
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use prost::Message as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use skep_agent::DispatcherClient as _;
use skep_ca::{JoinToken, NodeRole, SecretKey};
use skep_manager::{Manager, ManagerConfig, Member};
use skep_proto as proto;
use skep_proto::raft_member_status::Reachability;
use skep_raft::{BoxError, IfNew, RaftConfig, RaftNode, StateMachine};
use skep_rpc::{
    Backends, BrokerLogs, Connector, Leader, LeaderRoute, NodeSecurity, RaftMember, RaftTransport,
    Remotes, RpcServer, Slot, StoreAuthority, Uplink,
};
use skep_store::{MemoryProposer, Store};
use skep_testkit::{Daemon, Machine};
use support::{Swarm, eventually_within};
use tokio::sync::watch;
use tonic::Status;

const SLOW: Duration = Duration::from_secs(90);

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

fn tree() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    workspace.join("target/peers/docker.io")
}

/// Debian's dockerd, run from where `cargo xtask` has unpacked it.
fn dockerd(directory: &Path) -> Daemon {
    let tree = tree();
    let config = directory.join("daemon.json");
    std::fs::write(&config, "{}").unwrap();
    let path = format!(
        "{0}/usr/bin:{0}/usr/sbin:{0}/usr/libexec/docker:/usr/sbin:/usr/bin:/sbin:/bin",
        tree.display()
    );
    let libraries = format!(
        "{0}/usr/lib/x86_64-linux-gnu:{0}/lib/x86_64-linux-gnu",
        tree.display()
    );
    Daemon::builder()
        .program(&tree.join("usr/sbin/dockerd"))
        .env("PATH", &path)
        .env("LD_LIBRARY_PATH", &libraries)
        .flag(&format!("--config-file={}", config.display()))
        .flag("--debug")
        .image("busybox")
        .start()
        .unwrap()
}

/// A port of the network namespace that a process is in.
fn listen_beside(pid: u32, addr: &str) -> tokio::net::TcpListener {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let addr = addr.to_owned();
    let bind = move || {
        use std::os::fd::AsFd as _;
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).unwrap();
        std::net::TcpListener::bind(addr).unwrap()
    };
    // The thread ends, and with it its stay there.
    let listener = std::thread::spawn(bind).join().unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::net::TcpListener::from_std(listener).unwrap()
}

async fn found(swarm: &Swarm, store: &Store) -> JoinToken {
    let token = JoinToken::generate(&swarm.root);
    let cluster = proto::Cluster {
        id: swarm.id.clone(),
        spec: Some(proto::ClusterSpec {
            annotations: Some(proto::Annotations {
                name: "default".into(),
                ..Default::default()
            }),
            dispatcher: Some(proto::DispatcherConfig {
                heartbeat_period: Some(prost_types::Duration {
                    seconds: 1,
                    nanos: 0,
                }),
            }),
            ..Default::default()
        }),
        root_ca: Some(proto::RootCa {
            ca_cert: swarm.root.certificate_pem().into(),
            ca_key: swarm.root.key_pem().unwrap().into(),
            join_tokens: Some(proto::JoinTokens {
                worker: token.to_string(),
                manager: JoinToken::generate(&swarm.root).to_string(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    store.update(|tx| tx.create(cluster)).await.unwrap();
    token
}

fn the_node(store: &Store) -> Option<Arc<proto::Node>> {
    store.snapshot().nodes().next().cloned()
}

fn state(store: &Store) -> Option<proto::node_status::State> {
    Some(the_node(store)?.status.as_ref()?.state())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's dockerd below target/peers (cargo xtask bench fetches it)"]
async fn a_stock_dockerd_joins_runs_tasks_and_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let dockerd = dockerd(directory.path());
    let swarm = Swarm::new();
    let (store, _) = MemoryProposer::with_store();
    let token = found(&swarm, &store).await;
    let addr = format!("{}:2377", Machine::ADDRESS);
    let me = Member {
        raft_id: 1,
        node_id: "m1".into(),
        addr: addr.clone(),
        leader: true,
        reachability: Reachability::Reachable,
    };
    let (_leads, leadership) = watch::channel(true);
    let (_members, members) = watch::channel(Arc::new(vec![me]));
    let manager = Manager::start(ManagerConfig {
        node_id: "m1".into(),
        store: store.clone(),
        leadership,
        members,
    });
    let backends = Backends::default();
    backends.leader.set(Arc::new(Here));
    backends.removed.set(Arc::new(store.clone()));
    backends.dispatcher.set(manager.dispatcher().clone());
    backends
        .logs
        .set(Arc::new(BrokerLogs(manager.log_broker().clone())));
    backends
        .authority
        .set(Arc::new(StoreAuthority::new(store.clone())));
    backends.control.set(Arc::new(manager.control().clone()));
    let certificate = swarm.certificate(NodeRole::Manager, "m1");
    let security = Arc::new(NodeSecurity::new(&swarm.root, certificate).unwrap());
    let listener = listen_beside(dockerd.pid(), &addr);
    let server = RpcServer::start(listener, security, backends).unwrap();

    let wrong = JoinToken::generate(&Swarm::new().root);
    let refused = dockerd.sh(&format!("swarm join --token {wrong} {addr}"));
    assert!(
        refused
            .stderr
            .contains("remote CA does not match fingerprint"),
        "{refused}"
    );
    let rotated = JoinToken::generate(&swarm.root);
    let refused = dockerd.sh(&format!("swarm join --token {rotated} {addr}"));
    assert!(
        refused.stderr.contains("A valid join token is necessary"),
        "{refused}"
    );

    let joined = dockerd.ok(&format!("swarm join --token {token} {addr}"));
    assert_eq!(joined, "This node joined a swarm as a worker.");
    let ready = Some(proto::node_status::State::Ready);
    eventually_within(SLOW, "the node is ready", || state(&store) == ready).await;
    let node = the_node(&store).unwrap();
    let description = node.description.as_ref().unwrap();
    assert!(
        description
            .engine
            .as_ref()
            .unwrap()
            .engine_version
            .starts_with("20.10")
    );

    let container = proto::ContainerSpec {
        image: "busybox".into(),
        command: vec![
            "sh".into(),
            "-c".into(),
            "echo from dockerd; sleep 1000".into(),
        ],
        ..Default::default()
    };
    let spec = proto::ServiceSpec {
        annotations: Some(proto::Annotations {
            name: "web".into(),
            ..Default::default()
        }),
        task: Some(proto::TaskSpec {
            runtime: Some(proto::task_spec::Runtime::Container(container)),
            ..Default::default()
        }),
        mode: Some(proto::service_spec::Mode::Replicated(
            proto::ReplicatedService { replicas: 2 },
        )),
        ..Default::default()
    };
    let request = proto::CreateServiceRequest { spec: Some(spec) };
    let created = manager.control().create_service(request).await.unwrap();
    let service = created.service.unwrap().id;
    let running = || {
        let snapshot = store.snapshot();
        let tasks = snapshot.tasks();
        tasks
            .filter(|t| t.status.state == skep_model::TaskState::Running)
            .count()
    };
    eventually_within(SLOW, "two tasks run", || running() == 2).await;

    let subscription = proto::SubscribeLogsRequest {
        selector: Some(proto::LogSelector {
            service_ids: vec![service],
            ..Default::default()
        }),
        options: Some(proto::LogSubscriptionOptions {
            streams: vec![1, 2],
            tail: 0,
            ..Default::default()
        }),
    };
    let mut logs = manager.log_broker().subscribe_logs(subscription).unwrap();
    let mut lines = Vec::new();
    while let Some(message) = tokio::time::timeout(SLOW, logs.next()).await.unwrap() {
        let messages = message.unwrap().messages;
        lines.extend(
            messages
                .into_iter()
                .map(|m| String::from_utf8(m.data).unwrap()),
        );
    }
    assert_eq!(lines, ["from dockerd\n", "from dockerd\n"]);

    let drain = proto::UpdateNodeRequest {
        node_id: node.id.clone(),
        node_version: the_node(&store).unwrap().meta.as_ref().unwrap().version,
        spec: Some(proto::NodeSpec {
            availability: proto::node_spec::Availability::Drain.into(),
            ..node.spec.clone().unwrap()
        }),
    };
    manager.control().update_node(drain).await.unwrap();
    eventually_within(SLOW, "it is drained", || running() == 0).await;

    dockerd.ok("swarm leave");
    let down = Some(proto::node_status::State::Down);
    eventually_within(SLOW, "the node is down", || state(&store) == down).await;
    manager.stop().await;
    server.stop().await;
}

/// Runs everything of `work` in the network namespace that a process is in.
fn beside<T, F>(pid: u32, work: impl FnOnce() -> F + Send) -> T
where
    T: Send,
    F: Future<Output = T>,
{
    let enter = move || {
        use std::os::fd::AsFd as _;
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).unwrap();
    };
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            enter();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .on_thread_start(enter)
                .build()
                .unwrap();
            runtime.block_on(work())
        });
        run.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn description(hostname: &str) -> proto::NodeDescription {
    proto::NodeDescription {
        hostname: hostname.into(),
        platform: Some(proto::Platform {
            architecture: "x86_64".into(),
            os: "linux".into(),
        }),
        resources: Some(proto::Resources {
            nano_cpus: 1_000_000_000,
            memory_bytes: 1 << 30,
            generic: Vec::new(),
        }),
        engine: Some(proto::EngineDescription {
            engine_version: "skep".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn admit(dockerd: &Daemon, role: &str) -> (Arc<NodeSecurity>, Arc<Remotes>) {
    let token = dockerd.ok(&format!("swarm join-token -q {role}"));
    let remotes = Remotes::of_addrs([format!("{}:2377", Machine::ADDRESS)]);
    let active = proto::node_spec::Availability::Active;
    let admitted = skep_rpc::admission(&remotes, &token.parse().unwrap(), active).await;
    let admitted = admitted.unwrap_or_else(|error| panic!("{error}\n{}", dockerd.log()));
    let security = NodeSecurity::new(&admitted.root, admitted.certificate).unwrap();
    (Arc::new(security), Arc::new(remotes))
}

#[test]
#[ignore = "needs Debian's dockerd below target/peers (cargo xtask bench fetches it)"]
fn a_worker_of_ours_serves_a_dockerd_manager() {
    let directory = tempfile::tempdir().unwrap();
    let dockerd = dockerd(directory.path());
    dockerd.ok(&format!("swarm init --advertise-addr {}", Machine::ADDRESS));
    beside(dockerd.pid(), || async {
        let (security, remotes) = admit(&dockerd, "worker").await;
        let node_id = security.current().identity().node_id.clone();
        let connector = Connector::new(Arc::clone(&security));
        let uplink = Uplink::new(connector, Arc::clone(&remotes), Slot::default());
        let request = proto::SessionRequest {
            description: Some(description("ours")),
            ..Default::default()
        };
        let mut session = uplink.session(request).await.unwrap();
        let first = session.next().await.unwrap().unwrap();
        assert_eq!(first.node.as_ref().unwrap().id, node_id);
        assert!(
            !remotes.list()[0].node_id.is_empty(),
            "it has told who it is"
        );
        let session_id = first.session_id;
        let beat = proto::HeartbeatRequest {
            session_id: session_id.clone(),
        };
        uplink.heartbeat(beat).await.unwrap();
        let request = proto::AssignmentsRequest {
            session_id: session_id.clone(),
        };
        let mut assignments = uplink.assignments(request).await.unwrap();
        let all = assignments.next().await.unwrap().unwrap();
        assert_eq!(all.r#type(), proto::assignments_message::Type::Complete);

        let create = format!(
            "service create -d --no-resolve-image --name web --constraint node.id=={node_id} busybox sleep 1000"
        );
        dockerd.ok(&create);
        let task = loop {
            let message = tokio::time::timeout(SLOW, assignments.next())
                .await
                .unwrap();
            let changes = message.unwrap().unwrap().changes;
            let task = changes
                .into_iter()
                .find_map(|change| match change.assignment?.item? {
                    proto::assignment::Item::Task(task) => Some(task),
                    _ => None,
                });
            if let Some(task) = task {
                break task;
            }
        };
        assert_eq!(task.node_id, node_id);
        let status = proto::TaskStatus {
            state: proto::TaskState::Running.into(),
            ..task.status.clone().unwrap_or_default()
        };
        let update = proto::UpdateTaskStatusRequest {
            session_id,
            updates: vec![proto::update_task_status_request::TaskStatusUpdate {
                task_id: task.id.clone(),
                status: Some(status),
            }],
        };
        uplink.update_task_status(update).await.unwrap();
        let shows = || dockerd.ok("service ps web --format {{.CurrentState}}");
        eventually_within(SLOW, "it shows as running", || {
            shows().starts_with("Running")
        })
        .await;
        assert!(
            dockerd
                .ok("node ls --format {{.Hostname}}")
                .contains("ours")
        );

        let root = skep_ca::RootCa::from_pem(security.current().root_pem(), None).unwrap();
        let renewed = uplink.renew(&root).await.unwrap();
        security.renew(renewed).unwrap();
        assert_eq!(security.current().identity().node_id, node_id);
    });
}

struct StoreMachine(Store);

impl StateMachine for StoreMachine {
    fn apply(&self, index: u64, data: &[u8]) -> Result<(), BoxError> {
        let request = proto::InternalRaftRequest::decode(data)?;
        Ok(self.0.apply(&request.action, index)?)
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(self.0.save().encode_to_vec())
    }

    fn restore(&self, index: u64, data: &[u8]) -> Result<(), BoxError> {
        Ok(self.0.restore(proto::StoreSnapshot::decode(data)?, index)?)
    }
}

/// An experiment towards live migration: one quorum of both kinds.
#[test]
#[ignore = "needs Debian's dockerd below target/peers (cargo xtask bench fetches it)"]
fn a_manager_of_ours_follows_a_dockerd_leader() {
    let directory = tempfile::tempdir().unwrap();
    let dockerd = dockerd(directory.path());
    dockerd.ok(&format!("swarm init --advertise-addr {}", Machine::ADDRESS));
    dockerd.ok("service create -d --no-resolve-image --name before busybox sleep 1000");
    beside(dockerd.pid(), || async {
        let (security, _) = admit(&dockerd, "manager").await;
        let backends = Backends::default();
        backends.health.set_serving(true);
        let ours = format!("{}:2378", Machine::ADDRESS);
        let listener = tokio::net::TcpListener::bind(&ours).await.unwrap();
        let server = RpcServer::start(listener, Arc::clone(&security), backends.clone()).unwrap();
        let connector = Connector::new(security);
        let theirs = format!("{}:2377", Machine::ADDRESS);
        let joined = skep_rpc::join_raft(&connector, &theirs, &ours).await;
        let joined = joined.unwrap_or_else(|error| panic!("{error}\n{}", dockerd.log()));
        let if_new = IfNew::Join {
            raft_id: joined.raft_id,
            members: joined.members,
        };
        let store = Store::new();
        let transport = RaftTransport::new(connector.clone());
        let raft_directory = directory.path().join("raft");
        let config = RaftConfig::new(raft_directory, SecretKey::generate(), if_new);
        let machine = Arc::new(StoreMachine(store.clone()));
        let raft = RaftNode::start(config, machine, Arc::new(transport.clone())).unwrap();
        transport.attach(&raft);
        let member = RaftMember::new(raft.clone(), transport.clone(), connector);
        backends.raft.set(Arc::new(member));

        let names = || {
            let snapshot = store.snapshot();
            let name = |service: &Arc<proto::Service>| {
                service
                    .spec
                    .as_ref()?
                    .annotations
                    .as_ref()
                    .map(|a| a.name.clone())
            };
            snapshot.services().filter_map(name).collect::<Vec<_>>()
        };
        eventually_within(SLOW, "the log arrives", || names() == ["before"]).await;
        // Needs both: the answers of ours are what commits it.
        dockerd.ok("service create -d --no-resolve-image --name after busybox sleep 1000");
        eventually_within(SLOW, "the log goes on", || names().len() == 2).await;
        let shows = || dockerd.ok("node ls --format {{.ManagerStatus}}");
        eventually_within(SLOW, "it is reachable", || shows().contains("Reachable")).await;
        raft.stop().await;
        transport.stop();
        server.stop().await;
    });
}
