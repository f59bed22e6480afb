//! Docker's image references: `busybox`, `me/echo:1.0`, `registry:5000/me/echo@sha256:…`.
//!
//! A [`Reference`] is always normalised (`busybox` is `docker.io/library/busybox`); what a user is
//! shown is its familiar form. [`AnyReference`] additionally takes a full image id, as the commands
//! that accept "an image" do. The grammar and the error texts are those of the `distribution`
//! project, which every Docker client knows.
//!
//! Not here: id *prefixes* (only a store knows which ids exist), and talking to registries.

mod digest;
mod error;
mod grammar;
mod reference;

pub use digest::{Digest, DigestError};
pub use error::ReferenceError;
pub use reference::{AnyReference, Reference};
