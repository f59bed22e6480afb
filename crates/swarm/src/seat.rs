//! This node's seat among the managers: its port, its member of the raft group, and all that stands
//! on them. Taken when the node has a manager's certificate, given up when it loses it; the agent
//! beside it runs on in both cases.

mod announce;
mod claim;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skep_manager::{Manager, ManagerConfig, Member, Members};
use skep_model::proto;
use skep_raft::{Leadership, RaftNode};
use skep_rpc::{
    Backends, BrokerLogs, Connector, ControlRouter, ExternalClient, LeaderRoute, LocalManager,
    LogBackend, NodeSecurity, RaftLeader, RaftMember, RaftTransport, RemoteNode, Remotes,
    RoleKeeper, RpcServer, Slot, StoreAuthority,
};
use skep_store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::keys::{KeyFiles, KeyKeeper};
use crate::members::{self, RaftView};

use announce::Announcer;
pub(crate) use claim::{Claim, forget, has_log};

/// A leader that stops gives its successor this long to take over.
const HAND_OVER: Duration = Duration::from_secs(2);

/// What of the node a seat stands on.
pub(crate) struct Place {
    pub(crate) node_id: String,
    pub(crate) cluster_id: String,
    pub(crate) state_dir: PathBuf,
    pub(crate) security: Arc<NodeSecurity>,
    pub(crate) keys: Arc<KeyFiles>,
    pub(crate) remotes: Arc<Remotes>,
    /// Where the agent finds the manager beside it.
    pub(crate) local: Slot<LocalManager>,
    /// `host:port`
    pub(crate) listen_addr: String,
    /// `host:port`; empty if the other managers are to find it out.
    pub(crate) advertise_addr: String,
}

/// Why a seat was not taken. The text says all there is to say.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SeatError(String);

impl SeatError {
    fn because(what: &str, error: &dyn std::error::Error) -> Self {
        Self(crate::ClusterError::system(what, error).message)
    }
}

/// How a seat ended by itself.
#[derive(Debug)]
pub(crate) enum End {
    /// The other managers have removed this one.
    Removed,
    Failed(String),
}

