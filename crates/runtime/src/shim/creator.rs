//! A process that makes a container or an exec and is gone again.
//!
//! libcontainer parses specs, changes the working directory, makes its caller non-dumpable and sets its
//! OOM score. A fork of the shim bears all that, and its memory goes with it; the container's process
//! becomes the shim's child nevertheless (`CLONE_PARENT`).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use super::stdio::ChildEnds;
use super::{builtin, oci, sys};
use crate::protocol::{CreateCall, ExecCall, Security};
use crate::request::RuntimeKind;

/// What is to be made.
pub(super) enum Task<'a> {
    Container(&'a CreateCall),
    Exec {
        call: &'a ExecCall,
        container: Context<'a>,
    },
}

/// What an exec must know of its container.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub id: &'a str,
    pub runtime: &'a RuntimeKind,
}

impl Task<'_> {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Container(call) => &call.id,
            Self::Exec { container, .. } => container.id,
        }
    }

    pub(super) fn security(&self) -> &Security {
        match self {
            Self::Container(call) => &call.security,
            Self::Exec { call, .. } => &call.security,
        }
    }

    pub(super) fn tty(&self) -> bool {
        match self {
            Self::Container(call) => call.stdio.tty,
            Self::Exec { call, .. } => call.tty,
        }
    }

    fn runtime(&self) -> &RuntimeKind {
        match self {
            Self::Container(call) => &call.runtime,
            Self::Exec { container, .. } => container.runtime,
        }
    }

    fn is_exec(&self) -> bool {
        matches!(self, Self::Exec { .. })
    }
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Made { pid: i32 },
    Failed { code: i32, message: String },
}

/// Starts the creator. The result comes on the returned socket.
pub(super) fn start(
    directory: &Path,
    task: &Task<'_>,
    stdio: Option<ChildEnds>,
) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    sys::fork_child(|| {
        let keep: Vec<RawFd> = std::iter::once(theirs.as_raw_fd())
            .chain(stdio.iter().flat_map(|ends| {
                [
                    ends.stdin.as_raw_fd(),
                    ends.stdout.as_raw_fd(),
                    ends.stderr.as_raw_fd(),
                ]
            }))
            .collect();
        sys::close_all_but(&keep);
        sys::default_signals();
        let (outcome, terminal) = make(directory, task, stdio);
        i32::from(send(&theirs, &outcome, terminal.as_ref()).is_err())
    })?;
    Ok(ours)
}

fn make(directory: &Path, task: &Task<'_>, stdio: Option<ChildEnds>) -> (Outcome, Option<OwnedFd>) {
    let made = match task.runtime() {
        RuntimeKind::Builtin => builtin::make(directory, task, stdio),
        RuntimeKind::Oci { path, args } => oci::make(directory, task, path, args, stdio),
    };
    match made {
        Ok((pid, terminal)) => (Outcome::Made { pid }, terminal),
        Err(text) => {
            let code = exit_code(&text);
            (
                Outcome::Failed {
                    code,
                    message: full_text(task.is_exec(), &text),
                },
                None,
            )
        }
    }
}

/// Docker's exit code for a process that could not be started, from the text as Docker does it.
fn exit_code(text: &str) -> i32 {
    let has = |part: &str| text.contains(part);
    if has("executable file not found")
        || has("no such file or directory")
        || has("not a directory")
    {
        127
    } else if has("permission denied") || has("is a directory") {
        126
    } else {
        128
    }
}

fn full_text(exec: bool, text: &str) -> String {
    if exec {
        format!(
            "OCI runtime exec failed: exec failed: unable to start container process: {text}: unknown"
        )
    } else {
        format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: {text}: unknown"
        )
    }
}

fn send(socket: &OwnedFd, outcome: &Outcome, terminal: Option<&OwnedFd>) -> io::Result<()> {
    let body = serde_json::to_vec(outcome)?;
    let fds: Vec<RawFd> = terminal.iter().map(|fd| fd.as_raw_fd()).collect();
    let control = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() {
        &control[..0]
    } else {
        &control[..]
    };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&body)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Takes the result; `None` if the creator died without one.
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<(Outcome, Option<OwnedFd>)>> {
    let mut body = vec![0; 64 * 1024];
    let (length, terminal) = receive_with_fd(socket, &mut body)?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&body[..length])?, terminal)))
}

/// One message and the descriptor that may come with it.
pub(super) fn receive_with_fd(
    socket: &OwnedFd,
    body: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(body)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut terminal = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            terminal = fds.into_iter().map(sys::take_fd).next();
        }
    }
    Ok((message.bytes, terminal))
}

/// The path of the console socket that a creator listens on, unique per process.
pub(super) fn console_socket(directory: &Path) -> PathBuf {
    directory.join(format!("tty{}", std::process::id()))
}
