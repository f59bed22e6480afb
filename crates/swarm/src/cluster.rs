use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bollard_stubs::models as m;
use parking_lot::RwLock;
use skep_agent::Executor;
use skep_ca::{NodeRole, UnlockKey};
use skep_model::ext::ClusterExt as _;
use skep_model::proto::raft_member_status::Reachability;
use skep_model::{NodeId, proto};
use skep_rpc::ControlRouter;
use skep_store::Snapshot;

use crate::address::{AddressRequest, host_of};
use crate::joining::Attempt;
use crate::node::{Beginning, Node, READY_TIMEOUT, StartError};
use crate::persisted::{self, NodeState};
use crate::request::{self, InitRequest, JoinRequest, UpdateFlags};
use crate::seat::Seat;
use crate::{ClusterError, ErrorKind, address, founding, interfaces, spec};

/// Between attempts to come back after a failure; doubles up to the longest. An attempt costs a few
/// milliseconds, and whoever just made room on the disk waits for it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a daemon that starts waits for its swarm before it answers its users.
const RESUME_PATIENCE: Duration = Duration::from_secs(2);

/// How a [`Cluster`] is set up.
#[derive(Clone)]
pub struct ClusterConfig {
    /// Holds everything of the swarm; `<data-root>/swarm`.
    pub state_dir: PathBuf,
    /// An address or interface to advertise if the user names none.
    pub default_advertise_addr: Option<String>,
    /// Docker refuses to be in a swarm with it.
    pub live_restore: bool,
    /// The subnets of this node's own Docker networks, whose addresses are never advertised.
    pub managed_subnets: Option<ManagedSubnets>,
}

/// Lists subnets as address and prefix length.
pub type ManagedSubnets = Arc<dyn Fn() -> Vec<(IpAddr, u8)> + Send + Sync>;

impl ClusterConfig {
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            default_advertise_addr: None,
            live_restore: false,
            managed_subnets: None,
        }
    }
}

/// This node's membership: always there, whether or not the node is in a swarm.
pub struct Cluster {
    this: Weak<Self>,
    config: ClusterConfig,
    executor: Arc<dyn Executor>,
    /// Held while the membership changes, which may take seconds.
    changing: tokio::sync::Mutex<()>,
    state: RwLock<State>,
}

enum State {
    Inactive,
    /// A join is under way, perhaps for longer than its user waited.
    Joining(Arc<Attempt>),
    Active(Arc<Node>),
    /// In a swarm, but not taking part: locked, or failed and to be tried again.
    Down(Down),
}

struct Down {
    persisted: NodeState,
    locked: bool,
    error: String,
}

