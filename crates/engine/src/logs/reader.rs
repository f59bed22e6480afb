//! Reading a log: what is there, and what comes.
//!
//! A blocking thread reads; it never waits on the disk for something that will not come. When it
//! has read all there is, it sleeps until the directory changes or the container stops.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::entry::Entry;
use super::files::{LineReader, LogFile, count_lines, identity, list, open, position, tail_offset};
use super::follow::Changes;
use crate::time::UnixNanos;

/// Which entries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadOptions {
    pub(crate) since: Option<UnixNanos>,
    pub(crate) until: Option<UnixNanos>,
    pub(crate) tail: Option<usize>,
}

/// Reads a log in the background. With `running`, goes on with what is written until that says
/// the container has stopped and everything was read.
pub(crate) fn read(
    current: PathBuf,
    options: ReadOptions,
    running: Option<Box<dyn Fn() -> bool + Send>>,
    wake: Option<std::sync::Arc<tokio::sync::Notify>>,
) -> io::Result<mpsc::Receiver<io::Result<Entry>>> {
    let changes = match running {
        Some(running) => Some(Changes::watch(&current, running, wake)?),
        None => None,
    };
    let (sender, receiver) = mpsc::channel(256);
    tokio::task::spawn_blocking(move || {
        let mut reader = Reader {
            current,
            options,
            sender,
            last: UnixNanos(i64::MIN),
        };
        if let Err(error) = reader.run(changes) {
            let _ = reader.sender.blocking_send(Err(error));
        }
    });
    Ok(receiver)
}

struct Reader {
    current: PathBuf,
    options: ReadOptions,
    sender: mpsc::Sender<io::Result<Entry>>,
    /// The newest entry's time, to find the place again if files were lost to rotation.
    last: UnixNanos,
}

/// The current file, if there is one, and how many of its last lines are wanted.
type Current = (Option<File>, Option<usize>);

/// Nobody listens, or everything up to `until` was sent.
struct Done;

impl Reader {
    fn run(&mut self, changes: Option<Changes>) -> io::Result<()> {
        let Ok((file, tail_lines)) = self.history()? else {
            return Ok(());
        };
        let Some(mut file) = file else {
            // No file yet: a container that never ran.
            return match changes {
                Some(changes) => self.wait_for_file(changes),
                None => Ok(()),
            };
        };
        if let Some(lines) = tail_lines {
            let (_, offset) = tail_offset(&mut file, lines)?;
            file.seek(SeekFrom::Start(offset))?;
        }
        self.follow(file, changes)
    }

    fn wait_for_file(&mut self, mut changes: Changes) -> io::Result<()> {
        loop {
            let more = changes.running();
            match File::open(&self.current) {
                Ok(file) => return self.follow(file, Some(changes)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(_) if !more || self.sender.is_closed() => return Ok(()),
                Err(_) => changes.wait(&self.sender)?,
            }
        }
    }

    /// Sends the rotated files and opens the current one, with how many of its last lines are
    /// wanted (`None`: all). The current file is opened first: if it is rotated away meanwhile,
    /// its identity still leads to its successors.
    fn history(&mut self) -> io::Result<Result<Current, Done>> {
        let current = match File::open(&self.current) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok((None, None))),
            Err(error) => return Err(error),
        };
        let own = identity(&current)?;
        let mut older = list(&self.current);
        let here = position(&older, own).unwrap_or(older.len().saturating_sub(1));
        older.truncate(here);
        let Some(tail) = self.options.tail else {
            return Ok(match self.send_files(&older, 0)? {
                Ok(()) => Ok((Some(current), None)),
                Err(done) => Err(done),
            });
        };
        let (in_current, _) = tail_offset(&mut current.try_clone()?, tail)?;
        let mut missing = tail - in_current;
        let mut first = older.len();
        let mut skip = 0;
        while missing > 0 && first > 0 {
            first -= 1;
            let lines = count_lines(&older[first], usize::MAX)?;
            skip = lines.saturating_sub(missing);
            missing = missing.saturating_sub(lines);
        }
        Ok(match self.send_files(&older[first..], skip)? {
            Ok(()) => Ok((Some(current), Some(in_current))),
            Err(done) => Err(done),
        })
    }

    fn send_files(&mut self, files: &[LogFile], skip: usize) -> io::Result<Result<(), Done>> {
        let mut skip = skip;
        for file in files {
            let reader = match open(file) {
                Ok(reader) => reader,
                // Rotated away since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut lines = LineReader::new(reader);
            while let Some(entry) = lines.next()? {
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                if self.send(entry).is_err() {
                    return Ok(Err(Done));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Sends the rest of a file, then of its successors, then waits for more.
    fn follow(&mut self, file: File, mut changes: Option<Changes>) -> io::Result<()> {
        let mut own = identity(&file)?;
        let mut lines = LineReader::new(file);
        loop {
            // Asked before reading to the end: what was written before the stop is then read.
            let more = changes.as_ref().is_some_and(Changes::running);
            if self.drain(&mut lines)?.is_err() {
                return Ok(());
            }
            let files = list(&self.current);
            match position(&files, own) {
                // Still the current one.
                Some(here) if here + 1 == files.len() => {}
                found => {
                    // A writer may have added to it after our last read and before the rename.
                    if self.drain(&mut lines)?.is_err() {
                        return Ok(());
                    }
                    let next = if let Some(here) = found {
                        File::open(&files[here + 1].path)
                    } else {
                        // Lost to compression or deletion: everything newer than what was sent.
                        let older = &files[..files.len() - 1];
                        if self.send_newer(older)?.is_err() {
                            return Ok(());
                        }
                        File::open(&self.current)
                    };
                    match next {
                        Ok(file) => {
                            own = identity(&file)?;
                            lines = LineReader::new(file);
                            continue;
                        }
                        // Between the rename and the creation of the new one.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            let Some(changes) = changes.as_mut().filter(|_| more) else {
                return Ok(());
            };
            if self.sender.is_closed()
                || self
                    .options
                    .until
                    .is_some_and(|until| UnixNanos::now() > until)
            {
                return Ok(());
            }
            changes.wait(&self.sender)?;
        }
    }

    fn send_newer(&mut self, files: &[LogFile]) -> io::Result<Result<(), Done>> {
        let last = self.last;
        for file in files {
            let Ok(reader) = open(file) else { continue };
            let mut lines = LineReader::new(reader);
            while let Some(entry) = lines.next()? {
                if entry.time > last && self.send(entry).is_err() {
                    return Ok(Err(Done));
                }
            }
        }
        Ok(Ok(()))
    }

    fn drain(&mut self, lines: &mut LineReader<File>) -> io::Result<Result<(), Done>> {
        while let Some(entry) = lines.next()? {
            if self.send(entry).is_err() {
                return Ok(Err(Done));
            }
        }
        Ok(Ok(()))
    }

    fn send(&mut self, entry: Entry) -> Result<(), Done> {
        self.last = self.last.max(entry.time);
        if self.options.since.is_some_and(|since| entry.time < since) {
            return Ok(());
        }
        if self.options.until.is_some_and(|until| entry.time > until) {
            return Err(Done);
        }
        self.sender.blocking_send(Ok(entry)).map_err(|_| Done)
    }
}

/// The directory whose changes concern a log.
pub(super) fn directory(current: &Path) -> &Path {
    current.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests;
