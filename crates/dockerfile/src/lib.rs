//! Dockerfiles: from text to stages of typed instructions, and variables put in as a shell does it.
//!
//! ```text
//! text ──lines──▶ logical lines ──parse──▶ Instruction ──▶ Dockerfile { meta_args, stages }
//!                 (continuations,          (flags, words,
//!                  here-documents)          JSON forms)
//! ```
//!
//! Pure: nothing here reads a file or runs anything. What an instruction does to an image's
//! configuration is `skep-image`'s, what it does to a file system `skep-build`'s.

mod error;
mod expand;
mod flags;
mod healthcheck;
mod instruction;
mod lines;
mod parse;
mod pattern;
mod ports;
mod stages;
mod words;

pub use error::ParseError;
pub use expand::{Lookup, expand};
pub use instruction::{Command, Copy, Document, Instruction, Run};
pub use lines::Heredoc;
pub use ports::exposed_ports;
pub use stages::{Dockerfile, Stage, Step, parse_changes};

#[cfg(test)]
mod tests;