impl Cluster {
    /// Takes up the swarm this node was in when the daemon last ran, if any. If that fails the daemon
    /// still starts: the failure shows in `docker info`, and it is tried again.
    pub async fn start(
        config: ClusterConfig,
        executor: Arc<dyn Executor>,
    ) -> Result<Arc<Self>, ClusterError> {
        std::fs::create_dir_all(&config.state_dir)
            .map_err(|error| ClusterError::system("creating the swarm's directory", &error))?;
        let persisted = NodeState::load(&config.state_dir)
            .map_err(|error| ClusterError::system("reading the swarm's state", &error))?;
        let live_restore = config.live_restore;
        let cluster = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            config,
            executor,
            changing: tokio::sync::Mutex::default(),
            state: RwLock::new(State::Inactive),
        });
        if let Some(persisted) = persisted {
            if live_restore {
                return Err(ClusterError::live_restore());
            }
            let _changing = cluster.changing.lock().await;
            if let Ok(node) = cluster.resume(persisted, None, FIRST_PAUSE).await {
                // Managers that are alone find themselves at once; the others may be gone for good.
                let _ = tokio::time::timeout(RESUME_PATIENCE, node.ready()).await;
            }
        }
        Ok(cluster)
    }

    /// Stops taking part, as the daemon ends. Tasks go on running; the swarm is not left.
    pub async fn stop(&self) {
        let _changing = self.changing.lock().await;
        let state = std::mem::replace(&mut *self.state.write(), State::Inactive);
        match state {
            State::Active(node) => node.stop().await,
            State::Joining(attempt) => {
                if let Some(node) = attempt.give_up().await {
                    node.stop().await;
                }
            }
            State::Inactive | State::Down(_) => {}
        }
    }

    /// Makes a new swarm with this node as its first manager.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, ClusterError> {
        self.to_its_end(|this| async move { this.found(request).await })
            .await
    }

    /// Joins the swarm of others, as worker or manager as the token says. An attempt that takes
    /// longer than Docker's users wait goes on by itself.
    pub async fn join(&self, request: JoinRequest) -> Result<(), ClusterError> {
        self.to_its_end(|this| async move { this.begin_to_join(request).await })
            .await
    }

    /// Leaves the swarm: this node's tasks are removed, and all that is known of the swarm here.
    pub async fn leave(&self, force: bool) -> Result<(), ClusterError> {
        self.to_its_end(move |this| async move { this.part(force).await })
            .await
    }

    /// Opens a locked swarm with the key that `docker swarm unlock-key` showed.
    pub async fn unlock(&self, key: &str) -> Result<(), ClusterError> {
        let key = key.to_owned();
        self.to_its_end(|this| async move { this.open(&key).await })
            .await
    }

    /// Changes the membership to the end, even if whoever asked for it goes away meanwhile: half of
    /// a change is nowhere to go on from.
    async fn to_its_end<T, F>(&self, change: impl FnOnce(Arc<Self>) -> F) -> Result<T, ClusterError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ClusterError>> + Send + 'static,
    {
        let this = self.this.upgrade().ok_or_else(ClusterError::not_in_swarm)?;
        match tokio::spawn(change(this)).await {
            Ok(result) => result,
            Err(error) => Err(ClusterError::system("internal error", &error)),
        }
    }

    async fn found(&self, request: InitRequest) -> Result<NodeId, ClusterError> {
        let _changing = self.changing.lock().await;
        let former = self.former_for(&request)?;
        if self.config.live_restore {
            return Err(ClusterError::live_restore());
        }
        let addresses = self.resolve(&request).await?;
        let (pool, subnet_size) =
            request::address_pools(request.default_addr_pool, request.subnet_size)?;
        let persisted = NodeState {
            local_addr: addresses.local.to_string(),
            listen_addr: addresses.listen,
            advertise_addr: addresses.advertise,
            data_path_addr: addresses
                .data_path
                .map(|a| a.to_string())
                .unwrap_or_default(),
            default_address_pool: pool,
            subnet_size,
            data_path_port: request::data_path_port(request.data_path_port)?,
            ..NodeState::default()
        };
        let availability = request::availability(request.availability.as_deref())?;
        let given = request.spec.unwrap_or_default();
        let mut wanted = spec::merge(given.clone(), founding::default_spec())?;
        spec::validate(&wanted)?;
        if let Some(former) = former {
            return self.force_new(&former, persisted, given).await;
        }
        if request.auto_lock_managers {
            wanted
                .encryption_config
                .get_or_insert_default()
                .auto_lock_managers = true;
        }
        self.clear()?;
        let beginning = Beginning::Found {
            spec: Box::new(wanted),
            availability,
        };
        match self.begin(persisted, beginning).await {
            Ok(node) => {
                self.set_active(Arc::clone(&node));
                if tokio::time::timeout(READY_TIMEOUT, node.ready())
                    .await
                    .is_err()
                {
                    tracing::warn!(node.id = %node.id(), "the node's agent has not registered yet");
                }
                Ok(node.id())
            }
            Err(error) => {
                // A first attempt that fails leaves nothing behind.
                self.clear()?;
                Err(error.into())
            }
        }
    }

    async fn begin_to_join(&self, request: JoinRequest) -> Result<(), ClusterError> {
        let _changing = self.changing.lock().await;
        if !matches!(*self.state.read(), State::Inactive) {
            return Err(ClusterError::already_in_swarm());
        }
        let remotes = address::remotes(request.remote_addrs.as_deref().unwrap_or_default())?;
        let remote = remotes.first().cloned().unwrap_or_default();
        let (listen, advertise, data_path) = self.resolve_join(&request).await?;
        let availability = request::availability(request.availability.as_deref())?;
        if self.config.live_restore {
            return Err(ClusterError::live_restore());
        }
        self.clear()?;
        let persisted = NodeState {
            remote_addr: remote.clone(),
            listen_addr: listen,
            advertise_addr: advertise,
            data_path_addr: data_path,
            ..NodeState::default()
        };
        let beginning = Beginning::Join {
            remote,
            token: request.join_token.unwrap_or_default(),
            availability,
        };
        let attempt = Attempt::start(
            self.config.state_dir.clone(),
            persisted,
            beginning,
            Arc::clone(&self.executor),
        );
        *self.state.write() = State::Joining(Arc::clone(&attempt));
        match tokio::time::timeout(READY_TIMEOUT, attempt.outcome()).await {
            Ok(Ok(node)) => {
                self.set_active(node);
                Ok(())
            }
            Ok(Err(error)) => {
                *self.state.write() = State::Inactive;
                self.clear()?;
                Err(error.into())
            }
            Err(_) => {
                self.settle_later(attempt);
                Err(ClusterError::join_timeout())
            }
        }
    }

    async fn part(&self, force: bool) -> Result<(), ClusterError> {
        let _changing = self.changing.lock().await;
        if !force {
            match &*self.state.read() {
                State::Active(node) => check_leaving(node)?,
                State::Down(down) if down.locked => return Err(ClusterError::locked_leave()),
                State::Down(_) | State::Joining(_) | State::Inactive => {}
            }
        }
        let state = std::mem::replace(&mut *self.state.write(), State::Inactive);
        match state {
            State::Inactive => return Err(ClusterError::not_in_swarm()),
            State::Active(node) => node.leave().await,
            State::Joining(attempt) => {
                if let Some(node) = attempt.give_up().await {
                    node.leave().await;
                }
            }
            State::Down(_) => {}
        }
        // Also for a node that is down: what it had on the host goes on without it.
        if let Err(error) = self.executor.left().await {
            tracing::error!(%error, "something of the swarm's networks stays");
        }
        self.clear()
    }

    async fn open(&self, key: &str) -> Result<(), ClusterError> {
        let _changing = self.changing.lock().await;
        let persisted = match &*self.state.read() {
            State::Active(_) => return Err(ClusterError::not_locked()),
            State::Down(down) if down.locked => down.persisted.clone(),
            State::Down(_) | State::Joining(_) | State::Inactive => {
                return Err(ClusterError::no_manager());
            }
        };
        let key: UnlockKey = key
            .parse()
            .map_err(|_| ClusterError::invalid("invalid key string"))?;
        match self.resume(persisted, Some(key), FIRST_PAUSE).await {
            Ok(node) => {
                // As at the start of the daemon.
                let _ = tokio::time::timeout(RESUME_PATIENCE, node.ready()).await;
                Ok(())
            }
            Err(StartError::Locked | StartError::WrongUnlockKey) => {
                Err(ClusterError::wrong_unlock_key())
            }
            Err(StartError::Failed(error)) => Err(ClusterError::new(
                ErrorKind::System,
                format!("swarm component could not be started: {error}"),
            )),
        }
    }
}

