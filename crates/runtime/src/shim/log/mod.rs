//! Docker's `json-file` log, written by the shim.

mod encode;
mod rotate;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::clock;
use crate::protocol::{STDERR, STDOUT};
use crate::request::LogTarget;

use rotate::Rotation;

/// Longer lines are written in parts, without the newline in all but the last: dockerd's buffer.
const LINE_LIMIT: usize = 16 * 1024;

/// The container's log. Nothing that goes wrong with it may harm the container: lines that cannot be
/// written are counted.
pub(super) struct ContainerLog {
    sink: Option<Sink>,
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

struct Sink {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    attributes: String,
    rotation: Rotation,
}

impl ContainerLog {
    pub(super) fn open(target: &LogTarget) -> io::Result<Self> {
        let sink = match target {
            LogTarget::Discard => None,
            LogTarget::JsonFile {
                path,
                max_size,
                max_file,
                compress,
                attrs,
            } => {
                let file = open(path)?;
                let size = file.metadata()?.len();
                Some(Sink {
                    path: path.clone(),
                    file: Some(file),
                    size,
                    attributes: encode::attributes(attrs),
                    rotation: Rotation {
                        max_size: *max_size,
                        max_file: (*max_file).max(1),
                        compress: *compress,
                        compressor: None,
                    },
                })
            }
        };
        Ok(Self {
            sink,
            stdout: Line::default(),
            stderr: Line::default(),
            batch: Vec::new(),
            entries: 0,
            dropped: 0,
        })
    }

    /// Takes what was read from one stream.
    pub(super) fn write(&mut self, stream: u8, mut bytes: &[u8]) {
        if self.sink.is_none() {
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
        if self.sink.is_some() && !self.line(stream).bytes.is_empty() {
            self.end_entry(stream);
            self.flush();
        }
    }

    fn line(&mut self, stream: u8) -> &mut Line {
        if stream == STDERR {
            &mut self.stderr
        } else {
            &mut self.stdout
        }
    }

    fn end_entry(&mut self, stream: u8) {
        let Some(sink) = &self.sink else { return };
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
            &sink.attributes,
            &time[..length],
        );
        self.entries += 1;
        line.bytes.clear();
        if sink.is_due(self.batch.len()) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        if !self.batch.is_empty() && sink.write(&self.batch).is_err() {
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
        if let Some(sink) = &mut self.sink {
            sink.rotation.wait();
        }
    }

    /// A child that ended may be the compressor.
    pub(super) fn reaped(&mut self, pid: i32) {
        if let Some(sink) = &mut self.sink
            && sink.rotation.compressor == Some(pid)
        {
            sink.rotation.compressor = None;
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
