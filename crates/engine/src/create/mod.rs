//! Making a container: from a request to a record.

pub(crate) mod merge;
pub(crate) mod ports;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod validate;

mod make;
mod mount_points;