/// What a manager answers about the swarm.
impl Cluster {
    /// The control API and the logs; fails in moby's words if this node is no manager.
    pub fn control(&self) -> Result<ControlRouter, ClusterError> {
        Ok(self.manager()?.control().clone())
    }

    /// All objects as of now; fails as [`Self::control`] does.
    pub fn snapshot(&self) -> Result<Snapshot, ClusterError> {
        Ok(self.manager()?.store().snapshot())
    }

    /// This node's seat, if it is a manager that can answer.
    pub(crate) fn manager(&self) -> Result<Arc<Seat>, ClusterError> {
        match &*self.state.read() {
            State::Active(node) => match node.seat() {
                Some(seat) if seat.can_answer() => Ok(seat),
                Some(_) => Err(ClusterError::manager_not_ready()),
                None if node.role() == NodeRole::Manager => Err(ClusterError::manager_not_ready()),
                None => Err(ClusterError::worker()),
            },
            State::Down(down) if down.locked => Err(ClusterError::locked()),
            State::Down(down) => Err(ClusterError::node_down(&down.error)),
            State::Joining(_) | State::Inactive => Err(ClusterError::no_manager()),
        }
    }

    fn cluster_object(&self) -> Result<Arc<proto::Cluster>, ClusterError> {
        let snapshot = self.snapshot()?;
        snapshot
            .the_cluster()
            .cloned()
            .ok_or_else(ClusterError::manager_not_ready)
    }

    /// `GET /swarm`, with the join tokens.
    pub fn inspect(&self) -> Result<m::Swarm, ClusterError> {
        Ok(spec::swarm(&*self.cluster_object()?))
    }

