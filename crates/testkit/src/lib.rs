//! Real daemons for tests: each in a network namespace of its own with its own data root, driven
//! by the stock docker CLI, and cleaned up whatever happens. [`Daemon`] is one alone, [`Lab`] several
//! that reach each other; both stand on `skep-lab`.
//!
//! Nothing here sleeps to let something happen: [`eventually`] asks again until a bound.

mod cleanup;
mod daemon;
mod docker;
mod lab;
mod machine;
mod programs;
mod registry;
mod wait;
pub mod web;

pub use daemon::{Daemon, DaemonBuilder};
pub use docker::{Docker, Outcome};
pub use lab::{Lab, LabBuilder, LabNode};
pub use machine::Machine;
pub use programs::image_tarball;
pub use registry::{Registry, RegistryOptions};
pub use wait::{eventually, eventually_within};
