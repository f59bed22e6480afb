//! A lab: several nodes of a swarm on one Linux machine, each as good as a machine of its own.
//!
//! A node is a network namespace with an address, a host name, an `/etc/hosts` that knows the other
//! nodes, a data root, an exec root, a docker socket and a cgroup. Their cables end at a bridge in
//! one more namespace, `outside`, so that nothing of it shows in the host's own network.
//!
//! ```text
//!   m1 ──eth0──┐        ┌──eth0── w1
//!   m2 ──eth0──┼─ br0 ──┼──eth0── w2        namespace `outside`: br0 has .1, the nodes' gateway
//!   m3 ──eth0──┘        └──eth0── w3
//! ```
//!
//! Everything is synchronous and stateless: a lab is what its directory and the kernel say, so that
//! the next command finds it, and [`down`] removes it even when half of it is gone.
//!
//! Deliberately not here: what runs on the nodes (that is told through the Engine API), and any way
//! from the nodes to the world.

mod api;
mod cgroups;
mod error;
mod fabric;
mod files;
mod join;
mod lab;
mod launch;
mod mounts;
mod node;
mod private;
mod process;
mod spec;
mod sweep;
mod units;
pub mod wire;

pub use api::Api;
pub use error::LabError;
pub use fabric::Fabric;
pub use files::LabFiles;
pub use lab::{Lab, NodeState, NodeStatus};
pub use node::{Node, Role, Runtime};
pub use spec::LabSpec;
pub use sweep::{Leftovers, down};
pub use units::{parse_delay, parse_loss};
pub use wire::Slowness;

pub use cgroups::{cgroups_at, processes_in_cgroup};
pub use mounts::mounts_below;
pub use process::{Process, processes_naming};
