//! Replication of the swarm's state between managers: TiKV's `raft`, driven by one thread, over a
//! write-ahead log of our own.
//!
//! ```text
//!  propose(bytes) ──► queue ──► RawNode ──► log file: one record, one fdatasync for all queued
//!       ▲                          │  ▲                    │
//!       │                  messages│  │step(message)       ▼ committed entries
//!       │                          ▼  │              StateMachine::apply(index, bytes)
//!       └── index, once applied    Transport               │
//!                                                  every 10,000 entries: snapshot, new log file
//! ```
//!
//! `Core` is synchronous and knows no clock; a `Driver` feeds it, on a thread or in a simulation.
//! The bytes are opaque here: what a transaction is, the store knows. Messages are etcd's (the prost
//! types of `skep-proto`), so dockerd managers can be peers; the conversions to and from TiKV's types
//! are in `convert`, and nothing from the network is ever given to its protobuf decoder.
//!
//! Deliberately not here: sockets (the [`Transport`] is given), the join and leave RPCs, choosing
//! which member to remove, linearizable reads, pre-vote, learners and joint consensus (dockerd
//! managers know none of them).

mod config;
mod convert;
mod disk;
mod error;
mod logger;
mod members;
mod node;
mod state_machine;
mod storage;

pub use config::{IfNew, RaftConfig, SKEP_TICK, SWARMKIT_TICK, Ticks};
pub use convert::ConvertError;
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{ProposeError, RaftError, StepError, StorageError};
pub use members::Members;
pub use node::{Driver, Leadership, RaftNode, Reign, Role};
pub use state_machine::{BoxError, StateMachine, Transport};
