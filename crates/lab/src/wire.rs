//! A wire that is slow and loses frames.
//!
//! The kernel's own `netem` would do this, but many kernels are built without it. So a small process
//! carries the frames between a node's cable and the bridge: each is kept for the delay, or
//! forgotten. It ends when it is killed or its interfaces go.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use skep_netlink::{PacketSocket, RouteSocket};

use crate::files::{read_json, write_json};
use crate::process::Process;
use crate::{Fabric, LabError, LabFiles};

const KILL_BOUND: Duration = Duration::from_secs(5);
/// Said on standard output once frames are carried.
const READY: &str = "carrying";

/// What a wire does to frames, each way.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Slowness {
    pub delay: Duration,
    /// The share of frames that vanish, from 0 to 1.
    pub loss: f64,
}

/// A wire that was started.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    process: Process,
    slowness: Slowness,
}

/// Starts the process that carries a node's frames.
pub(crate) fn start(
    files: &LabFiles,
    program: &Path,
    node: &str,
    ends: &(String, String),
    slowness: Slowness,
) -> Result<(), LabError> {
    let fabric = Fabric::open(files)?;
    let mut command = Command::new(program);
    command
        .args(["lab", "wire", &ends.0, &ends.1])
        .args(["--delay", &format!("{}us", slowness.delay.as_micros())])
        .args(["--loss", &format!("{}%", slowness.loss * 100.0)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    let failed = || LabError::io(format!("start a wire for {node}"));
    let mut child = fabric
        .namespace()
        .run(move || command.spawn())?
        .map_err(failed())?;
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output)
            .read_line(&mut said)
            .map_err(failed())?;
    }
    let process = Process::of(child.id().cast_signed()).filter(|_| said.trim_end() == READY);
    let Some(process) = process else {
        return Err(failed()(std::io::Error::other("it ended at once")));
    };
    write_json(&files.wire(node), &Record { process, slowness })
}

/// Ends a node's wire, if it has one. Its cable stays open until it is closed.
pub(crate) fn stop(files: &LabFiles, node: &str) -> Result<(), LabError> {
    let path = files.wire(node);
    if !path.exists() {
        return Ok(());
    }
    let record: Record = read_json(&path)?;
    record.process.signal(Signal::SIGKILL);
    if !record.process.ended_within(KILL_BOUND) {
        return Err(LabError::Leftovers(format!(
            "process {}",
            record.process.pid
        )));
    }
    std::fs::remove_file(&path).map_err(LabError::io(format!("remove {}", path.display())))
}

/// How slow a node's wire is now.
pub(crate) fn current(files: &LabFiles, node: &str) -> Option<Slowness> {
    let record: Record = read_json(&files.wire(node)).ok()?;
    record.process.is_alive().then_some(record.slowness)
}

/// The process's work: carries frames between two interfaces of its namespace until one of them
/// goes.
pub fn carry(one: &str, other: &str, slowness: Slowness) -> Result<(), LabError> {
    let mut routes = RouteSocket::open()?;
    let mut open = |name: &str| {
        let link = routes
            .link(name)?
            .ok_or_else(|| LabError::Leftovers(name.to_owned()))?;
        Ok::<_, LabError>(PacketSocket::open(link.index)?)
    };
    let (one, other) = (open(one)?, open(other)?);
    let mut out = std::io::stdout();
    // The starter waits for this line; whoever runs this by hand may read it.
    let _ = writeln!(out, "{READY}").and_then(|()| out.flush());
    let mut lanes = [Lane::new(&one, &other), Lane::new(&other, &one)];
    let mut buffer = vec![0; PacketSocket::LONGEST];
    loop {
        let now = Instant::now();
        let due = lanes.iter().filter_map(Lane::due).min();
        wait(
            &one,
            &other,
            due.map(|due| due.saturating_duration_since(now)),
        )
        .map_err(LabError::system("wait for frames"))?;
        for lane in &mut lanes {
            lane.move_frames(slowness, &mut buffer)
                .map_err(LabError::io("carry frames"))?;
        }
    }
}

/// Sleeps until there is a frame or one is due. To the microsecond where the kernel can, for a
/// delay is often below poll's millisecond.
fn wait(one: &PacketSocket, other: &PacketSocket, due: Option<Duration>) -> nix::Result<()> {
    let mut sockets = [
        PollFd::new(one.as_fd(), PollFlags::POLLIN),
        PollFd::new(other.as_fd(), PollFlags::POLLIN),
    ];
    let timeout = match due {
        // Rounded up: waking too early would spin.
        Some(due) => {
            PollTimeout::try_from(due + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
        }
        None => PollTimeout::NONE,
    };
    match poll(&mut sockets, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// One direction.
struct Lane<'a> {
    from: &'a PacketSocket,
    to: &'a PacketSocket,
    kept: VecDeque<(Instant, Vec<u8>)>,
}

impl<'a> Lane<'a> {
    fn new(from: &'a PacketSocket, to: &'a PacketSocket) -> Self {
        Self {
            from,
            to,
            kept: VecDeque::new(),
        }
    }

    fn due(&self) -> Option<Instant> {
        self.kept.front().map(|(due, _)| *due)
    }

    fn move_frames(&mut self, slowness: Slowness, buffer: &mut [u8]) -> std::io::Result<()> {
        while let Some(length) = received(self.from.receive(buffer))? {
            if !rand::rng().random_bool(slowness.loss) {
                let due = Instant::now() + slowness.delay;
                self.kept.push_back((due, buffer[..length].to_vec()));
            }
        }
        let now = Instant::now();
        while self.due().is_some_and(|due| due <= now) {
            if let Some((_, frame)) = self.kept.pop_front() {
                // A frame that the other end does not take is lost, as on any wire.
                let _ = self.to.send(&frame);
            }
        }
        Ok(())
    }
}

/// `None` if there is no frame now. An interface that is down gives an error once and may come back.
fn received(outcome: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match outcome {
        Ok(length) => Ok(Some(length)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NetworkDown
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
