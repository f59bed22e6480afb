//! Docker's `json-file` log, written by the shim.

mod apart;
mod encode;
mod rotate;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::clock;
use crate::protocol::{STDERR, STDOUT};
use crate::request::LogTarget;

use apart::Apart;
use rotate::Rotation;

/// Longer lines are written in parts, without the newline in all but the last: dockerd's buffer.
const LINE_LIMIT: usize = 16 * 1024;

/// The container's log. Nothing that goes wrong with it may harm the container: lines that cannot be
/// written are counted.
pub(super) struct ContainerLog {
    target: Target,
    /// Encoded once: `"attrs":{…},` or nothing.
    attributes: String,
    stdout: Line,
    stderr: Line,
    /// Encoded entries of one read, written with one call.
    batch: Vec<u8>,
    entries: u64,
    pub dropped: u64,
}

/// The beginning of a line whose end has not come yet.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
}

/// Who writes the entries.
enum Target {
    Nobody,
    Here(Sink),
    Child(Apart),
}

struct Sink {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    rotation: Rotation,
}

impl ContainerLog {
    pub(super) fn open(target: &LogTarget) -> io::Result<Self> {
        let (target, attributes) = match target {
            LogTarget::Discard => (Target::Nobody, String::new()),
            LogTarget::JsonFile {
                path,
                max_size,
                max_file,
                compress,
                attrs,
                buffer,
            } => {
                let file = open(path)?;
                let size = file.metadata()?.len();
                let sink = Sink {
                    path: path.clone(),
                    file: Some(file),
                    size,
                    rotation: Rotation {
                        max_size: *max_size,
                        max_file: (*max_file).max(1),
                        compress: *compress,
                        compressor: None,
                    },
                };
                let target = match buffer {
                    Some(bytes) => Target::Child(Apart::start(sink, *bytes)?),
                    None => Target::Here(sink),
                };
                (target, encode::attributes(attrs))
            }
        };
        Ok(Self {
            target,
            attributes,
            stdout: Line::default(),
            stderr: Line::default(),
            batch: Vec::new(),
            entries: 0,
            dropped: 0,
        })
    }

    /// Takes what was read from one stream.
    pub(super) fn write(&mut self, stream: u8, mut bytes: &[u8]) {
        if self.is_discarded() {
            return;
        }
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            self.extend(stream, line);
            self.end_entry(stream);
            bytes = rest;
        }
        self.extend(stream, bytes);
        self.flush();
    }

    /// Appends to the stream's line; whatever fills it up goes out as a part.
    fn extend(&mut self, stream: u8, mut bytes: &[u8]) {
        loop {
            let line = self.line(stream);
            // A full buffer goes out before anybody looks whether a newline follows, as in dockerd.
            let room = LINE_LIMIT - line.bytes.len();
            let content = bytes.strip_suffix(b"\n").unwrap_or(bytes).len();
            if content < room {
                line.bytes.extend_from_slice(bytes);
                return;
            }
            let (part, rest) = bytes.split_at(room);
            line.bytes.extend_from_slice(part);
            self.end_entry(stream);
            bytes = rest;
        }
    }

    /// What has no newline when a stream ends is written without one.
    pub(super) fn end_stream(&mut self, stream: u8) {
        if !self.is_discarded() && !self.line(stream).bytes.is_empty() {
            self.end_entry(stream);
            self.flush();
        }
    }

    fn is_discarded(&self) -> bool {
        matches!(self.target, Target::Nobody)
    }

    fn line(&mut self, stream: u8) -> &mut Line {
        if stream == STDERR {
            &mut self.stderr
        } else {
            &mut self.stdout
        }
    }

    fn end_entry(&mut self, stream: u8) {
        let name = if stream == STDOUT { "stdout" } else { "stderr" };
        let mut time = [0; clock::MAX_LENGTH];
        let length = clock::write_now(&mut time);
        let line = if stream == STDERR {
            &mut self.stderr
        } else {
            &mut self.stdout
        };
        encode::entry(
            &mut self.batch,
            &line.bytes,
            name,
            &self.attributes,
            &time[..length],
        );
        self.entries += 1;
        line.bytes.clear();
        if let Target::Here(sink) = &self.target
            && sink.is_due(self.batch.len())
        {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let written = match &mut self.target {
            _ if self.batch.is_empty() => true,
            Target::Nobody => true,
            Target::Here(sink) => sink.write(&self.batch).is_ok(),
            Target::Child(child) => child.write(&self.batch),
        };
        if !written {
            self.dropped += self.entries;
        }
        self.entries = 0;
        self.batch.clear();
    }

    /// Gives buffers back; called when nothing has been written for a while.
    pub(super) fn shrink(&mut self) {
        self.batch = Vec::new();
        for line in [&mut self.stdout, &mut self.stderr] {
            line.bytes.shrink_to_fit();
        }
    }

    /// Ends both streams and waits for a compression that is still going on.
    pub(super) fn close(&mut self) {
        self.end_stream(STDOUT);
        self.end_stream(STDERR);
        match &mut self.target {
            Target::Nobody => {}
            Target::Here(sink) => sink.rotation.wait(),
            Target::Child(child) => child.close(),
        }
    }

    /// A child that ended may be the compressor, or the writer.
    pub(super) fn reaped(&mut self, pid: i32) {
        match &mut self.target {
            Target::Here(sink) if sink.rotation.compressor == Some(pid) => {
                sink.rotation.compressor = None;
            }
            Target::Child(child) => child.reaped(pid),
            _ => {}
        }
    }
}

impl Sink {
    /// Whether the entries gathered so far fill the file, so that the next one belongs into a new one.
    fn is_due(&self, gathered: usize) -> bool {
        self.rotation
            .max_size
            .is_some_and(|limit| self.size + gathered as u64 >= limit)
    }

    fn fd(&self) -> i32 {
        self.file.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_due(0) && self.size > 0 {
            self.file = None;
            self.rotation.rotate(&self.path);
            self.size = 0;
        }
        if self.file.is_none() {
            let fresh = open(&self.path)?;
            self.size = fresh.metadata()?.len();
            self.file = Some(fresh);
        }
        let file = self.file.as_mut().expect("it was opened just now");
        match file.write_all(bytes) {
            Ok(()) => {
                self.size += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half an entry would make all that follow unreadable.
                file.set_len(self.size)?;
                file.seek(SeekFrom::End(0))?;
                Err(error)
            }
        }
    }
}

fn open(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}
