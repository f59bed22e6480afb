//! `docker build` without BuildKit: the classic builder's API, over the engine.
//!
//! ```text
//! prepare: context tar ──▶ directory ──▶ Dockerfile (skep-dockerfile)
//! run:     for each stage, for each step:
//!            seen before? (ImageStore::built_from, or --cache-from) ──▶ that image
//!            ENV, CMD, …  ──▶ commit of the configuration
//!            COPY, ADD    ──▶ files into a root file system, commit
//!            RUN          ──▶ a container of the engine, commit
//! ```
//!
//! Each step leaves an image whose record is its cache entry, as dockerd does it, so that `docker
//! history` and `--cache-from` work with what either has built. See `docs/design/build.md`.
//!
//! Not here: BuildKit's own (`RUN --mount`, sessions, exporters), for which buildx starts a BuildKit
//! of its own in a container.

mod args;
mod cache;
mod comment;
mod context;
mod copy;
mod error;
mod evaluate;
mod ignore;
mod message;
mod options;
mod owner;
mod run;
mod sources;
mod sum;

pub use context::{Prepared, prepare};
pub use error::BuildError;
pub use message::Message;
pub use options::BuildOptions;
