//! This node's part in a swarm: making one, leaving it, unlocking it, coming back to it after a crash,
//! and the way to its managers' API.
//!
//! ```text
//!  api ──▶ Cluster ──▶ Node ──┬── raft ◀──▶ store          (replication)
//!          init, leave,       ├── manager: leader's loops, control API, dispatcher
//!          info, update       └── agent ──▶ Executor        (the engine)
//! ```
//!
//! [`Cluster`] is always there; a `Node` only while this node is in a swarm. Everything on disk is in
//! one directory, and `docker-state.json` in it decides whether there is a swarm at all.
//!
//! Deliberately not here: what the managers decide (`skep-manager`), what runs on this node
//! (`skep-agent`), HTTP. Not yet: joining a swarm of others, and therefore a listening port.

mod address;
mod cluster;
mod error;
mod founding;
mod identity;
mod interfaces;
mod keys;
mod local;
mod members;
mod node;
mod persisted;
mod replication;
mod request;
mod spec;

pub use cluster::{Cluster, ClusterConfig, ManagedSubnets};
pub use error::{ClusterError, ErrorKind};
pub use replication::{MAX_PROPOSAL_BYTES, RaftProposer, StoreMachine};
pub use request::{InitRequest, JoinRequest, UpdateFlags};
