//! The handlers over the engine, one file per kind of object.

pub(crate) mod archive;
pub(crate) mod build;
pub(crate) mod containers;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod lines;
pub(crate) mod networks;
pub(crate) mod registry;
pub(crate) mod streams;
pub(crate) mod system;
pub(crate) mod usage;
pub(crate) mod volumes;
