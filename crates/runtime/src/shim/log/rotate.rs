//! Rotation: `log` becomes `log.1`, `log.1` becomes `log.2`, …, with `.gz` when compressed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};

use crate::clock;
use crate::shim::sys;

pub(super) struct Rotation {
    pub max_size: Option<u64>,
    /// The current file included.
    pub max_file: u32,
    pub compress: bool,
    /// A child of ours that compresses the last rotated file: it may take its time, and its memory
    /// goes with it.
    pub compressor: Option<i32>,
}

impl Rotation {
    /// Moves the files up. What cannot be moved is left: the current file must go on.
    pub(super) fn rotate(&mut self, path: &Path) {
        self.wait();
        if self.max_file < 2 {
            let _ = std::fs::remove_file(path);
            return;
        }
        let extension = if self.compress { ".gz" } else { "" };
        let _ = std::fs::remove_file(numbered(path, self.max_file - 1, extension));
        for number in (1..self.max_file - 1).rev() {
            let from = numbered(path, number, extension);
            let _ = std::fs::rename(from, numbered(path, number + 1, extension));
        }
        let rotated = numbered(path, 1, "");
        if std::fs::rename(path, &rotated).is_err() {
            // The limit on the disk's use counts for more than the old lines.
            let _ = std::fs::remove_file(path);
        } else if self.compress {
            self.compressor = sys::fork_child(|| {
                let done = compress(&rotated, &numbered(path, 1, ".gz"));
                i32::from(done.is_err())
            })
            .ok();
        }
    }

    /// Until the compression of the file that a rotation would move is over.
    pub(super) fn wait(&mut self) {
        if let Some(pid) = self.compressor.take() {
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
        }
    }
}

fn numbered(path: &Path, number: u32, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}{extension}"));
    PathBuf::from(name)
}

/// The plain file goes only when the compressed one is whole.
fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut unfinished = OsString::from(to);
    unfinished.push(".new");
    let result = write_compressed(from, Path::new(&unfinished))
        .and_then(|()| std::fs::rename(&unfinished, to))
        .and_then(|()| std::fs::remove_file(from));
    if result.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    result
}

fn write_compressed(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = BufReader::new(File::open(from)?);
    // Docker keeps the time of the last entry in the header, so that readers can skip whole files.
    let extra = format!("{{\"lastTime\":\"{}\"}}", clock::now_rfc3339());
    let mut encoder = GzBuilder::new()
        .extra(extra.into_bytes())
        .write(File::create(to)?, Compression::default());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.sync_all()
}
