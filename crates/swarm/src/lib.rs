//! This node's part in a swarm: making one, joining one, leaving it, unlocking it, coming back to it
//! after a crash, and the way to its managers' API.
//!
//! ```text
//!  api ──▶ Cluster ──▶ Node ──┬── agent ──▶ Executor (the engine)
//!          init, join, leave, │     └─ Uplink ──▶ a manager, here or elsewhere
//!          info, update       └── Seat, while it is a manager: port, raft ◀──▶ store, manager
//! ```
//!
//! [`Cluster`] is always there; a `Node` only while this node is in a swarm; a `Seat` only while the
//! node's certificate is a manager's: it is taken and given up beside the running agent. Everything
//! on disk is in one directory, and `docker-state.json` in it decides whether there is a swarm at all.
//!
//! Deliberately not here: what the managers decide (`skep-manager`), what runs on this node
//! (`skep-agent`), the network between nodes (`skep-rpc`), HTTP.

mod address;
mod cluster;
mod error;
mod events;
mod founding;
mod identity;
mod interfaces;
mod joining;
mod keys;
mod members;
mod node;
mod persisted;
mod remotes;
mod replication;
mod request;
mod seat;
mod session;
mod spec;

pub use cluster::{Cluster, ClusterConfig, ManagedSubnets};
pub use error::{ClusterError, ErrorKind};
pub use replication::{MAX_PROPOSAL_BYTES, RaftProposer, StoreMachine};
pub use skep_rpc::ControlRouter;

pub use request::{InitRequest, JoinRequest, UpdateFlags};
