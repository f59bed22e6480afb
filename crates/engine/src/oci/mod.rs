//! From a container's record to the OCI spec its shim runs.

mod devices;
mod env;
mod mounts;
pub(crate) mod namespaces;
pub(crate) mod resources;
mod spec;
mod user;

pub(crate) use env::{environment, replace_or_append};
pub(crate) use spec::{SpecInput, build};
pub(crate) use user::{ResolvedUser, resolve};
