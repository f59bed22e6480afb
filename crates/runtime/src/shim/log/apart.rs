//! `mode=non-blocking`: a child writes the files, so that a disk that stands still holds nobody up.
//!
//! The pipe to it is the buffer. Entries that do not fit are dropped and counted, the newest first,
//! as dockerd's ring does.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read, write};

use super::Sink;
use crate::shim::{stdio, sys};

const READ_SIZE: usize = 64 * 1024;

/// Our side of the child that writes.
pub(super) struct Apart {
    pipe: Option<OwnedFd>,
    /// The rest of an entry of which the pipe has taken a part already.
    rest: Vec<u8>,
    child: Option<i32>,
}

impl Apart {
    /// Starts the child, with a buffer of about so many bytes.
    pub(super) fn start(sink: Sink, buffer: u64) -> io::Result<Self> {
        let (output, input) = pipe2(OFlag::O_CLOEXEC)?;
        set_size(&input, buffer);
        stdio::set_nonblocking(&input)?;
        let held = [output.as_raw_fd(), sink.fd()];
        let child = sys::fork_child(move || {
            // Whoever waits for our connections to close must not wait for the child.
            sys::close_all_but(&held);
            let _ = rustix::thread::set_name(c"skep-log");
            copy(&output, sink);
            0
        })?;
        Ok(Self {
            pipe: Some(input),
            rest: Vec::new(),
            child: Some(child),
        })
    }

    /// Hands whole entries over; false if there was no room for them.
    pub(super) fn write(&mut self, entries: &[u8]) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        if !self.rest.is_empty() {
            match push(pipe, &self.rest) {
                Ok(taken) => drop(self.rest.drain(..taken)),
                Err(_) => return false,
            }
            if !self.rest.is_empty() {
                return false;
            }
        }
        match push(pipe, entries) {
            Ok(0) | Err(_) => false,
            Ok(taken) => {
                // The entry that was cut has to go on, or what follows would be unreadable; those
                // behind it may stay as well, since they are in memory already.
                self.rest = entries[taken..].to_vec();
                true
            }
        }
    }

    /// Waits until everything that was taken is in the files.
    pub(super) fn close(&mut self) {
        if let Some(pipe) = self.pipe.take()
            && !self.rest.is_empty()
        {
            let flags = OFlag::from_bits_retain(fcntl(&pipe, FcntlArg::F_GETFL).unwrap_or(0));
            let _ = fcntl(&pipe, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK));
            let _ = push(&pipe, &self.rest);
        }
        if let Some(pid) = self.child.take() {
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
        }
    }

    pub(super) fn reaped(&mut self, pid: i32) {
        if self.child == Some(pid) {
            self.child = None;
            self.pipe = None;
        }
    }
}

/// As much as the kernel grants: it has a limit for those who may not pass it.
fn set_size(pipe: &OwnedFd, bytes: u64) {
    let mut size = i32::try_from(bytes).unwrap_or(i32::MAX / 2).max(4096);
    while size >= 4096 && fcntl(pipe, FcntlArg::F_SETPIPE_SZ(size)).is_err() {
        size /= 2;
    }
}

/// Writes until the pipe is full.
fn push(pipe: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match write(pipe, &bytes[taken..]) {
            Ok(length) => taken += length,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(taken)
}

/// The child's work: whole entries from the pipe into the files, until nobody writes any more.
fn copy(pipe: &OwnedFd, mut sink: Sink) {
    let mut pending = Vec::new();
    let mut chunk = vec![0; READ_SIZE];
    loop {
        match read(pipe, &mut chunk) {
            Ok(0) => break,
            Ok(length) => pending.extend_from_slice(&chunk[..length]),
            Err(Errno::EINTR) => {}
            Err(_) => break,
        }
        // Newlines only end entries: inside they are escaped.
        let mut done = 0;
        let mut from = 0;
        for (at, _) in pending
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
        {
            done = at + 1;
            if sink.is_due(done - from) {
                let _ = sink.write(&pending[from..done]);
                from = done;
            }
        }
        if from < done {
            let _ = sink.write(&pending[from..done]);
        }
        pending.drain(..done);
    }
    sink.rotation.wait();
}
