//! Docker's OCI spec of a container, to be changed by what a container's configuration says.
//!
//! ```
//! use skep_runtime::spec::ContainerSpec;
//! let spec = ContainerSpec::new("/mnt/rootfs")
//!     .args(["/bin/sh", "-c", "true"])
//!     .env(["PATH=/bin"])
//!     .hostname("web")
//!     .capabilities(&[], &["NET_RAW"])?
//!     .build();
//! # Ok::<(), skep_runtime::spec::SpecError>(())
//! ```

mod capability;
mod container;
mod devices;

pub use capability::{
    DEFAULT_CAPABILITIES, available_capabilities, capability_bit, normalize_capabilities,
    tweak_capabilities,
};
pub use container::{ContainerSpec, Namespace, mount};
pub use devices::{device_at, device_cgroup_rule, host_devices};

pub(crate) use capability::capability_mask;

/// The search path of a container whose image has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's size of `/dev/shm` in bytes.
pub const DEFAULT_SHM_SIZE: i64 = 64 << 20;

/// Texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("unknown capability: {0:?}")]
    UnknownCapability(String),
    #[error(
        "capability not supported by your kernel or not available in the current environment: {0:?}"
    )]
    UnavailableCapability(String),
    #[error("invalid device cgroup rule format: '{0}'")]
    DeviceRule(String),
    #[error("error gathering device information while adding custom device {path:?}: {reason}")]
    Device { path: String, reason: String },
}
