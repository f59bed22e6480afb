//! Containers' logs: the options of the log drivers, and reading the json-file driver's files.
//!
//! Writing is the shim's.

mod entry;
mod files;
mod follow;
pub(crate) mod options;
mod reader;
mod serve;

pub(crate) use entry::Entry;
pub(crate) use reader::{ReadOptions, read};
