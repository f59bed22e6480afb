use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use skep_agent::{Agent, AgentConfig, Executor};
use skep_ca::{CertificateFiles, JoinToken, NodeRole, UnlockKey};
use skep_model::{NodeId, proto};
use skep_rpc::{Connector, NodeSecurity, Remotes, Renewer, Slot, Uplink};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::founding::Founding;
use crate::identity::{Identity, IdentityError};
use crate::keys::KeyFiles;
use crate::persisted::NodeState;
use crate::seat::{self, Claim, End, Place, Seat, SeatError};
use crate::session::{self, SessionFollower};
use crate::{remotes, spec};

/// How long the tasks of a node that leaves may take to be removed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(60);
/// What dockerd waits for a node to be ready.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// SwarmKit's limit for the news that a removed manager is a worker now. A manager that hears nothing
/// has been promoted again.
const ROLE_CHANGE: Duration = Duration::from_secs(16);
/// Between attempts of a promoted node to become a manager; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How a node begins.
pub(crate) enum Beginning {
    /// As the first manager of a new swarm.
    Found {
        spec: Box<proto::ClusterSpec>,
        availability: proto::node_spec::Availability,
    },
    /// As the managers at `remote` decide by the token.
    Join {
        remote: String,
        token: String,
        availability: proto::node_spec::Availability,
    },
    /// From what is on the disk.
    Resume {
        unlock: Option<UnlockKey>,
        /// As the only manager, whoever else there was.
        alone: bool,
    },
}

/// Why a node does not run.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the swarm is locked")]
    Locked,
    #[error("the unlock key does not fit")]
    WrongUnlockKey,
    #[error("{0}")]
    Failed(String),
}

