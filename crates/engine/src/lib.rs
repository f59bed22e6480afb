//! Docker's engine: containers, execs, logs, events, volumes, on top of the runtime's shims, the
//! image store and the local networks.
//!
//! Not here: HTTP (`skep-api`), swarm's decisions (`skep-manager`, `skep-agent`), and how a
//! process is isolated (`skep-runtime`).
//!
//! All calls are methods of [`Engine`]; requests and streams are in [`types`], everything else
//! that goes in or out is Docker's own REST type from `bollard_stubs`.

pub mod archive;
pub mod config;
pub mod error;
pub mod events;
pub mod executor;
pub mod filters;
pub mod rooted;
pub mod time;
pub mod types;

mod attach;
mod container;
mod convert;
mod create;
mod detach_keys;
mod engine;
mod etc_files;
mod exec;
mod exit;
mod generic_resources;
mod gotemplate;
mod health;
mod host;
mod images;
mod info;
mod init;
mod inspect;
mod links;
mod list;
mod logs;
mod mounts;
mod names;
mod network_config;
mod networks;
mod oci;
mod persist;
mod prune;
mod registry;
mod remove;
mod restart;
mod restore;
mod shm;
mod signal;
mod start;
mod stats;
mod stop;
mod task_files;
#[cfg(test)]
mod testing;
mod top;
mod update;
mod volumes;
mod wait;

pub use config::{EngineConfig, NetworkOptions, OciRuntime, RegistrySettings, ReloadableConfig};
pub use engine::Engine;
pub use error::{EngineError, ErrorKind, Result};
pub use events::EventBus;
pub use filters::Filters;
pub use generic_resources::parse_generic_resources;
pub use names::random_id;
pub use registry::{PullOptions, PushOptions, reference as pull_reference};
pub use skep_image::{AnyReference, Reference};
pub use skep_registry::{Credentials, Platform, ProxyConfig, RegistryError, check_mirror};
pub use time::UnixNanos;
pub use types::*;

/// What clients are told: the Docker release whose API this is, and our own version.
pub const SERVER_VERSION: &str = concat!("29.3.1+skep", env!("CARGO_PKG_VERSION"));
/// The newest REST API version served.
pub const API_VERSION: &str = "1.53";
/// The oldest REST API version served.
pub const MIN_API_VERSION: &str = "1.24";