pub(crate) struct Seat {
    local: Slot<LocalManager>,
    server: RpcServer,
    backends: Backends,
    store: Store,
    raft: RaftNode,
    transport: RaftTransport,
    member: Arc<RaftMember>,
    leadership: watch::Receiver<Leadership>,
    members: Members,
    manager: Manager,
    router: ControlRouter,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Seat {
    /// Opens the port, becomes a member of the raft group or goes on as the one it was, and starts
    /// everything. Does not wait for a leader, except when the swarm is founded.
    pub(crate) async fn take(place: &Place, claim: Claim) -> Result<Self, SeatError> {
        let backends = Backends::default();
        let server = bind(place, &backends).await?;
        // A manager that joins is dialled back before it is a member.
        backends.health.set_serving(true);
        match claim.make_good(place).await {
            Ok((store, raft, transport)) => Ok(Self::furnish(
                place, server, backends, store, raft, transport,
            )),
            Err(error) => {
                server.stop().await;
                Err(error)
            }
        }
    }

    fn furnish(
        place: &Place,
        server: RpcServer,
        backends: Backends,
        store: Store,
        raft: RaftNode,
        transport: RaftTransport,
    ) -> Self {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (view, follow) = members::follow(&raft, &transport, stop.clone());
        let RaftView { members, leads } = view;
        tasks.spawn(follow);
        let keeper = KeyKeeper {
            keys: Arc::clone(&place.keys),
            store: store.clone(),
            raft: raft.clone(),
        };
        tasks.spawn(keeper.run(stop.clone()));
        tasks.spawn(Announcer::new(place, raft.clone()).run(stop.clone()));
        let manager = Manager::start(ManagerConfig {
            node_id: place.node_id.as_str().into(),
            store: store.clone(),
            leadership: leads.clone(),
            members: members.clone(),
        })
        .with_external_authorities(Arc::new(ExternalClient::new(Arc::clone(&place.security))));

        let connector = Connector::new(Arc::clone(&place.security));
        let member = Arc::new(RaftMember::new(raft.clone(), transport.clone(), connector));
        let authority = Arc::new(StoreAuthority::as_node(
            store.clone(),
            Arc::clone(&place.security),
        ));
        tasks.spawn(lead(
            leads,
            Arc::clone(&authority),
            RoleKeeper::new(store.clone(), Arc::clone(&member)),
            stop.clone(),
        ));
        let leader: Arc<dyn LeaderRoute> = Arc::new(RaftLeader::new(&raft, transport.clone()));
        let logs: Arc<dyn LogBackend> = Arc::new(BrokerLogs(Arc::clone(manager.log_broker())));
        let router = ControlRouter::new(
            manager.control().clone(),
            store.clone(),
            Arc::clone(&leader),
            Arc::clone(&logs),
        );
        backends.removed.set(Arc::new(store.clone()));
        backends.raft.set(Arc::clone(&member));
        backends
            .dispatcher
            .set(Arc::clone(manager.dispatcher()) as _);
        backends.logs.set(Arc::clone(&logs));
        backends.authority.set(Arc::clone(&authority) as _);
        backends.control.set(Arc::new(manager.control().clone()));
        // Last: calls that only the leader answers come in from here on.
        backends.leader.set(Arc::clone(&leader));
        place.local.set(Arc::new(LocalManager {
            caller: own_caller(place),
            leader,
            dispatcher: Arc::clone(manager.dispatcher()) as _,
            logs,
            authority,
        }));
        Self {
            local: place.local.clone(),
            server,
            backends,
            leadership: raft.leadership(),
            store,
            raft,
            transport,
            member,
            members,
            manager,
            router,
            stop,
            tasks,
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn control(&self) -> &ControlRouter {
        &self.router
    }

    pub(crate) fn members(&self) -> Arc<Vec<Member>> {
        Arc::clone(&self.members.borrow())
    }

    /// Whether this manager has heard enough of the swarm to answer for it.
    pub(crate) fn can_answer(&self) -> bool {
        self.store.snapshot().the_cluster().is_some()
    }

    /// Returns once this manager can answer and knows who leads.
    pub(crate) async fn settled(&self) {
        let mut changed = self.store.changed();
        let mut leadership = self.leadership.clone();
        loop {
            changed.borrow_and_update();
            let led = leadership.borrow_and_update().leader.is_some();
            if led && self.can_answer() {
                return;
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Resolves when the other managers have removed this one, or raft has broken down.
    pub(crate) async fn ended(&self) -> End {
        let mut leadership = self.leadership.clone();
        let removed = tokio::select! {
            () = self.transport.removed().cancelled() => true,
            stopped = leadership.wait_for(|leadership| leadership.stopped) => {
                // An error means that the member is gone altogether.
                stopped.is_ok_and(|leadership| leadership.removed)
            }
        };
        if removed {
            return End::Removed;
        }
        End::Failed(match self.raft.failure() {
            Some(error) => crate::ClusterError::system("raft has stopped", &*error).message,
            None => "raft has stopped".to_owned(),
        })
    }

    /// Stops everything; returns when the port and the files are free.
    pub(crate) async fn stop(&self) {
        if self.leadership.borrow().is_leader() && self.members().len() > 1 {
            // So that the others need not find out by waiting in vain.
            let _ = tokio::time::timeout(HAND_OVER, self.member.hand_over()).await;
        }
        // The agent looks for another manager from here on.
        self.local.clear();
        self.stop.cancel();
        self.manager.stop().await;
        self.backends.health.set_serving(false);
        self.backends.clear();
        self.tasks.close();
        self.tasks.wait().await;
        self.raft.stop().await;
        self.transport.stop();
        self.store.close();
        self.server.stop().await;
    }
}

/// Opens the manager's port, in moby's words if that fails.
async fn bind(place: &Place, backends: &Backends) -> Result<RpcServer, SeatError> {
    let listen = &place.listen_addr;
    let failed = |reason: String| {
        SeatError(format!(
            "manager stopped: failed to listen on remote API address: listen tcp {listen}: {reason}"
        ))
    };
    let addr: SocketAddr = listen.parse().map_err(|_| failed("bad address".into()))?;
    RpcServer::bind(addr, Arc::clone(&place.security), backends.clone())
        .await
        .map_err(|error| {
            failed(match error.kind() {
                std::io::ErrorKind::AddrInUse => "bind: address already in use".to_owned(),
                std::io::ErrorKind::AddrNotAvailable => {
                    "bind: cannot assign requested address".to_owned()
                }
                _ => error.to_string(),
            })
        })
}

/// This node, as a client of the manager beside it.
fn own_caller(place: &Place) -> RemoteNode {
    RemoteNode {
        node_id: place.node_id.clone(),
        roles: vec![skep_ca::NodeRole::Manager.organizational_unit().to_owned()],
        organization: place.cluster_id.clone(),
        addr: place.advertise_addr.clone(),
        forwarded_by: None,
    }
}

/// What only the leader does beside the manager's own loops.
async fn lead(
    mut leads: watch::Receiver<bool>,
    authority: Arc<StoreAuthority>,
    keeper: RoleKeeper,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            elected = leads.wait_for(|leads| *leads) => if elected.is_err() { return },
        }
        let term = stop.child_token();
        let deposed = async {
            // Nobody left to tell is as good as no longer leading.
            let _ = leads.wait_for(|leads| !*leads).await;
            term.cancel();
        };
        tokio::join!(
            authority.run(term.clone()),
            keeper.run(term.clone()),
            async {
                tokio::select! {
                    () = deposed => {}
                    () = stop.cancelled() => {}
                }
            },
        );
    }
}

/// A member of the raft group as this node describes itself.
fn founder(place: &Place) -> proto::RaftMember {
    proto::RaftMember {
        raft_id: rand::random_range(1..=i64::MAX as u64),
        node_id: place.node_id.clone(),
        addr: place.advertise_addr.clone(),
        status: None,
    }
}
