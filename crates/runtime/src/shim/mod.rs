//! The shim: the process that owns one container.
//!
//! One thread and one `poll` loop. It is a session leader of its own and a subreaper, so that a daemon
//! that is killed with all its children leaves it alone and every process of the container, execs
//! included, is its child. Parsing and libcontainer happen in short-lived forks ([`creator`]).
//!
//! When the container has ended it writes `exit.json`, drains the output into the log, removes the
//! cgroup and its own directory, answers whoever waits, and ends: a stopped container costs nothing,
//! and what is left to know is on disk.
//!
//! A client that reads too slowly slows the container down, as with dockerd: anything else would lose
//! output of `docker run … | less`. Its backlog here is at most one read; the rest is in the kernel.

mod builtin;
mod client;
mod complaints;
mod creator;

pub(crate) use executor::go_error;
#[cfg(test)]
mod device_tests;
mod executor;
mod log;
mod oci;
mod oom;
mod process;
mod stdio;
mod supervisor;
mod sys;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};

use supervisor::Supervisor;

/// Runs a shim; `args` are what follows `shim` on the command line: the container's directory.
/// Standard input is the connection with the request to create the container.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let mut args = args.into_iter();
    let (Some(directory), None) = (args.next(), args.next()) else {
        let _ = io::Write::write_all(
            &mut io::stderr(),
            b"skep shim is started by skep daemon, not by hand\n",
        );
        return 125;
    };
    match run(PathBuf::from(directory)) {
        Ok(()) => 0,
        Err(error) => {
            let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("shim: {error}\n"));
            1
        }
    }
}

fn run(directory: PathBuf) -> io::Result<()> {
    sys::frugal_allocator();
    // A leader already, if somebody started us from a shell.
    let _ = nix::unistd::setsid();
    std::env::set_current_dir("/")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let _ = rustix::thread::set_name(c"skep-shim");
    // Not everybody may; then the kernel judges us like anybody else.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    let mut blocked = SigSet::empty();
    // SIGCHLD is read from a descriptor. The others would take the container down with the daemon's
    // service; they end us no more than they end the container.
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGPIPE,
    ] {
        blocked.add(signal);
    }
    blocked.thread_set_mask()?;
    Supervisor::new(directory)?.run()
}

/// Listens on a socket whose path may be longer than an address can hold.
fn bind_in(path: &Path) -> io::Result<UnixListener> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let directory = File::open(parent)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    UnixListener::bind(short)
}