impl StartError {
    pub(crate) fn because(what: &str, error: &dyn std::error::Error) -> Self {
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

impl From<SeatError> for StartError {
    fn from(error: SeatError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// This node while it takes part in a swarm, with all that runs for it: an agent always, a seat among
/// the managers at times.
pub(crate) struct Node {
    inner: Arc<Inner>,
    uplink: Arc<Uplink>,
    agent: Arc<Agent>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Inner {
    place: Place,
    persisted: RwLock<NodeState>,
    seat: RwLock<Option<Arc<Seat>>>,
    /// Why a node that was promoted is no manager yet.
    trouble: Mutex<Option<String>>,
    broken: watch::Sender<Option<String>>,
}

/// What a node needs before anything of it runs.
struct Prepared {
    identity: Identity,
    unlock: Option<UnlockKey>,
    remotes: Remotes,
    claim: Claim,
}

impl Node {
    /// Returns when everything runs; for a node that joins as a manager, when it is a member.
    pub(crate) async fn start(
        state_dir: &Path,
        mut persisted: NodeState,
        beginning: Beginning,
        executor: Arc<dyn Executor>,
    ) -> Result<Self, StartError> {
        let files = CertificateFiles::new(state_dir.join("certificates"));
        persisted.join_in_progress = matches!(beginning, Beginning::Join { .. });
        let save = |persisted: &NodeState| {
            persisted
                .save(state_dir)
                .map_err(|error| StartError::because("writing the swarm's state", &error))
        };
        let prepared = match beginning {
            Beginning::Found { spec, availability } => {
                found(&files, &persisted, *spec, availability)?
            }
            Beginning::Join {
                remote,
                token,
                availability,
            } => {
                let admitted = admit(&files, remote, &token, availability).await?;
                // Should the daemon end now, the next one goes on with the certificate.
                save(&persisted)?;
                admitted
            }
            Beginning::Resume { unlock, alone } => resume(state_dir, &files, unlock, alone)?,
        };
        let subject = &prepared.identity.subject;
        let node_id = NodeId::from(subject.node_id.as_str());
        let role = subject.role;
        let (cluster_id, claim) = (subject.organization.clone(), prepared.claim);
        let security = NodeSecurity::new(&prepared.identity.root, prepared.identity.certificate)
            .map_err(|error| StartError::because("using the node's certificate", &error))?;
        let place = Place {
            node_id: node_id.to_string(),
            cluster_id,
            state_dir: state_dir.to_owned(),
            security: Arc::new(security),
            keys: Arc::new(KeyFiles::new(files, prepared.unlock)),
            remotes: Arc::new(prepared.remotes),
            local: Slot::default(),
            listen_addr: persisted.listen_addr.clone(),
            advertise_addr: persisted.advertise_addr.clone(),
        };
        let seat = match role {
            NodeRole::Manager => Some(Arc::new(Seat::take(&place, claim).await?)),
            NodeRole::Worker => {
                // A daemon that was killed while its node was demoted did not come to this.
                if seat::has_log(&place) {
                    forget_log(&place);
                }
                None
            }
        };
        // From here on the node is in the swarm, whatever happens.
        let started = match save(&persisted) {
            Ok(()) => start_agent(&place, executor),
            Err(error) => Err(error),
        };
        match started {
            Ok((uplink, agent)) => Ok(Self::run(place, persisted, seat, uplink, agent)),
            Err(error) => {
                if let Some(seat) = seat {
                    seat.stop().await;
                }
                Err(error)
            }
        }
    }

    fn run(
        place: Place,
        persisted: NodeState,
        seat: Option<Arc<Seat>>,
        uplink: Arc<Uplink>,
        agent: Arc<Agent>,
    ) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let keys = Arc::clone(&place.keys);
        let renewer = Arc::new(Renewer::new(
            Arc::clone(&place.security),
            Arc::clone(&uplink),
            Box::new(move |certificate| keys.keep(certificate)),
        ));
        let follower = SessionFollower {
            messages: agent.state(),
            security: Arc::clone(&place.security),
            renewer: Arc::clone(&renewer),
            keys: Arc::clone(&place.keys),
        };
        tasks.spawn(follower.run(stop.clone()));
        tasks.spawn(session::report_certificates(
            Arc::clone(&place.security),
            Arc::clone(&agent),
            stop.clone(),
        ));
        tasks.spawn(remotes::keep(
            place.state_dir.clone(),
            Arc::clone(&place.remotes),
            stop.clone(),
        ));
        let stopped = stop.clone();
        tasks.spawn(async move { renewer.run(stopped).await });
        let inner = Arc::new(Inner {
            place,
            persisted: RwLock::new(persisted),
            seat: RwLock::new(seat),
            trouble: Mutex::default(),
            broken: watch::Sender::new(None),
        });
        let (supervised, stopped) = (Arc::clone(&inner), stop.clone());
        tasks.spawn(async move { supervised.follow_role(&stopped).await });
        Self {
            inner,
            uplink,
            agent,
            stop,
            tasks,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.inner.place.node_id.as_str().into()
    }

    pub(crate) fn persisted(&self) -> NodeState {
        self.inner.persisted.read().clone()
    }

    /// The seat among the managers, if this node has one now.
    pub(crate) fn seat(&self) -> Option<Arc<Seat>> {
        self.inner.seat.read().clone()
    }

    /// What the node's certificate says.
    pub(crate) fn role(&self) -> NodeRole {
        self.inner.role()
    }

    /// The managers that this node knows.
    pub(crate) fn remotes(&self) -> Vec<skep_rpc::Remote> {
        self.uplink.remotes().list()
    }

    /// Why the managers do not let this node take part, or why a promoted node is no manager yet.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(advice) = session::advice(&self.agent.state().borrow()) {
            return Some(advice.to_owned());
        }
        self.inner.trouble.lock().clone()
    }

    /// Returns once the agent has registered and, on a manager, the swarm can be asked about, so that
    /// whoever made the node join sees it ready in the next `docker node ls`.
    pub(crate) async fn ready(&self) {
        if let Some(seat) = self.seat() {
            seat.settled().await;
        }
        // An error means that the node is being stopped.
        let _ = self.agent.state().wait_for(|state| state.registered).await;
        let persisted = {
            let mut persisted = self.inner.persisted.write();
            if !persisted.join_in_progress {
                return;
            }
            persisted.join_in_progress = false;
            persisted.clone()
        };
        if let Err(error) = persisted.save(&self.inner.place.state_dir) {
            tracing::error!(%error, "cannot write the swarm's state");
        }
    }

    /// Resolves when the node has broken down by itself, to the reason; to `None` when it was stopped.
    pub(crate) async fn failed(&self) -> Option<String> {
        let mut broken = self.inner.broken.subscribe();
        tokio::select! {
            () = self.stop.cancelled() => None,
            broken = broken.wait_for(Option::is_some) => broken.ok()?.clone(),
        }
    }

    /// Stops everything; tasks go on running.
    pub(crate) async fn stop(&self) {
        self.agent.stop().await;
        self.finish().await;
    }

    /// Stops everything and removes this node's tasks.
    pub(crate) async fn leave(&self) {
        // The manager first: it would only replace the tasks that are about to go.
        self.finish().await;
        if tokio::time::timeout(LEAVE_TIMEOUT, self.agent.leave())
            .await
            .is_err()
        {
            tracing::error!("some tasks could not be removed in time; their containers stay");
        }
        self.agent.stop().await;
    }

    async fn finish(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let seat = self.inner.seat.write().take();
        if let Some(seat) = seat {
            seat.stop().await;
        }
    }
}

impl Inner {
    fn role(&self) -> NodeRole {
        self.place.security.current().identity().role
    }

    /// Takes a seat when the certificate becomes a manager's, and gives it up when it becomes a
    /// worker's, or when the other managers have removed this one.
    async fn follow_role(&self, stop: &CancellationToken) {
        let mut credentials = self.place.security.subscribe();
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let role = credentials.borrow_and_update().identity().role;
            let seat = self.seat.read().clone();
            match (role, seat) {
                (NodeRole::Manager, None) => {
                    let taken = tokio::select! {
                        () = stop.cancelled() => return,
                        taken = self.take_seat() => taken,
                    };
                    let Err(error) = taken else {
                        pause = FIRST_PAUSE;
                        continue;
                    };
                    tracing::error!(%error, "this node cannot become a manager");
                    *self.trouble.lock() = Some(error.to_string());
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                        _ = credentials.changed() => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                (NodeRole::Worker, None) => {
                    self.trouble.lock().take();
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = credentials.changed() => {}
                    }
                }
                (NodeRole::Worker, Some(seat)) => self.give_up(&seat).await,
                (NodeRole::Manager, Some(seat)) => {
                    let end = tokio::select! {
                        () = stop.cancelled() => return,
                        end = seat.ended() => end,
                        _ = credentials.changed() => continue,
                    };
                    if let End::Failed(reason) = end {
                        self.broken.send_replace(Some(reason));
                        return;
                    }
                    tracing::info!("the other managers have removed this one");
                    self.give_up(&seat).await;
                    let is_worker =
                        credentials.wait_for(|now| now.identity().role == NodeRole::Worker);
                    // Whichever it comes to be, the next turn goes by the certificate.
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = tokio::time::timeout(ROLE_CHANGE, is_worker) => {}
                    }
                }
            }
        }
    }

    async fn take_seat(&self) -> Result<(), SeatError> {
        let seat = Seat::take(&self.place, Claim::Certificate).await?;
        tracing::info!("this node is a manager now");
        self.trouble.lock().take();
        *self.seat.write() = Some(Arc::new(seat));
        Ok(())
    }

    /// Goes on as a worker, with the same agent.
    async fn give_up(&self, seat: &Seat) {
        self.seat.write().take();
        seat.stop().await;
        forget_log(&self.place);
        tracing::info!("this node is no manager any more");
    }
}

/// A worker keeps neither the log nor its key, which it could not seal.
fn forget_log(place: &Place) {
    if let Err(error) = seat::forget(place) {
        tracing::error!(%error, "cannot remove the raft log of a former manager");
    }
    if let Err(error) = place.keys.forget_log() {
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, "cannot remove the raft log's key");
    }
}

