//! The ends of a process's standard streams.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};

use crate::protocol::{STDERR, STDOUT};

/// Our ends.
#[derive(Default)]
pub(super) struct Ends {
    /// Where input goes: a pipe or the terminal.
    pub input: Option<OwnedFd>,
    /// Where output comes from, with the stream's number.
    pub outputs: Vec<(u8, OwnedFd)>,
}

/// The process's ends. Gone from this process once the child has them.
pub(super) struct ChildEnds {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Which streams get a pipe; the others are `/dev/null`.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Makes pipes that belong to the process's user, so that it may open `/dev/stdout` again.
pub(super) fn pipes(wanted: Wanted, uid: u32, gid: u32) -> io::Result<(Ends, ChildEnds)> {
    let mut ends = Ends::default();
    let owner = |fd: &OwnedFd| fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let stdin = if wanted.stdin {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        owner(&read)?;
        set_nonblocking(&write)?;
        ends.input = Some(write);
        read
    } else {
        null()?
    };
    let mut output = |stream: u8, wanted: bool| -> io::Result<OwnedFd> {
        if !wanted {
            return null();
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        owner(&write)?;
        set_nonblocking(&read)?;
        ends.outputs.push((stream, read));
        Ok(write)
    };
    let stdout = output(STDOUT, wanted.stdout)?;
    let stderr = output(STDERR, wanted.stderr)?;
    Ok((
        ends,
        ChildEnds {
            stdin,
            stdout,
            stderr,
        },
    ))
}

/// Both directions of a terminal's master.
pub(super) fn terminal(master: OwnedFd) -> io::Result<Ends> {
    set_nonblocking(&master)?;
    let input = master.try_clone()?;
    Ok(Ends {
        input: Some(input),
        outputs: vec![(STDOUT, master)],
    })
}

pub(super) fn null() -> io::Result<OwnedFd> {
    Ok(File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?
        .into())
}

pub(super) fn set_nonblocking<F: AsFd>(fd: &F) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
