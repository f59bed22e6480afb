//! A manager of the swarm.
//!
//! ```text
//!   users ──> Control ──transactions──> Store (raft) <──batches── Leader: orchestrate, allocate,
//!                                         │                               schedule, reap
//!                                         ├──events──> Dispatcher ──assignments──> agents
//!                                         │                 └──statuses, batched──> Store
//!                                         └──> LogBroker: asks agents for logs, passes them on
//! ```
//!
//! Decisions are made by the pure crates `skep-orchestrator` and `skep-scheduler`; here are the thin
//! loops that feed them and apply what they say. One loop and no timer per object: the earliest time
//! at which any decision asked to be woken is enough.
//!
//! Deliberately not here: consensus and the store, the network between managers and agents, the CA
//! service.

mod allocation;
mod control;
mod dispatcher;
mod endpoints;
mod error;
mod leader;
mod log_broker;
mod manager;
mod members;
mod root_ca;

#[cfg(test)]
mod testing;

pub use control::{Control, ExternalAuthorities};
pub use dispatcher::{Caller, Dispatcher, ResponseStream};
pub use error::{Code, ControlError};
pub use log_broker::LogBroker;
pub use manager::{Manager, ManagerConfig};
pub use members::{Member, Members};
pub use root_ca::{external_cas, issuing_root, root_ca};
