//! Real daemons for tests: each in a network namespace of its own with its own data root, driven
//! by the stock docker CLI, and cleaned up whatever happens.
//!
//! Nothing here sleeps to let something happen: [`eventually`] asks again until a bound.

mod cleanup;
mod daemon;
mod docker;
mod machine;
mod wait;

pub use daemon::{Daemon, DaemonBuilder, image_tarball};
pub use docker::{Docker, Outcome};
pub use machine::Machine;
pub use wait::{eventually, eventually_within};
