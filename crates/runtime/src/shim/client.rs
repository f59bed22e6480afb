//! Connections: those that ask, those that wait for something, those that are attached.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};

use super::process::ProcessKey;
use crate::protocol::{self, MAX_MESSAGE, OUTPUT_HEADER, Reply, Request, STDERR};
use crate::request::AttachRequest;

/// What a connection is there for at the moment.
pub(super) enum Role {
    /// Its request has not arrived completely.
    Asking(Vec<u8>),
    /// For the container's end.
    Exit,
    /// For the end of an exec.
    ExecExit(ProcessKey),
    /// For more kills than it knows of.
    Oom(u64),
    /// For everything to be removed.
    Deleted,
    /// For the result of a creator.
    Creation,
    /// Joined to a process's streams.
    Attached(Attachment),
}

pub(super) struct Attachment {
    pub process: ProcessKey,
    pub wanted: AttachRequest,
    /// Output that its socket did not take.
    pub output: Vec<u8>,
    /// Input that the process did not take.
    pub input: Vec<u8>,
    /// It will send no more.
    pub input_ended: bool,
    /// There will be no more output: close once the backlog is sent.
    pub closing: bool,
}

pub(super) struct Connection {
    /// Never used twice, unlike descriptors.
    pub id: u64,
    pub socket: OwnedFd,
    pub role: Role,
    pub dead: bool,
}

impl Connection {
    pub(super) fn new(id: u64, socket: OwnedFd) -> Self {
        Self {
            id,
            socket,
            role: Role::Asking(Vec::new()),
            dead: false,
        }
    }

    /// Reads what has come of a request; `Some` once it is whole.
    pub(super) fn read_request(&mut self) -> Option<Request> {
        let mut chunk = [0; 4096];
        let length = match recv(self.socket.as_raw_fd(), &mut chunk, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => {
                self.dead = true;
                return None;
            }
            Ok(length) => length,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return None,
            Err(_) => {
                self.dead = true;
                return None;
            }
        };
        let Role::Asking(buffer) = &mut self.role else {
            return None;
        };
        buffer.extend_from_slice(&chunk[..length]);
        let (header, body) = buffer.split_first_chunk::<4>()?;
        let expected = u32::from_be_bytes(*header) as usize;
        if expected > MAX_MESSAGE {
            self.dead = true;
            return None;
        }
        if body.len() < expected {
            return None;
        }
        match serde_json::from_slice(&body[..expected]) {
            Ok(request) => {
                *buffer = Vec::new();
                Some(request)
            }
            Err(error) => {
                let text = format!("the shim does not understand the request: {error}");
                self.reply(&Reply::Failed(protocol::Failure::refused(text)));
                self.dead = true;
                None
            }
        }
    }

    /// Replies are far smaller than a socket's buffer; a peer that does not take one is gone.
    pub(super) fn reply(&mut self, reply: &Reply) {
        let bytes = protocol::encode(reply);
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        if send(self.socket.as_raw_fd(), &bytes, flags) != Ok(bytes.len()) {
            self.dead = true;
        }
    }

    /// Answers and is done with it.
    pub(super) fn finish(&mut self, reply: &Reply) {
        self.reply(reply);
        self.dead = true;
    }

    pub(super) fn attachment(&mut self) -> Option<&mut Attachment> {
        match &mut self.role {
            Role::Attached(attachment) => Some(attachment),
            _ => None,
        }
    }

    /// Sends output, and keeps what does not fit.
    pub(super) fn send_output(&mut self, stream: u8, bytes: &[u8]) {
        let Role::Attached(attachment) = &mut self.role else {
            return;
        };
        let mut header = [0; OUTPUT_HEADER];
        header[0] = stream;
        header[1..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        attachment.output.extend_from_slice(&header);
        attachment.output.extend_from_slice(bytes);
        self.flush_output();
    }

    pub(super) fn flush_output(&mut self) {
        let Role::Attached(attachment) = &mut self.role else {
            return;
        };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        while !attachment.output.is_empty() {
            match send(self.socket.as_raw_fd(), &attachment.output, flags) {
                Ok(sent) => drop(attachment.output.drain(..sent)),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(_) => {
                    self.dead = true;
                    return;
                }
            }
        }
        attachment.output = Vec::new();
        if attachment.closing {
            self.dead = true;
        }
    }

    /// Reads input into `buffer`.
    pub(super) fn read_input(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(
            self.socket.as_raw_fd(),
            buffer,
            MsgFlags::MSG_DONTWAIT,
        )?)
    }
}

impl Attachment {
    pub(super) fn wants(&self, stream: u8) -> bool {
        if stream == STDERR {
            self.wanted.stderr
        } else {
            self.wanted.stdout
        }
    }
}
