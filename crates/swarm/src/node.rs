use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skep_agent::{Agent, AgentConfig, Executor};
use skep_ca::{CertificateFiles, NodeRole, RootCa, UnlockKey};
use skep_manager::{Control, LogBroker, Manager, ManagerConfig, Member, Members};
use skep_model::{NodeId, proto};
use skep_raft::{IfNew, Leadership, RaftConfig, RaftNode};
use skep_store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::founding::Founding;
use crate::identity::{Identity, IdentityError};
use crate::keys::KeyKeeper;
use crate::local::{LocalDispatcher, LocalLogBroker};
use crate::members::RaftView;
use crate::persisted::NodeState;
use crate::replication::{MAX_PROPOSAL_BYTES, NobodyElse, RaftProposer, StoreMachine};
use crate::{founding, members, spec};

/// Longer than any election of a member that is alone; a disk may be slow.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the tasks of a node that leaves may take to be removed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// How a node begins.
pub(crate) enum Beginning {
    /// As the first manager of a new swarm.
    Found {
        spec: Box<proto::ClusterSpec>,
        availability: proto::node_spec::Availability,
    },
    /// From what is on the disk.
    Resume { unlock: Option<UnlockKey> },
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the swarm is locked")]
    Locked,
    #[error("the unlock key does not fit")]
    WrongUnlockKey,
    #[error("{0}")]
    Failed(String),
}

impl StartError {
    fn because(what: &str, error: &dyn std::error::Error) -> Self {
        Self::Failed(crate::ClusterError::system(what, error).message)
    }
}

impl From<IdentityError> for StartError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Locked => Self::Locked,
            IdentityError::WrongUnlockKey => Self::WrongUnlockKey,
            error => Self::because("reading the node's certificate", &error),
        }
    }
}

/// What dockerd waits for a node to join.
const READY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// This node while it takes part in a swarm, with all that runs for it.
pub(crate) struct Node {
    id: NodeId,
    persisted: NodeState,
    store: Store,
    raft: RaftNode,
    leadership: watch::Receiver<Leadership>,
    members: Members,
    manager: Manager,
    agent: Agent,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What founding a swarm leaves for after raft has started.
struct Founded {
    founding: Founding,
    root: RootCa,
}

impl Node {
    pub(crate) async fn start(
        state_dir: &Path,
        persisted: NodeState,
        beginning: Beginning,
        executor: Arc<dyn Executor>,
    ) -> Result<Self, StartError> {
        let files = CertificateFiles::new(state_dir.join("certificates"));
        let (identity, unlock, founded) = match beginning {
            Beginning::Resume { unlock } => {
                (Identity::load(&files, unlock.as_ref())?, unlock, None)
            }
            Beginning::Found { spec, availability } => {
                let (identity, unlock, founded) = found(&files, &persisted, *spec, availability)?;
                (identity, unlock, Some(founded))
            }
        };
        if identity.role != NodeRole::Manager {
            return Err(StartError::Failed(
                "skep: being a worker is not implemented yet".into(),
            ));
        }
        let (store, raft) = replicate(state_dir, &identity, &persisted, founded.is_some()).await?;
        let parts = Parts {
            state_dir,
            persisted,
            identity,
            unlock,
            files,
            store,
            raft,
            executor,
        };
        // Whatever fails from here on, raft must let go of its files before another attempt.
        let (store, raft) = (parts.store.clone(), parts.raft.clone());
        let started = parts.start(founded).await;
        if started.is_err() {
            raft.stop().await;
            store.close();
        }
        started
    }

