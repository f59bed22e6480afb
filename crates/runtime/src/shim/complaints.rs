//! What libcontainer logs when it fails.
//!
//! Its errors cross two process boundaries as texts without their causes ("failed to prepare rootfs");
//! the causes are in its log events only. This collects them in a file that all the processes share.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};

use nix::sys::memfd::{MFdFlags, memfd_create};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// From now on every error event becomes a line of the returned file. Once per process.
pub(super) fn collect() -> io::Result<File> {
    let file = File::from(memfd_create(c"complaints", MFdFlags::MFD_CLOEXEC)?);
    let collector = Collector {
        file: file.try_clone()?,
    };
    let _ = tracing::subscriber::set_global_default(collector);
    Ok(file)
}

/// The number behind the first errno's name in a line, such as `ENOENT`.
pub(super) fn errno(text: &str) -> Option<i32> {
    let name: String = text
        .split(|character: char| !character.is_ascii_uppercase() && !character.is_ascii_digit())
        .find(|word| word.len() > 2 && word.starts_with('E'))?
        .to_owned();
    (1..134).find(|&number| format!("{:?}", nix::errno::Errno::from_raw(number)) == name)
}

struct Collector {
    file: File,
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!("{}{}\n", line.message, line.fields);
        let _ = (&self.file).write_all(text.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let written = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
}