    /// `POST /swarm/update`: the whole spec, based on `version`.
    pub async fn update(
        &self,
        version: u64,
        given: m::SwarmSpec,
        flags: UpdateFlags,
    ) -> Result<(), ClusterError> {
        let cluster = self.cluster_object()?;
        let spec = spec::merge(given, proto::ClusterSpec::default())?;
        let request = proto::UpdateClusterRequest {
            cluster_id: cluster.id.clone(),
            cluster_version: Some(proto::Version { index: version }),
            spec: Some(spec),
            rotation: Some(proto::KeyRotation {
                worker_join_token: flags.rotate_worker_token,
                manager_join_token: flags.rotate_manager_token,
                manager_unlock_key: flags.rotate_manager_unlock_key,
            }),
        };
        self.control()?
            .update_cluster(request)
            .await
            .map_err(|error| ClusterError::from(tonic::Status::from(error)))?;
        Ok(())
    }

    /// The key that opens this swarm's managers after a restart; empty if they are not locked.
    pub fn unlock_key(&self) -> Result<String, ClusterError> {
        let key = founding::unlock_key(&*self.cluster_object()?);
        Ok(key.map(|key| key.to_string()).unwrap_or_default())
    }
}

/// What any node answers about itself.
impl Cluster {
    pub fn local_state(&self) -> m::LocalNodeState {
        match &*self.state.read() {
            State::Inactive => m::LocalNodeState::INACTIVE,
            State::Active(_) => m::LocalNodeState::ACTIVE,
            State::Joining(_) => m::LocalNodeState::PENDING,
            State::Down(down) if down.locked => m::LocalNodeState::LOCKED,
            State::Down(_) => m::LocalNodeState::ERROR,
        }
    }

    /// The value of the `Swarm` header of `/_ping`.
    pub fn status(&self) -> String {
        if let State::Active(node) = &*self.state.read() {
            return match node.role() {
                NodeRole::Manager => "active/manager".to_owned(),
                NodeRole::Worker => "active/worker".to_owned(),
            };
        }
        self.local_state().to_string()
    }

    pub fn node_id(&self) -> Option<NodeId> {
        match &*self.state.read() {
            State::Active(node) => Some(node.id()),
            State::Down(_) | State::Joining(_) | State::Inactive => None,
        }
    }

    /// The `Swarm` section of `docker info`.
    pub fn info(&self) -> m::SwarmInfo {
        let mut info = m::SwarmInfo {
            node_id: Some(String::new()),
            node_addr: Some(String::new()),
            local_node_state: Some(self.local_state()),
            control_available: Some(false),
            error: Some(String::new()),
            ..Default::default()
        };
        match &*self.state.read() {
            State::Inactive => {}
            State::Joining(attempt) => info.node_addr = Some(own_addr(attempt.persisted())),
            State::Down(down) => {
                info.node_addr = Some(own_addr(&down.persisted));
                info.error = Some(down.error.clone());
            }
            State::Active(node) => describe(node, &mut info),
        }
        info
    }
}

fn describe(node: &Node, info: &mut m::SwarmInfo) {
    info.node_addr = Some(own_addr(&node.persisted()));
    let peer = |remote: skep_rpc::Remote| m::PeerNode {
        node_id: Some(remote.node_id),
        addr: Some(remote.addr),
    };
    info.remote_managers = Some(node.remotes().into_iter().map(peer).collect());
    info.node_id = Some(node.id().to_string());
    info.error = Some(node.trouble().unwrap_or_default());
    let Some(seat) = node.seat().filter(|seat| seat.can_answer()) else {
        return;
    };
    let snapshot = seat.store().snapshot();
    info.control_available = Some(true);
    info.nodes = Some(snapshot.count::<proto::Node>() as i64);
    info.managers = Some(seat.members().len() as i64);
    info.cluster = snapshot
        .the_cluster()
        .map(|cluster| spec::cluster_info(cluster));
}

/// The address that others reach this node at, as dockerd finds it.
fn own_addr(persisted: &NodeState) -> String {
    if !persisted.advertise_addr.is_empty() {
        return host_of(&persisted.advertise_addr).to_owned();
    }
    if !persisted.local_addr.is_empty() {
        return persisted.local_addr.clone();
    }
    address::on_route(&persisted.listen_addr, &persisted.remote_addr)
}

/// Docker's warnings to a manager that leaves.
fn check_leaving(node: &Node) -> Result<(), ClusterError> {
    let Some(seat) = node.seat() else {
        return match node.role() {
            NodeRole::Worker => Ok(()),
            NodeRole::Manager => Err(ClusterError::manager_leaves(None)),
        };
    };
    if !seat.can_answer() {
        return Err(ClusterError::manager_leaves(None));
    }
    let members = seat.members();
    let all = members.len();
    let reachable = members
        .iter()
        .filter(|member| member.reachability == Reachability::Reachable)
        .count();
    Err(if all == 1 {
        ClusterError::last_manager()
    } else {
        ClusterError::manager_leaves(Some((reachable, all - reachable)))
    })
}

