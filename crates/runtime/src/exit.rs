//! How a container or exec ended, and its record on disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The file in the bundle that survives both shim and daemon.
pub const EXIT_FILE: &str = "exit.json";

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The exit code, or 128 plus the signal's number.
    pub code: i32,
    /// The kernel killed at least one process of the container for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// RFC 3339 with nanoseconds, UTC, as Go prints it.
    pub exited_at: String,
    /// Output that could not be written to the log (full disk), in lines.
    #[serde(default)]
    pub log_lines_dropped: u64,
}

impl ExitStatus {
    /// Reads the record that a shim left in `bundle`; `None` if there is none, or an empty one: that
    /// is what a power cut may leave of a file that was not flushed.
    pub fn read(bundle: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(bundle.join(EXIT_FILE)) {
            Ok(bytes) if bytes.is_empty() => Ok(None),
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the record so that it is whole or absent, whatever happens to shim and daemon; with
    /// `durable`, whatever happens to the machine. A daemon that waits for the end notes it in a record
    /// of its own, and should not have to wait for the disk as well.
    pub(crate) fn write(&self, bundle: &Path, durable: bool) -> io::Result<()> {
        let temporary = bundle.join(".exit.json.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, bundle.join(EXIT_FILE))?;
        if durable {
            File::open(bundle)?.sync_all()?;
        }
        Ok(())
    }
}

/// The code Docker reports for a wait status.
pub(crate) fn code_of(status: nix::sys::wait::WaitStatus) -> Option<i32> {
    use nix::sys::wait::WaitStatus;
    match status {
        WaitStatus::Exited(_, code) => Some(code),
        WaitStatus::Signaled(_, signal, _) => Some(128 + signal as i32),
        _ => None,
    }
}
