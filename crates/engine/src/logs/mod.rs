//! Containers' logs: the options of the log drivers, and reading the files of `json-file` and `local`.
//!
//! Writing is the shim's.

mod attributes;
mod entry;
mod files;
mod follow;
pub(crate) mod options;
mod reader;
mod serve;

pub(crate) use entry::Entry;
pub(crate) use reader::{ReadOptions, read};