fn found(
    files: &CertificateFiles,
    persisted: &NodeState,
    spec: proto::ClusterSpec,
    availability: proto::node_spec::Availability,
) -> Result<Prepared, StartError> {
    let locks = spec
        .encryption_config
        .as_ref()
        .is_some_and(|e| e.auto_lock_managers);
    let unlock = locks.then(UnlockKey::generate);
    let (identity, root) =
        Identity::found(files, spec::certificate_validity(&spec), unlock.as_ref())
            .map_err(|error| StartError::because("creating the swarm's certificates", &error))?;
    let founding = Founding {
        cluster_id: identity.subject.organization.as_str().into(),
        node_id: identity.subject.node_id.as_str().into(),
        spec,
        availability,
        default_address_pool: persisted.default_address_pool.clone(),
        subnet_size: persisted.subnet_size,
        data_path_port: persisted.data_path_port,
    };
    Ok(Prepared {
        identity,
        unlock: unlock.clone(),
        remotes: Remotes::new([]),
        claim: Claim::Found {
            founding: Box::new(founding),
            root: Box::new(root),
            unlock,
        },
    })
}

/// Has the managers give this node a certificate. Nothing is written unless they do.
async fn admit(
    files: &CertificateFiles,
    remote: String,
    token: &str,
    availability: proto::node_spec::Availability,
) -> Result<Prepared, StartError> {
    let failed = |error: &dyn std::error::Error| StartError::Failed(crate::error::chain(error));
    let token: JoinToken = token.parse().map_err(|error| failed(&error))?;
    let remotes = Remotes::of_addrs([remote]);
    let admission = skep_rpc::admission(&remotes, &token, availability)
        .await
        .map_err(|error| failed(&error))?;
    Ok(Prepared {
        identity: Identity::admitted(files, admission.root, admission.certificate)?,
        unlock: None,
        remotes,
        claim: Claim::Certificate,
    })
}

fn resume(
    state_dir: &Path,
    files: &CertificateFiles,
    unlock: Option<UnlockKey>,
    alone: bool,
) -> Result<Prepared, StartError> {
    let known = remotes::load(state_dir)
        .map_err(|error| StartError::because("reading the managers' addresses", &error))?;
    Ok(Prepared {
        identity: Identity::load(files, unlock.as_ref())?,
        unlock,
        remotes: Remotes::new(known),
        claim: if alone {
            Claim::Alone
        } else {
            Claim::Certificate
        },
    })
}

fn start_agent(
    place: &Place,
    executor: Arc<dyn Executor>,
) -> Result<(Arc<Uplink>, Arc<Agent>), StartError> {
    let directory: PathBuf = place.state_dir.join("worker");
    let uplink = Arc::new(Uplink::new(
        Connector::new(Arc::clone(&place.security)),
        Arc::clone(&place.remotes),
        place.local.clone(),
    ));
    let id = place.node_id.as_str().into();
    let mut config = AgentConfig::new(id, directory, executor, Arc::clone(&uplink) as _);
    config.log_broker = Some(Arc::clone(&uplink) as _);
    config.tls_info = Some(place.security.current().tls_info().clone());
    let agent =
        Agent::start(config).map_err(|error| StartError::because("starting the agent", &error))?;
    Ok((uplink, Arc::new(agent)))
}
