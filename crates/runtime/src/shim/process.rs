//! One process that the shim looks after: the container's first, or an exec.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::stdio::Ends;
use super::sys;
use crate::exit::ExitStatus;

/// Identifies a process for as long as the shim lives; pids come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessKey(pub u32);

pub(super) struct Process {
    pub key: ProcessKey,
    /// `None`: the container's own.
    pub exec: Option<String>,
    pub pid: i32,
    pub ends: Ends,
    pub tty: bool,
    /// Input ends when its first client does.
    pub stdin_once: bool,
    pub status: Option<ExitStatus>,
    /// After its end: until when output of those who hold its pipes is still waited for.
    pub drain_until: Option<Instant>,
    /// Ended, drained, and told to everybody.
    pub complete: bool,
}

impl Process {
    pub(super) fn is_container(&self) -> bool {
        self.exec.is_none()
    }

    /// Nothing more will come.
    pub(super) fn is_drained(&self) -> bool {
        self.ends.outputs.is_empty()
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        match (&self.ends.input, self.tty) {
            (Some(terminal), true) => sys::set_window_size(terminal, rows, columns),
            _ => Err(io::Error::other("it has no terminal")),
        }
    }

    /// A terminal has no end of input; closing our end of it would hang it up.
    pub(super) fn close_input(&mut self) {
        if !self.tty {
            self.ends.input = None;
        }
    }

    pub(super) fn input(&self) -> Option<&OwnedFd> {
        self.ends.input.as_ref()
    }

    pub(super) fn output(&self, fd: i32) -> Option<&OwnedFd> {
        self.ends
            .outputs
            .iter()
            .map(|(_, output)| output)
            .find(|output| output.as_raw_fd() == fd)
    }

    pub(super) fn close_output(&mut self, fd: i32) {
        self.ends
            .outputs
            .retain(|(_, output)| output.as_raw_fd() != fd);
    }
}