/// Steps of the changes above. All are called with `changing` held.
impl Cluster {
    /// Whether `init` may go on, and, for a forced one, the node that is to go on alone.
    fn former_for(&self, request: &InitRequest) -> Result<Option<Arc<Node>>, ClusterError> {
        match &*self.state.read() {
            State::Inactive => Ok(None),
            _ if !request.force_new_cluster => Err(ClusterError::already_in_swarm()),
            State::Active(node) if node.seat().is_some() => Ok(Some(Arc::clone(node))),
            State::Active(_) => Err(ClusterError::worker()),
            State::Down(down) if down.locked => Err(ClusterError::locked()),
            State::Joining(_) | State::Down(_) => Err(ClusterError::no_manager()),
        }
    }

    async fn interfaces(&self) -> Result<Vec<address::Interface>, ClusterError> {
        let managed = self
            .config
            .managed_subnets
            .as_ref()
            .map(|list| list())
            .unwrap_or_default();
        tokio::task::spawn_blocking(move || interfaces::list(&managed))
            .await
            .map_err(|error| ClusterError::system("listing interfaces", &error))?
            .map_err(|error| ClusterError::system("listing interfaces", &error))
    }

    /// What a node that joins listens on, tells others, and uses for its data.
    async fn resolve_join(
        &self,
        request: &JoinRequest,
    ) -> Result<(String, String, String), ClusterError> {
        let interfaces = self.interfaces().await?;
        address::resolve_join(
            &AddressRequest {
                listen: request.listen_addr.as_deref().unwrap_or_default(),
                advertise: request.advertise_addr.as_deref().unwrap_or_default(),
                default_advertise: "",
                data_path: request.data_path_addr.as_deref().unwrap_or_default(),
            },
            &interfaces,
        )
    }

    async fn resolve(&self, request: &InitRequest) -> Result<address::Addresses, ClusterError> {
        let interfaces = self.interfaces().await?;
        let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
        address::resolve(
            &AddressRequest {
                listen: &text(&request.listen_addr),
                advertise: &text(&request.advertise_addr),
                default_advertise: &text(&self.config.default_advertise_addr),
                data_path: &text(&request.data_path_addr),
            },
            &interfaces,
        )
    }

    async fn begin(
        &self,
        persisted: NodeState,
        beginning: Beginning,
    ) -> Result<Arc<Node>, StartError> {
        let executor = Arc::clone(&self.executor);
        let node = Node::start(&self.config.state_dir, persisted, beginning, executor).await?;
        Ok(Arc::new(node))
    }

    /// Begins again from the disk. On failure the node is down, and, unless it is locked, tried again
    /// by itself.
    async fn resume(
        &self,
        persisted: NodeState,
        unlock: Option<UnlockKey>,
        pause: Duration,
    ) -> Result<Arc<Node>, StartError> {
        let beginning = Beginning::Resume {
            unlock,
            alone: false,
        };
        self.begin_again(persisted, beginning, pause).await
    }

    async fn begin_again(
        &self,
        persisted: NodeState,
        beginning: Beginning,
        pause: Duration,
    ) -> Result<Arc<Node>, StartError> {
        match self.begin(persisted.clone(), beginning).await {
            Ok(node) => {
                self.set_active(Arc::clone(&node));
                Ok(node)
            }
            Err(error) => {
                tracing::error!(%error, "the swarm could not be taken up");
                self.set_down(persisted, &error, pause);
                Err(error)
            }
        }
    }

    /// A join that takes longer than its user waited comes to an end at some time.
    fn settle_later(&self, attempt: Arc<Attempt>) {
        let this = self.this.clone();
        tokio::spawn(async move {
            let outcome = attempt.outcome().await;
            let Some(cluster) = this.upgrade() else {
                return;
            };
            let _changing = cluster.changing.lock().await;
            let is_current = matches!(
                &*cluster.state.read(),
                State::Joining(current) if Arc::ptr_eq(current, &attempt)
            );
            if !is_current {
                return;
            }
            match outcome {
                Ok(node) => cluster.set_active(node),
                Err(error) => {
                    tracing::error!(%error, "the node did not join the swarm");
                    // As dockerd: it shows until the user leaves. Nothing of the swarm is kept.
                    if let Err(error) = cluster.clear() {
                        tracing::error!(%error, "cannot remove what is left of the join");
                    }
                    *cluster.state.write() = State::Down(Down {
                        persisted: attempt.persisted().clone(),
                        locked: false,
                        error: error.to_string(),
                    });
                }
            }
        });
    }

