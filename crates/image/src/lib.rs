//! Images: a content store, layers unpacked once and shared, and the root file systems of
//! containers made of them.
//!
//! ```text
//! data_root/image/meta.redb        images (with their configuration), references, layers
//!          /image/blobs/sha256/…   layer tars, for `save`, `push` and verification
//!          /image/tmp/…            loads in progress; emptied at start
//!          /overlay2/<dir>/diff    one per layer, a lower directory of overlayfs
//!          /overlay2/l/<short>     short names, so that 100+ layers fit in one mount call
//!          /overlay2/init-<dir>/   mount points Docker expects, made once per image
//!          /overlay2/c-<container> upper and work directories, `merged` is the root
//! ```
//!
//! Everything is synchronous: it is disk work. Async callers use `spawn_blocking`.
//! See `docs/design/image.md` for the reasons.
//!
//! Not here: registries (pull and push), building, and events (methods return what happened, the
//! engine publishes it).

mod blobs;
mod build_cache;
mod chain;
mod changes;
mod commit;
mod compression;
mod config;
mod db;
mod error;
mod glob;
mod image;
mod import;
mod init;
mod inspect;
mod instructions;
mod layers;
mod list;
mod load;
mod overlay;
mod pipe;
mod platform;
mod prune;
mod pull;
mod push;
mod register;
mod remove;
mod rootfs;
mod save;
mod spool;
mod state;
mod store;
mod tar_reader;
mod tree;
mod unpack;

pub use commit::CommitOptions;
pub use config::{History, ImageConfig, RootFs, RunConfig};
pub use db::{RemoteBlob, StoredManifest};
pub use error::{ErrorKind, ImageError};
pub use glob::path_match;
pub use image::{Image, ImageId};
pub use import::ImportOptions;
pub use instructions::apply_changes;
pub use list::ListOptions;
pub use load::{Loaded, LoadedReference, Progress, load_messages};
pub use prune::PruneOptions;
pub use pull::{Feed, PulledImage, PulledLayer};
pub use push::{LayerBlob, Push, PushLayer};
pub use remove::{ImageEvent, ImageUser, RemoveOptions, Removed};
pub use rootfs::Rootfs;
pub use save::Save;
pub use skep_reference::{AnyReference, Digest, Reference, ReferenceError};
pub use store::{ImageStore, Limits, Tagged};

#[cfg(test)]
mod tests;
