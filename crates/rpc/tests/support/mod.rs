//! Managers on loopback ports, each with a real raft member, port and certificate.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skep_ca::{NodeCertificate, NodeIdentity, NodeRole, RootCa, SecretKey};
use skep_proto::RaftMember as Member;
use skep_raft::{BoxError, IfNew, RaftConfig, RaftNode, StateMachine, Ticks};
use skep_rpc::{
    Backends, Connector, NodeSecurity, RaftLeader, RaftMember, RaftTransport, RpcServer,
};
use time::OffsetDateTime;
use tokio::net::TcpListener;

/// Much longer than anything here takes; only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Swarm {
    pub(crate) root: RootCa,
    pub(crate) id: String,
    /// A leader is missed after ten to twenty of them.
    pub(crate) tick: Duration,
}

impl Swarm {
    pub(crate) fn new() -> Self {
        Self {
            tick: Duration::from_millis(50),
            root: RootCa::generate(OffsetDateTime::now_utc()).unwrap(),
            id: "cluster".into(),
        }
    }

    pub(crate) fn certificate(&self, role: NodeRole, node_id: &str) -> NodeCertificate {
        self.certificate_at(role, node_id, OffsetDateTime::now_utc())
    }

    pub(crate) fn certificate_at(
        &self,
        role: NodeRole,
        node_id: &str,
        now: OffsetDateTime,
    ) -> NodeCertificate {
        let identity = NodeIdentity {
            organization: self.id.clone(),
            role,
            node_id: node_id.into(),
        };
        self.root
            .issue(&identity, Duration::from_secs(7200), now)
            .unwrap()
    }

    pub(crate) fn security(&self, role: NodeRole, node_id: &str) -> Arc<NodeSecurity> {
        let certificate = self.certificate(role, node_id);
        Arc::new(NodeSecurity::new(&self.root, certificate).unwrap())
    }

    pub(crate) fn connector(&self, role: NodeRole, node_id: &str) -> Connector {
        Connector::new(self.security(role, node_id))
    }
}

/// What was applied, in order.
#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<Vec<u8>>>);

impl Log {
    pub(crate) fn entries(&self) -> Vec<Vec<u8>> {
        self.0.lock().clone()
    }
}

impl StateMachine for Log {
    fn apply(&self, _index: u64, data: &[u8]) -> Result<(), BoxError> {
        self.0.lock().push(data.to_vec());
        Ok(())
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        let mut bytes = Vec::new();
        for entry in &*self.0.lock() {
            bytes.extend_from_slice(&(entry.len() as u64).to_be_bytes());
            bytes.extend_from_slice(entry);
        }
        Ok(bytes)
    }

    fn restore(&self, _index: u64, mut data: &[u8]) -> Result<(), BoxError> {
        let mut entries = Vec::new();
        while let Some((length, rest)) = data.split_first_chunk::<8>() {
            let (entry, rest) = rest.split_at(u64::from_be_bytes(*length) as usize);
            entries.push(entry.to_vec());
            data = rest;
        }
        *self.0.lock() = entries;
        Ok(())
    }
}

pub(crate) struct Manager {
    pub(crate) node_id: String,
    pub(crate) addr: SocketAddr,
    pub(crate) raft: RaftNode,
    pub(crate) log: Arc<Log>,
    pub(crate) server: RpcServer,
    pub(crate) backends: Backends,
    pub(crate) transport: RaftTransport,
    pub(crate) security: Arc<NodeSecurity>,
    pub(crate) directory: PathBuf,
    dek: SecretKey,
}

/// What is left of a manager that was stopped.
pub(crate) struct Stopped {
    node_id: String,
    addr: SocketAddr,
    directory: PathBuf,
    dek: SecretKey,
}

impl Manager {
    pub(crate) async fn found(swarm: &Swarm, node_id: &str, directory: PathBuf) -> Self {
        let (listener, addr) = listen(None).await;
        let founder = Member {
            raft_id: 1,
            node_id: node_id.into(),
            addr: addr.to_string(),
            status: None,
        };
        let port = open(swarm, node_id, listener);
        let manager = port.member(
            swarm.tick,
            directory,
            SecretKey::generate(),
            IfNew::Bootstrap(founder),
        );
        manager.leads().await;
        manager
    }

    /// Joins as a manager does: opens its port, is dialled back, becomes a member.
    pub(crate) async fn join(
        swarm: &Swarm,
        node_id: &str,
        directory: PathBuf,
        to: SocketAddr,
    ) -> Self {
        let (listener, addr) = listen(None).await;
        let port = open(swarm, node_id, listener);
        let connector = Connector::new(Arc::clone(&port.security));
        let advertise = format!("0.0.0.0:{}", addr.port());
        let joined = skep_rpc::join_raft(&connector, &to.to_string(), &advertise)
            .await
            .unwrap();
        let if_new = IfNew::Join {
            raft_id: joined.raft_id,
            members: joined.members,
        };
        port.member(swarm.tick, directory, SecretKey::generate(), if_new)
    }

