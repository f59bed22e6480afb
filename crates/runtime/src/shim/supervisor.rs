//! The loop: what is watched, and who handles what happens.

mod lifecycle;
mod requests;
mod streams;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::WaitStatus;

use super::client::{Attachment, Connection, Role};
use super::creator::{self, Context, Outcome, Task};
use super::log::ContainerLog;
use super::oom::OomWatch;
use super::process::{Process, ProcessKey};
use super::stdio::{self, Ends, Wanted};
use super::sys;
use crate::cgroup::Cgroup;
use crate::clock;
use crate::exit::{ExitStatus, code_of};
use crate::protocol::{
    Call, CreateCall, ExecCall, Failure, Reply, Request, SOCKET, STATE_FILE, ShimState,
    StatusReply, VERSION,
};

/// How long output may come after the end of its process from others that hold its pipes.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// After this long without output, buffers are given back.
const IDLE: Duration = Duration::from_secs(2);
/// Between two attempts to remove the cgroup.
const RETRY: Duration = Duration::from_millis(2);
const TEARDOWN_LIMIT: Duration = Duration::from_secs(10);
const READ_SIZE: usize = 32 * 1024;
/// So many results of execs are kept for those who ask late, or again.
const FINISHED_EXECS: usize = 64;

/// Everything the shim knows.
pub(super) struct Supervisor {
    directory: PathBuf,
    listener: Option<UnixListener>,
    signals: SignalFd,
    connections: Vec<Connection>,
    next_connection: u64,
    jobs: Vec<Job>,
    processes: Vec<Process>,
    next_key: u32,
    container: Option<Container>,
    log: Option<ContainerLog>,
    /// Ends of children that nobody has claimed: a creator's result may come after its process's end.
    unclaimed: Vec<(i32, WaitStatus)>,
    buffer: Vec<u8>,
    /// Something was read lately.
    busy: bool,
    finished: bool,
}

/// What is kept of the creation request, and what came of it.
struct Container {
    call: CreateCall,
    cgroup: Cgroup,
    oom: Option<OomWatch>,
    oom_kills: u64,
    started: bool,
    /// Since when the cgroup is being removed.
    teardown: Option<Instant>,
    torn_down: bool,
}

/// A creator at work.
struct Job {
    result: OwnedFd,
    /// Where the answer goes: the connection that asked.
    asker: u64,
    ends: Ends,
    kind: JobKind,
    done: bool,
}

enum JobKind {
    Container(CreateCall),
    Exec(ExecCall),
    /// Its result is being dealt with.
    Taken,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Signals,
    Oom,
    Job(usize),
    Connection(usize),
    Output {
        process: ProcessKey,
        fd: i32,
        stream: u8,
    },
    Input {
        process: ProcessKey,
    },
}