    fn set_active(&self, node: Arc<Node>) {
        *self.state.write() = State::Active(Arc::clone(&node));
        let this = self.this.clone();
        tokio::spawn(async move {
            let Some(error) = node.failed().await else {
                return;
            };
            if let Some(cluster) = this.upgrade() {
                cluster.recover(&node, error).await;
            }
        });
    }

    /// A running node broke down by itself: a full disk, say.
    async fn recover(&self, node: &Arc<Node>, error: String) {
        let _changing = self.changing.lock().await;
        let is_current =
            matches!(&*self.state.read(), State::Active(current) if Arc::ptr_eq(current, node));
        if !is_current {
            return;
        }
        tracing::error!(error, "the swarm node stopped");
        node.stop().await;
        self.set_down(node.persisted(), &StartError::Failed(error), FIRST_PAUSE);
    }

    fn set_down(&self, persisted: NodeState, error: &StartError, pause: Duration) {
        let locked = matches!(error, StartError::Locked | StartError::WrongUnlockKey);
        let error = if locked {
            ClusterError::locked().message
        } else {
            error.to_string()
        };
        *self.state.write() = State::Down(Down {
            persisted,
            locked,
            error,
        });
        if !locked {
            self.try_again_after(pause);
        }
    }

    fn try_again_after(&self, pause: Duration) {
        let this = self.this.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let Some(cluster) = this.upgrade() else {
                return;
            };
            cluster.try_again((pause * 2).min(LONGEST_PAUSE)).await;
        });
    }

    // Boxed: it leads back to itself through the next attempt.
    fn try_again(&self, next_pause: Duration) -> futures::future::BoxFuture<'_, ()> {
        Box::pin(async move {
            let _changing = self.changing.lock().await;
            let persisted = match &*self.state.read() {
                State::Down(down) if !down.locked => down.persisted.clone(),
                _ => return,
            };
            self.resume(persisted, None, next_pause).await.ok();
        })
    }

    /// `--force-new-cluster`: this node goes on as the only manager, with what it knows, under the
    /// addresses of the request.
    async fn force_new(
        &self,
        former: &Arc<Node>,
        persisted: NodeState,
        given: m::SwarmSpec,
    ) -> Result<NodeId, ClusterError> {
        let seat = former.seat().ok_or_else(ClusterError::no_manager)?;
        let old = former.persisted();
        let unlock = seat
            .store()
            .snapshot()
            .the_cluster()
            .and_then(|cluster| founding::unlock_key(cluster));
        drop(seat);
        let persisted = NodeState {
            // These belong to the swarm, not to the node, and the swarm goes on.
            default_address_pool: old.default_address_pool,
            subnet_size: old.subnet_size,
            data_path_port: old.data_path_port,
            ..persisted
        };
        former.stop().await;
        let beginning = Beginning::Resume {
            unlock,
            alone: true,
        };
        let node = self.begin_again(persisted, beginning, FIRST_PAUSE).await?;
        let ready = tokio::time::timeout(READY_TIMEOUT, node.ready()).await;
        ready.map_err(|_| ClusterError::manager_not_ready())?;
        let changed = self
            .manager()?
            .store()
            .update(|transaction| {
                let cluster = transaction
                    .the_cluster()
                    .cloned()
                    .ok_or_else(ClusterError::manager_not_ready)?;
                let mut cluster = (*cluster).clone();
                cluster.spec = Some(spec::merge(given, cluster.spec().clone())?);
                transaction.update(cluster).map_err(|error| {
                    ClusterError::system("error updating cluster settings", &error)
                })
            })
            .await;
        match changed {
            Ok(_) => Ok(node.id()),
            Err(skep_store::UpdateError::Rejected(error)) => Err(error),
            Err(error) => Err(ClusterError::system(
                "error updating cluster settings",
                &error,
            )),
        }
    }

    fn clear(&self) -> Result<(), ClusterError> {
        persisted::clear(&self.config.state_dir)
            .map_err(|error| ClusterError::system("removing the swarm's state", &error))
    }
}

impl From<StartError> for ClusterError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Locked | StartError::WrongUnlockKey => Self::locked(),
            StartError::Failed(error) => Self::new(ErrorKind::System, error),
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