    /// Returns once this node's agent has registered, so that whoever founded the swarm sees a
    /// ready node in the next `docker node ls`; or after [`READY_TIMEOUT`], with the agent still
    /// trying.
    pub(crate) async fn ready(&self) {
        let mut changed = self.store.changed();
        let registered = async {
            loop {
                changed.borrow_and_update();
                let snapshot = self.store.snapshot();
                let ready = snapshot
                    .get::<proto::Node>(self.id.as_str())
                    .is_some_and(|node| {
                        node.description.is_some()
                            && node.status.as_ref().is_some_and(|status| {
                                status.state() == proto::node_status::State::Ready
                            })
                    });
                if ready || changed.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(READY_TIMEOUT, registered)
            .await
            .is_err()
        {
            tracing::warn!(node.id = %self.id, "the node's agent has not registered yet");
        }
    }

    pub(crate) fn id(&self) -> &NodeId {
        &self.id
    }

    pub(crate) fn persisted(&self) -> &NodeState {
        &self.persisted
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn control(&self) -> &Control {
        self.manager.control()
    }

    pub(crate) fn log_broker(&self) -> &Arc<LogBroker> {
        self.manager.log_broker()
    }

    pub(crate) fn members(&self) -> Arc<Vec<Member>> {
        Arc::clone(&self.members.borrow())
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leadership.borrow().is_leader()
    }

    pub(crate) fn is_only_manager(&self) -> bool {
        self.members().len() <= 1
    }

    pub(crate) fn unlock_key(&self) -> Option<UnlockKey> {
        self.store
            .snapshot()
            .the_cluster()
            .and_then(|cluster| founding::unlock_key(cluster))
    }

    /// Resolves when the node has broken down by itself, to the reason; to `None` when it was stopped.
    pub(crate) async fn failed(&self) -> Option<String> {
        let mut leadership = self.leadership.clone();
        // An error means that the member is gone altogether.
        let _ = leadership.wait_for(|leadership| leadership.stopped).await;
        if self.stop.is_cancelled() {
            return None;
        }
        let reason = match self.raft.failure() {
            Some(error) => crate::ClusterError::system("raft has stopped", &*error).message,
            None => "raft has stopped".to_owned(),
        };
        Some(reason)
    }

    /// Stops everything; tasks go on running.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.agent.stop().await;
        self.manager.stop().await;
        self.finish().await;
    }

    /// Stops everything and removes this node's tasks.
    pub(crate) async fn leave(&self) {
        self.stop.cancel();
        // The manager first: it would only replace the tasks that are about to go.
        self.manager.stop().await;
        if tokio::time::timeout(LEAVE_TIMEOUT, self.agent.leave())
            .await
            .is_err()
        {
            tracing::error!("some tasks could not be removed in time; their containers stay");
        }
        self.agent.stop().await;
        self.finish().await;
    }

    async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.raft.stop().await;
        self.store.close();
    }
}

fn found(
    files: &CertificateFiles,
    persisted: &NodeState,
    spec: proto::ClusterSpec,
    availability: proto::node_spec::Availability,
) -> Result<(Identity, Option<UnlockKey>, Founded), StartError> {
    let locks = spec
        .encryption_config
        .as_ref()
        .is_some_and(|e| e.auto_lock_managers);
    let unlock = locks.then(UnlockKey::generate);
    let (identity, root) =
        Identity::found(files, spec::certificate_validity(&spec), unlock.as_ref())
            .map_err(|error| StartError::because("creating the swarm's certificates", &error))?;
    let founding = Founding {
        cluster_id: identity.cluster_id.clone(),
        node_id: identity.node_id.clone(),
        spec,
        availability,
        default_address_pool: persisted.default_address_pool.clone(),
        subnet_size: persisted.subnet_size,
        data_path_port: persisted.data_path_port,
    };
    Ok((identity, unlock, Founded { founding, root }))
}

/// Starts raft over an empty store and returns when this member leads.
async fn replicate(
    state_dir: &Path,
    identity: &Identity,
    persisted: &NodeState,
    is_new: bool,
) -> Result<(Store, RaftNode), StartError> {
    let store = Store::new();
    let member = proto::RaftMember {
        raft_id: rand::random_range(1..=u64::MAX),
        node_id: identity.node_id.to_string(),
        addr: persisted.advertise_addr.clone(),
        status: None,
    };
    let if_new = if is_new {
        IfNew::Bootstrap(member)
    } else {
        IfNew::Refuse
    };
    let mut config = RaftConfig::new(state_dir.join("raft"), identity.dek.clone(), if_new);
    config.former_deks.extend(identity.pending_dek.clone());
    config.max_proposal_bytes = MAX_PROPOSAL_BYTES;
    let machine = Arc::new(StoreMachine(store.clone()));
    let starting =
        tokio::task::spawn_blocking(move || RaftNode::start(config, machine, Arc::new(NobodyElse)));
    let raft = starting
        .await
        .map_err(|error| StartError::because("starting raft", &error))?
        .map_err(|error| StartError::because("starting raft", &error))?;
    let mut leadership = raft.leadership();
    let elected = leadership.wait_for(|state| state.is_leader() || state.stopped);
    let leads = match tokio::time::timeout(ELECTION_TIMEOUT, elected).await {
        Ok(Ok(state)) => !state.stopped,
        Ok(Err(_)) | Err(_) => false,
    };
    if leads {
        store.attach(Arc::new(RaftProposer::new(raft.clone())));
        return Ok((store, raft));
    }
    let failure = raft.failure();
    raft.stop().await;
    Err(match failure {
        Some(error) => StartError::because("starting raft", &*error),
        None => StartError::Failed("raft did not elect a leader in time".into()),
    })
}

struct Parts<'a> {
    state_dir: &'a Path,
    persisted: NodeState,
    identity: Identity,
    unlock: Option<UnlockKey>,
    files: CertificateFiles,
    store: Store,
    raft: RaftNode,
    executor: Arc<dyn Executor>,
}

impl Parts<'_> {
    async fn start(self, founded: Option<Founded>) -> Result<Node, StartError> {
        if let Some(Founded { founding, root }) = founded {
            self.store
                .update(|tx| founding.write(&root, self.unlock.as_ref(), tx))
                .await
                .map_err(|error| StartError::because("writing the new swarm", &error))?;
        }
        self.announce_address().await?;
        let stop = CancellationToken::new();
        let stop_on_failure = stop.clone().drop_guard();
        let tasks = TaskTracker::new();
        let (view, follow) = members::follow(&self.raft, stop.clone());
        let RaftView { members, leads } = view;
        tasks.spawn(follow);
        let keeper = KeyKeeper {
            files: self.files.clone(),
            identity: self.identity.subject(),
            store: self.store.clone(),
            raft: self.raft.clone(),
            sealed_by: self.unlock.clone(),
        };
        tasks.spawn(keeper.run(stop.clone()));
        // From here on the node is in the swarm, whatever happens.
        self.persisted
            .save(self.state_dir)
            .map_err(|error| StartError::because("writing the swarm's state", &error))?;
        let manager = Manager::start(ManagerConfig {
            node_id: self.identity.node_id.clone(),
            store: self.store.clone(),
            leadership: leads,
            members: members.clone(),
        });
        let agent = match self.start_agent(&manager) {
            Ok(agent) => agent,
            Err(error) => {
                manager.stop().await;
                return Err(error);
            }
        };
        stop_on_failure.disarm();
        Ok(Node {
            id: self.identity.node_id,
            persisted: self.persisted,
            leadership: self.raft.leadership(),
            store: self.store,
            raft: self.raft,
            members,
            manager,
            agent,
            stop,
            tasks,
        })
    }

