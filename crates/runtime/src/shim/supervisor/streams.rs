//! Moving bytes between a process, its log and its clients.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::unistd::{read, write};

use super::{READ_SIZE, Supervisor};
use crate::shim::client::Role;
use crate::shim::process::{Process, ProcessKey};

impl Supervisor {
    /// Whether a client has not taken yet what it was sent of this stream. After the process's end
    /// nobody is waited for: what is left fits into the pipe.
    pub(super) fn is_held_up(&self, process: &Process, stream: u8) -> bool {
        process.status.is_none()
            && self.connections.iter().any(|connection| {
                matches!(&connection.role, Role::Attached(attachment)
                    if attachment.process == process.key
                        && attachment.wants(stream)
                        && !attachment.output.is_empty()
                        && !connection.dead)
            })
    }

    pub(super) fn read_output(&mut self, key: ProcessKey, fd: i32, stream: u8) {
        let Some(index) = self.index_of(key) else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_SIZE, 0);
        let process = &self.processes[index];
        let Some(output) = process.output(fd) else {
            return;
        };
        match read(output, &mut buffer) {
            Ok(0) => self.end_output(index, fd, stream),
            Ok(length) => self.deliver(index, stream, &buffer[..length]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // A terminal answers EIO when nobody holds its other side any more.
            Err(_) => self.end_output(index, fd, stream),
        }
        self.buffer = buffer;
        self.busy = true;
    }

    fn deliver(&mut self, index: usize, stream: u8, bytes: &[u8]) {
        let process = &self.processes[index];
        if process.is_container()
            && let Some(log) = &mut self.log
        {
            log.write(stream, bytes);
        }
        let key = process.key;
        for connection in &mut self.connections {
            let interested = connection
                .attachment()
                .is_some_and(|attachment| attachment.process == key && attachment.wants(stream));
            if interested {
                connection.send_output(stream, bytes);
            }
        }
    }

    pub(super) fn end_output(&mut self, index: usize, fd: i32, stream: u8) {
        let process = &mut self.processes[index];
        process.close_output(fd);
        if process.is_container()
            && let Some(log) = &mut self.log
        {
            log.end_stream(stream);
        }
    }

    pub(super) fn has_input_for(&self, key: ProcessKey) -> bool {
        self.connections.iter().any(|connection| {
            matches!(&connection.role, Role::Attached(attachment)
                if attachment.process == key && !attachment.input.is_empty())
        })
    }

    /// The process takes input again.
    pub(super) fn feed_input(&mut self, key: ProcessKey) {
        for at in 0..self.connections.len() {
            let waiting = self.connections[at]
                .attachment()
                .filter(|attachment| attachment.process == key)
                .map(|attachment| std::mem::take(&mut attachment.input));
            if let Some(bytes) = waiting.filter(|bytes| !bytes.is_empty()) {
                self.write_input(at, key, &bytes);
            }
        }
    }

    /// An attached client can be read from or written to, or has gone.
    pub(super) fn serve_attached(&mut self, at: usize, events: PollFlags) {
        if events.contains(PollFlags::POLLOUT) {
            self.connections[at].flush_output();
        }
        if events.contains(PollFlags::POLLIN) {
            self.read_input(at);
        } else if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
            self.end_input(at);
            self.connections[at].dead = true;
        }
    }

    fn read_input(&mut self, at: usize) {
        let mut chunk = [0; 8192];
        match self.connections[at].read_input(&mut chunk) {
            Ok(0) => self.end_input(at),
            Ok(length) => {
                let Some(attachment) = self.connections[at].attachment() else {
                    return;
                };
                let (key, wanted) = (attachment.process, attachment.wanted.stdin);
                if wanted {
                    self.write_input(at, key, &chunk[..length]);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => {
                self.end_input(at);
                self.connections[at].dead = true;
            }
        }
    }

    fn write_input(&mut self, at: usize, key: ProcessKey, bytes: &[u8]) {
        let mut rest = bytes;
        let Some(process) = self.process_mut(key) else {
            return;
        };
        while !rest.is_empty() {
            let Some(input) = process.input() else { return };
            match write(input, rest) {
                Ok(length) => rest = &rest[length..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => {
                    // The process reads no more; what comes is thrown away.
                    process.close_input();
                    return;
                }
            }
        }
        if let Some(attachment) = self.connections[at].attachment() {
            attachment.input = rest.to_vec();
            if rest.is_empty() && attachment.input_ended {
                self.input_is_over(at);
            }
        }
    }

    /// The client sends no more. What it has sent goes first.
    pub(super) fn end_input(&mut self, at: usize) {
        let Some(attachment) = self.connections[at].attachment() else {
            return;
        };
        if std::mem::replace(&mut attachment.input_ended, true) {
            return;
        }
        if attachment.input.is_empty() {
            self.input_is_over(at);
        }
    }

    fn input_is_over(&mut self, at: usize) {
        let Some(attachment) = self.connections[at].attachment() else {
            return;
        };
        let (key, wanted) = (attachment.process, attachment.wanted.stdin);
        if wanted
            && let Some(process) = self.process_mut(key)
            && process.stdin_once
        {
            process.close_input();
        }
    }

    /// Every output that is still open is given up.
    pub(super) fn abandon_outputs(&mut self, index: usize) {
        let open: Vec<(u8, i32)> = self.processes[index]
            .ends
            .outputs
            .iter()
            .map(|(stream, output)| (*stream, output.as_raw_fd()))
            .collect();
        for (stream, fd) in open {
            self.end_output(index, fd, stream);
        }
    }
}
