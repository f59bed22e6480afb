use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bollard_stubs::models as m;
use parking_lot::RwLock;
use skep_agent::Executor;
use skep_ca::UnlockKey;
use skep_manager::{Control, LogBroker};
use skep_model::ext::ClusterExt as _;
use skep_model::{NodeId, proto};
use skep_store::Snapshot;

use crate::address::{AddressRequest, host_of};
use crate::node::{Beginning, Node, StartError};
use crate::persisted::{self, NodeState};
use crate::request::{self, InitRequest, JoinRequest, UpdateFlags};
use crate::{ClusterError, ErrorKind, address, founding, interfaces, spec};

/// Between attempts to come back after a failure; doubles up to the longest. An attempt costs a few
/// milliseconds, and whoever just made room on the disk waits for it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
            cluster.resume(persisted, None, FIRST_PAUSE).await.ok();
        }
        Ok(cluster)
    }

    /// Stops taking part, as the daemon ends. Tasks go on running; the swarm is not left.
    pub async fn stop(&self) {
        let _changing = self.changing.lock().await;
        let state = std::mem::replace(&mut *self.state.write(), State::Inactive);
        if let State::Active(node) = state {
            node.stop().await;
        }
    }

    /// Makes a new swarm with this node as its first manager.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, ClusterError> {
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
                let id = node.id().clone();
                self.set_active(node.clone());
                node.ready().await;
                Ok(id)
            }
            Err(error) => {
                // A first attempt that fails leaves nothing behind.
                self.clear()?;
                Err(error.into())
            }
        }
    }

    /// Not yet: refused after the checks that do not need the network.
    pub async fn join(&self, request: JoinRequest) -> Result<(), ClusterError> {
        let _changing = self.changing.lock().await;
        if !matches!(*self.state.read(), State::Inactive) {
            return Err(ClusterError::already_in_swarm());
        }
        if request.remote_addrs.is_none_or(|addrs| addrs.is_empty()) {
            return Err(ClusterError::invalid(
                "at least 1 RemoteAddr is required to join",
            ));
        }
        Err(ClusterError::new(
            ErrorKind::NotImplemented,
            "skep: joining a swarm of other nodes is not implemented yet",
        ))
    }

    /// Leaves the swarm: this node's tasks are removed, and all that is known of the swarm here.
    pub async fn leave(&self, force: bool) -> Result<(), ClusterError> {
        let _changing = self.changing.lock().await;
        if !force {
            match &*self.state.read() {
                State::Active(node) if node.is_only_manager() => {
                    return Err(ClusterError::last_manager());
                }
                State::Active(_) => return Err(ClusterError::manager_leaves()),
                State::Down(down) if down.locked => return Err(ClusterError::locked_leave()),
                State::Down(_) | State::Inactive => {}
            }
        }
        let state = std::mem::replace(&mut *self.state.write(), State::Inactive);
        match state {
            State::Inactive => return Err(ClusterError::not_in_swarm()),
            State::Active(node) => node.leave().await,
            State::Down(_) => {}
        }
        self.clear()
    }

    /// Opens a locked swarm with the key that `docker swarm unlock-key` showed.
    pub async fn unlock(&self, key: &str) -> Result<(), ClusterError> {
        let _changing = self.changing.lock().await;
        let persisted = match &*self.state.read() {
            State::Active(_) => return Err(ClusterError::not_locked()),
            State::Down(down) if down.locked => down.persisted.clone(),
            State::Down(_) | State::Inactive => return Err(ClusterError::no_manager()),
        };
        let key: UnlockKey = key
            .parse()
            .map_err(|_| ClusterError::invalid("invalid key string"))?;
        match self.resume(persisted, Some(key), FIRST_PAUSE).await {
            Ok(()) => Ok(()),
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
    /// The control API; fails in moby's words if this node is no manager.
    pub fn control(&self) -> Result<Control, ClusterError> {
        Ok(self.manager()?.control().clone())
    }

    /// Where the logs of tasks on any node are read; fails as [`Self::control`] does.
    pub fn log_broker(&self) -> Result<Arc<LogBroker>, ClusterError> {
        Ok(Arc::clone(self.manager()?.log_broker()))
    }

    /// All objects as of now; fails as [`Self::control`] does.
    pub fn snapshot(&self) -> Result<Snapshot, ClusterError> {
        Ok(self.manager()?.store().snapshot())
    }

    /// The node, if it is a manager that can answer.
    pub(crate) fn manager(&self) -> Result<Arc<Node>, ClusterError> {
        match &*self.state.read() {
            State::Active(node) if node.is_leader() => Ok(Arc::clone(node)),
            State::Active(_) => Err(ClusterError::manager_not_ready()),
            State::Down(down) if down.locked => Err(ClusterError::locked()),
            State::Down(down) => Err(ClusterError::node_down(&down.error)),
            State::Inactive => Err(ClusterError::no_manager()),
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
            State::Down(down) if down.locked => m::LocalNodeState::LOCKED,
            State::Down(_) => m::LocalNodeState::ERROR,
        }
    }

    /// The value of the `Swarm` header of `/_ping`.
    pub fn status(&self) -> String {
        match self.local_state() {
            m::LocalNodeState::ACTIVE => "active/manager".to_owned(),
            state => state.to_string(),
        }
    }

    pub fn node_id(&self) -> Option<NodeId> {
        match &*self.state.read() {
            State::Active(node) => Some(node.id().clone()),
            State::Down(_) | State::Inactive => None,
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
            State::Down(down) => {
                info.node_addr = Some(host_of(&down.persisted.advertise_addr).to_owned());
                info.error = Some(down.error.clone());
            }
            State::Active(node) => describe(node, &mut info),
        }
        info
    }
}

fn describe(node: &Node, info: &mut m::SwarmInfo) {
    let advertised = &node.persisted().advertise_addr;
    let id = node.id().to_string();
    info.node_addr = Some(host_of(advertised).to_owned());
    let peer = |member: &skep_manager::Member| m::PeerNode {
        node_id: Some(member.node_id.to_string()),
        addr: Some(member.addr.clone()),
    };
    let members = node.members();
    info.remote_managers = Some(members.iter().map(peer).collect());
    info.node_id = Some(id);
    if node.is_leader() {
        let snapshot = node.store().snapshot();
        info.control_available = Some(true);
        info.nodes = Some(snapshot.count::<proto::Node>() as i64);
        info.managers = Some(members.len() as i64);
        info.cluster = snapshot
            .the_cluster()
            .map(|cluster| spec::cluster_info(cluster));
    }
}

/// Steps of the changes above. All are called with `changing` held.
impl Cluster {
    /// Whether `init` may go on, and, for a forced one, the node that is to go on alone.
    fn former_for(&self, request: &InitRequest) -> Result<Option<Arc<Node>>, ClusterError> {
        match &*self.state.read() {
            State::Inactive => Ok(None),
            State::Active(node) if request.force_new_cluster => Ok(Some(Arc::clone(node))),
            State::Active(_) | State::Down(_) if !request.force_new_cluster => {
                Err(ClusterError::already_in_swarm())
            }
            State::Down(down) if down.locked => Err(ClusterError::locked()),
            State::Active(_) | State::Down(_) => Err(ClusterError::no_manager()),
        }
    }

    async fn resolve(&self, request: &InitRequest) -> Result<address::Addresses, ClusterError> {
        let managed = self
            .config
            .managed_subnets
            .as_ref()
            .map(|list| list())
            .unwrap_or_default();
        let interfaces = tokio::task::spawn_blocking(move || interfaces::list(&managed))
            .await
            .map_err(|error| ClusterError::system("listing interfaces", &error))?
            .map_err(|error| ClusterError::system("listing interfaces", &error))?;
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
    ) -> Result<(), StartError> {
        match self
            .begin(persisted.clone(), Beginning::Resume { unlock })
            .await
        {
            Ok(node) => {
                self.set_active(node);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the swarm could not be taken up");
                self.set_down(persisted, &error, pause);
                Err(error)
            }
        }
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
        self.set_down(
            node.persisted().clone(),
            &StartError::Failed(error),
            FIRST_PAUSE,
        );
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
        if former.members().len() > 1 {
            return Err(ClusterError::new(
                ErrorKind::NotImplemented,
                "skep: --force-new-cluster in a swarm of several managers is not implemented yet",
            ));
        }
        let persisted = NodeState {
            // These belong to the swarm, not to the node, and the swarm goes on.
            default_address_pool: former.persisted().default_address_pool.clone(),
            subnet_size: former.persisted().subnet_size,
            data_path_port: former.persisted().data_path_port,
            ..persisted
        };
        let unlock = former.unlock_key();
        former.stop().await;
        self.resume(persisted, unlock, FIRST_PAUSE).await?;
        let node = self.manager()?;
        let changed = node
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
            Ok(_) => Ok(node.id().clone()),
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
