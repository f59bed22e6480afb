//! Gives out what must not be given twice: subnets, addresses, virtual addresses, VXLAN numbers and
//! published ports. Pure: objects come in, changed objects go out.
//!
//! ```text
//!   networks, services, tasks, nodes ──observe──▶ Allocator (who holds what)
//!                                                     │ network, service, task, node
//!                                                     ▼
//!                       the object with its allocation, or why there is none
//! ```
//!
//! What is taken is kept per holder, and observing an object replaces all its holder has: so a
//! leader that starts anew, a write that failed, or an object that went away leave nothing behind
//! and nothing twice. The rules and texts are SwarmKit's, but addresses are given out in turn rather
//! than lowest first: one that was just freed may still be in somebody's caches.
//!
//! The address arithmetic serves local networks too.
//!
//! Deliberately not here: when to allocate, the store (the manager), making any of it real (the
//! nodes).

mod addresses;
mod allocator;
mod attachment;
mod error;
mod network;
mod pools;
mod ports;
mod prefix;
mod service;

#[cfg(test)]
mod tests;

pub use addresses::{AddressSet, Unavailable};
pub use allocator::{Allocator, Holder};
pub use attachment::{is_over, needs_networks, wanted_networks};
pub use error::AllocationError;
pub use network::{ingress_spec, is_ingress, is_overlay};
pub use pools::{AddressPool, choose, docker_pools, unique_local};
pub use prefix::{InvalidPrefix, Prefix};