impl Supervisor {
    pub(super) fn new(directory: PathBuf) -> io::Result<Self> {
        let socket = directory.join(SOCKET);
        let _ = std::fs::remove_file(&socket);
        let listener = super::bind_in(&socket)?;
        listener.set_nonblocking(true)?;
        let mut children = SigSet::empty();
        children.add(Signal::SIGCHLD);
        let signals =
            SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let daemon = sys::stdin_fd().try_clone_to_owned()?;
        sys::replace_stdin(&stdio::null()?)?;
        Ok(Self {
            directory,
            listener: Some(listener),
            signals,
            connections: vec![Connection::new(0, daemon)],
            next_connection: 1,
            jobs: Vec::new(),
            processes: Vec::new(),
            next_key: 0,
            container: None,
            log: None,
            unclaimed: Vec::new(),
            buffer: Vec::new(),
            busy: false,
            finished: false,
        })
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.poll()?;
            if ready.is_empty() {
                self.rest();
            }
            for (source, events) in ready {
                self.dispatch(source, events);
            }
            self.advance();
            self.drop_dead_connections();
            self.jobs.retain(|job| !job.done);
            if self.finished && self.connections.is_empty() {
                return Ok(());
            }
            if self.container.is_none() && self.jobs.is_empty() && self.connections.is_empty() {
                // Whoever wanted a container has gone before there was one.
                return Ok(());
            }
        }
    }

    /// Waits, and says what can be done.
    fn poll(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        self.watch(&mut |source, fd, events| {
            sources.push(source);
            fds.push(PollFd::new(fd, events));
        });
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = sources.into_iter().zip(&fds).filter_map(|(source, fd)| {
            let events = fd.revents().unwrap_or(PollFlags::empty());
            (!events.is_empty()).then_some((source, events))
        });
        Ok(ready.collect())
    }

    fn watch<'a>(&'a self, watch: &mut dyn FnMut(Source, BorrowedFd<'a>, PollFlags)) {
        if let Some(listener) = &self.listener {
            watch(Source::Listener, listener.as_fd(), PollFlags::POLLIN);
        }
        watch(Source::Signals, self.signals.as_fd(), PollFlags::POLLIN);
        if let Some(oom) = self
            .container
            .as_ref()
            .and_then(|container| container.oom.as_ref())
        {
            watch(Source::Oom, oom.fd(), PollFlags::POLLIN);
        }
        for (index, job) in self.jobs.iter().enumerate() {
            watch(Source::Job(index), job.result.as_fd(), PollFlags::POLLIN);
        }
        for (index, connection) in self.connections.iter().enumerate() {
            watch(
                Source::Connection(index),
                connection.socket.as_fd(),
                Self::interest(&connection.role),
            );
        }
        for process in &self.processes {
            for (stream, output) in &process.ends.outputs {
                if !self.is_held_up(process, *stream) {
                    let source = Source::Output {
                        process: process.key,
                        fd: output.as_raw_fd(),
                        stream: *stream,
                    };
                    watch(source, output.as_fd(), PollFlags::POLLIN);
                }
            }
            if let Some(input) = process.input().filter(|_| self.has_input_for(process.key)) {
                watch(
                    Source::Input {
                        process: process.key,
                    },
                    input.as_fd(),
                    PollFlags::POLLOUT,
                );
            }
        }
    }

    /// What a connection is watched for. Hang-ups are always told.
    fn interest(role: &Role) -> PollFlags {
        match role {
            Role::Asking(_) => PollFlags::POLLIN,
            Role::Attached(attachment) => {
                let mut interest = PollFlags::empty();
                if !attachment.input_ended && attachment.input.is_empty() {
                    interest |= PollFlags::POLLIN;
                }
                if !attachment.output.is_empty() {
                    interest |= PollFlags::POLLOUT;
                }
                interest
            }
            _ => PollFlags::empty(),
        }
    }

    /// The nearest moment at which something is to be done without an event.
    fn timeout(&self) -> PollTimeout {
        let drain = self
            .processes
            .iter()
            .filter_map(|process| process.drain_until)
            .min();
        let mut wait = drain.map(|at| at.saturating_duration_since(Instant::now()));
        let mut at_most = |limit: Duration| wait = Some(wait.map_or(limit, |wait| wait.min(limit)));
        if self
            .container
            .as_ref()
            .is_some_and(|container| container.teardown.is_some() && !container.torn_down)
        {
            at_most(RETRY);
        }
        if self.busy {
            at_most(IDLE);
        }
        wait.map_or(PollTimeout::NONE, |wait| {
            // Rounded up: waking before the moment would spin until it comes.
            let milliseconds = wait.as_millis() as u64 + 1;
            PollTimeout::from(u16::try_from(milliseconds).unwrap_or(u16::MAX))
        })
    }

    fn dispatch(&mut self, source: Source, events: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => self.reap(),
            Source::Oom => self.out_of_memory(),
            Source::Job(index) => self.finish_job(index),
            Source::Connection(index) => self.serve(index, events),
            Source::Output {
                process,
                fd,
                stream,
            } => self.read_output(process, fd, stream),
            Source::Input { process } => self.feed_input(process),
        }
    }

    /// Nothing has happened for a while: keep no memory that is not needed.
    fn rest(&mut self) {
        if !self.busy {
            return;
        }
        self.busy = false;
        self.buffer = Vec::new();
        if let Some(log) = &mut self.log {
            log.shrink();
        }
        sys::return_free_memory();
        sys::forget_code();
    }

    fn drop_dead_connections(&mut self) {
        for at in 0..self.connections.len() {
            if self.connections[at].dead {
                // A client that vanishes ends its input like one that says so.
                self.end_input(at);
            }
        }
        self.connections.retain(|connection| !connection.dead);
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        while let Ok((stream, _)) = listener.accept() {
            self.connections
                .push(Connection::new(self.next_connection, OwnedFd::from(stream)));
            self.next_connection += 1;
        }
    }

    fn container_process(&mut self) -> Option<&mut Process> {
        self.processes
            .iter_mut()
            .find(|process| process.is_container())
    }

    fn index_of(&self, key: ProcessKey) -> Option<usize> {
        self.processes.iter().position(|process| process.key == key)
    }

    fn new_key(&mut self) -> ProcessKey {
        self.next_key += 1;
        ProcessKey(self.next_key)
    }

    fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.processes.iter().find(|process| process.key == key)
    }

    fn process_mut(&mut self, key: ProcessKey) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.key == key)
    }
}
