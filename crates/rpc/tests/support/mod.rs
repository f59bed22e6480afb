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
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Swarm {
    pub root: RootCa,
    pub id: String,
}

impl Swarm {
    pub fn new() -> Self {
        Self {
            root: RootCa::generate(OffsetDateTime::now_utc()).unwrap(),
            id: "cluster".into(),
        }
    }

    pub fn certificate(&self, role: NodeRole, node_id: &str) -> NodeCertificate {
        self.certificate_at(role, node_id, OffsetDateTime::now_utc())
    }

    pub fn certificate_at(
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
        self.root.issue(&identity, Duration::from_secs(7200), now).unwrap()
    }

    pub fn security(&self, role: NodeRole, node_id: &str) -> Arc<NodeSecurity> {
        let certificate = self.certificate(role, node_id);
        Arc::new(NodeSecurity::new(&self.root, certificate).unwrap())
    }

    pub fn connector(&self, role: NodeRole, node_id: &str) -> Connector {
        Connector::new(self.security(role, node_id))
    }
}

/// What was applied, in order.
#[derive(Default)]
pub struct Log(Mutex<Vec<Vec<u8>>>);

impl Log {
    pub fn entries(&self) -> Vec<Vec<u8>> {
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

pub struct Manager {
    pub node_id: String,
    pub addr: SocketAddr,
    pub raft: RaftNode,
    pub log: Arc<Log>,
    pub server: RpcServer,
    pub backends: Backends,
    pub transport: RaftTransport,
    pub security: Arc<NodeSecurity>,
    pub directory: PathBuf,
    dek: SecretKey,
}

/// What is left of a manager that was stopped.
pub struct Stopped {
    node_id: String,
    addr: SocketAddr,
    directory: PathBuf,
    dek: SecretKey,
}

impl Manager {
    pub async fn found(swarm: &Swarm, node_id: &str, directory: PathBuf) -> Self {
        let (listener, addr) = listen(None).await;
        let founder = Member {
            raft_id: 1,
            node_id: node_id.into(),
            addr: addr.to_string(),
            status: None,
        };
        let port = open(swarm, node_id, listener);
        let manager = port.member(directory, SecretKey::generate(), IfNew::Bootstrap(founder));
        manager.leads().await;
        manager
    }

    /// Joins as a manager does: opens its port, is dialled back, becomes a member.
    pub async fn join(swarm: &Swarm, node_id: &str, directory: PathBuf, to: SocketAddr) -> Self {
        let (listener, addr) = listen(None).await;
        let port = open(swarm, node_id, listener);
        let connector = Connector::new(Arc::clone(&port.security));
        let advertise = format!("0.0.0.0:{}", addr.port());
        let joined = skep_rpc::join_raft(&connector, &to.to_string(), &advertise).await.unwrap();
        let if_new = IfNew::Join {
            raft_id: joined.raft_id,
            members: joined.members,
        };
        port.member(directory, SecretKey::generate(), if_new)
    }

    pub async fn resume(swarm: &Swarm, stopped: Stopped) -> Self {
        let (listener, _) = listen(Some(stopped.addr)).await;
        let port = open(swarm, &stopped.node_id, listener);
        port.member(stopped.directory, stopped.dek, IfNew::Refuse)
    }

    pub async fn stop(self) -> Stopped {
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

    pub async fn leads(&self) {
        let mut leadership = self.raft.leadership();
        let leads = leadership.wait_for(|l| l.is_leader());
        tokio::time::timeout(PATIENCE, leads).await.expect("it leads").unwrap();
    }

    /// Waits until so many entries are applied.
    pub async fn has(&self, entries: usize) {
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
    fn member(self, directory: PathBuf, dek: SecretKey, if_new: IfNew) -> Manager {
        let connector = Connector::new(Arc::clone(&self.security));
        let transport = RaftTransport::new(connector.clone());
        let mut config = RaftConfig::new(&directory, dek.clone(), if_new);
        config.ticks = Ticks::Every(Duration::from_millis(50));
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
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The manager among these that leads, waiting for an election.
pub async fn leader_of(managers: &[Manager]) -> usize {
    let mut found = None;
    eventually("a leader", || {
        found = managers.iter().position(|m| m.raft.leadership().borrow().is_leader());
        found.is_some()
    })
    .await;
    found.unwrap()
}

pub async fn three(swarm: &Swarm, directory: &std::path::Path) -> Vec<Manager> {
    let first = Manager::found(swarm, "m1", directory.join("m1")).await;
    let second = Manager::join(swarm, "m2", directory.join("m2"), first.addr).await;
    let third = Manager::join(swarm, "m3", directory.join("m3"), first.addr).await;
    vec![first, second, third]
}