    /// Tells raft's members if this one is now reached at another address.
    async fn announce_address(&self) -> Result<(), StartError> {
        let known = self.raft.members().borrow().get(self.raft.id()).cloned();
        let Some(mut member) = known else {
            return Ok(());
        };
        if member.addr == self.persisted.advertise_addr {
            return Ok(());
        }
        member.addr.clone_from(&self.persisted.advertise_addr);
        match self.raft.update_member(member).await {
            Ok(_) => Ok(()),
            Err(error) => Err(StartError::because(
                "changing the advertised address",
                &error,
            )),
        }
    }

    fn start_agent(&self, manager: &Manager) -> Result<Agent, StartError> {
        let directory: PathBuf = self.state_dir.join("worker");
        let executor = Arc::clone(&self.executor);
        let id = || self.identity.node_id.clone();
        let dispatcher = Arc::new(LocalDispatcher::new(Arc::clone(manager.dispatcher()), id()));
        let mut config = AgentConfig::new(id(), directory, executor, dispatcher);
        let log_broker = LocalLogBroker::new(Arc::clone(manager.log_broker()), id());
        config.log_broker = Some(Arc::new(log_broker));
        config.tls_info = self.tls_info();
        Agent::start(config).map_err(|error| StartError::because("starting the agent", &error))
    }

    fn tls_info(&self) -> Option<proto::NodeTlsInfo> {
        let root = RootCa::from_pem(&self.identity.root_pem, None).ok()?;
        let issuer = root.issuer_info().ok()?;
        Some(proto::NodeTlsInfo {
            trust_root: self.identity.root_pem.clone().into_bytes(),
            cert_issuer_subject: issuer.subject,
            cert_issuer_public_key: issuer.public_key,
        })
    }
}
