//! Containers: one small shim process for each, and the daemon's side of talking to it.
//!
//! ```text
//!  daemon (tokio)                          shim (one thread, poll loop, own session)
//!  Runtime::create ──socketpair───────────▶ forks a creator ── libcontainer / runc ──▶ init
//!  Shim::{start,kill,attach,exec,wait,…} ──▶ shim.sock          (init is the shim's own child)
//!  Runtime::reconnect, after a restart ───▶   │ stdio pipes or pty master
//!                                             ├─▶ json-file log
//!                                             ├─▶ attached clients
//!                                             └─▶ exit.json in the bundle
//! ```
//!
//! A container lives and dies with its shim, never with the daemon: log and exit status reach the
//! disk without it. [`spec`] makes Docker's OCI specs, [`seccomp`] its filters.
//!
//! Deliberately not here: names, restart policies, Docker's HostConfig and its JSON, networks (the
//! spec names a namespace that exists), mounting of root file systems, reading of logs.

mod attached;
pub mod cgroup;
mod clock;
mod connection;
mod error;
mod exit;
mod handle;
mod oci;
mod prepare;
mod prepared;
mod protocol;
mod request;
mod runtime;
pub mod seccomp;
pub mod shim;
pub mod spec;

pub use attached::{AttachInput, AttachOutput, Attached, StdStream};
pub use error::RuntimeError;
pub use exit::{EXIT_FILE, ExitStatus};
pub use handle::{Exec, ExecControl, Shim};
pub use oci_spec;
pub use prepared::PreparedShim;
pub use request::{
    AttachRequest, CreateRequest, ExecRequest, LogTarget, RuntimeConfig, RuntimeKind, StdioConfig,
};
pub use runtime::{Reconnected, Runtime};
pub use seccomp::SeccompProfile;