    pub(crate) async fn resume(swarm: &Swarm, stopped: Stopped) -> Self {
        let (listener, _) = listen(Some(stopped.addr)).await;
        let port = open(swarm, &stopped.node_id, listener);
        port.member(swarm.tick, stopped.directory, stopped.dek, IfNew::Refuse)
    }

    pub(crate) async fn stop(self) -> Stopped {
        self.raft.stop().await;
        self.transport.stop();
        self.backends.clear();
        self.server.stop().await;
        Stopped {
            node_id: self.node_id,
            addr: self.addr,
            directory: self.directory,
            dek: self.dek,
        }
    }

    pub(crate) async fn leads(&self) {
        let mut leadership = self.raft.leadership();
        let leads = leadership.wait_for(skep_raft::Leadership::is_leader);
        tokio::time::timeout(PATIENCE, leads)
            .await
            .expect("it leads")
            .unwrap();
    }

    /// Replicates an entry, leading.
    pub(crate) async fn propose(&self, data: Vec<u8>) {
        let reign = self.raft.reign().expect("it leads");
        self.raft.propose(reign, data).await.unwrap();
    }

    /// Waits until so many entries are applied.
    pub(crate) async fn has(&self, entries: usize) {
        eventually("entries arrive", || self.log.entries().len() >= entries).await;
    }
}

async fn listen(at: Option<SocketAddr>) -> (TcpListener, SocketAddr) {
    let at = at.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
    let listener = TcpListener::bind(at).await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

struct Port {
    node_id: String,
    security: Arc<NodeSecurity>,
    backends: Backends,
    server: RpcServer,
}

fn open(swarm: &Swarm, node_id: &str, listener: TcpListener) -> Port {
    let security = swarm.security(NodeRole::Manager, node_id);
    let backends = Backends::default();
    backends.health.set_serving(true);
    let server = RpcServer::start(listener, Arc::clone(&security), backends.clone()).unwrap();
    Port {
        node_id: node_id.into(),
        security,
        backends,
        server,
    }
}

impl Port {
    fn member(self, tick: Duration, directory: PathBuf, dek: SecretKey, if_new: IfNew) -> Manager {
        let connector = Connector::new(Arc::clone(&self.security));
        let transport = RaftTransport::new(connector.clone());
        let mut config = RaftConfig::new(&directory, dek.clone(), if_new);
        config.ticks = Ticks::Every(tick);
        config.keep_entries = 2;
        config.max_proposal_bytes = 8 << 20;
        let log = Arc::new(Log::default());
        let machine = Arc::clone(&log) as Arc<dyn StateMachine>;
        let raft = RaftNode::start(config, machine, Arc::new(transport.clone())).unwrap();
        transport.attach(&raft);
        let leader = Arc::new(RaftLeader::new(&raft, transport.clone()));
        self.backends.leader.set(leader);
        let member = RaftMember::new(raft.clone(), transport.clone(), connector);
        self.backends.raft.set(Arc::new(member));
        Manager {
            node_id: self.node_id,
            addr: self.server.local_addr(),
            raft,
            log,
            server: self.server,
            backends: self.backends,
            transport,
            security: self.security,
            directory,
            dek,
        }
    }
}

/// Waits for something that will become true by itself.
pub(crate) async fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, is_so).await;
}

pub(crate) async fn eventually_within(
    patience: Duration,
    what: &str,
    mut is_so: impl FnMut() -> bool,
) {
    let deadline = tokio::time::Instant::now() + patience;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The manager among these that leads, waiting for an election.
pub(crate) async fn leader_of(managers: &[Manager]) -> usize {
    let mut found = None;
    eventually("a leader", || {
        found = managers
            .iter()
            .position(|m| m.raft.leadership().borrow().is_leader());
        found.is_some()
    })
    .await;
    found.unwrap()
}

pub(crate) async fn three(swarm: &Swarm, directory: &std::path::Path) -> Vec<Manager> {
    let first = Manager::found(swarm, "m1", directory.join("m1")).await;
    let second = Manager::join(swarm, "m2", directory.join("m2"), first.addr).await;
    let third = Manager::join(swarm, "m3", directory.join("m3"), first.addr).await;
    let managers = vec![first, second, third];
    let know_all = |m: &Manager| m.raft.members().borrow().len() == 3;
    eventually("all know all", || managers.iter().all(know_all)).await;
    managers
}
