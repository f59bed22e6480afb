//! Processes by more than a number, which the kernel gives away again.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

const PAUSE: Duration = Duration::from_millis(2);

/// A process and when it started: never mistaken for a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks since boot.
    started: u64,
}

impl Process {
    /// The process that has this number now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let (over, started) = status(pid)?;
        (!over).then_some(Self { pid, started })
    }

    #[must_use]
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal; nothing happens if it has ended.
    pub fn signal(self, signal: Signal) {
        if self.is_alive() {
            // It may end in between; then there is nothing to signal.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until it has ended, and reaps it if it is this process's child. Whether it did so in
    /// time.
    #[must_use]
    pub fn ended_within(self, bound: Duration) -> bool {
        let started = Instant::now();
        loop {
            // Another one's child gives ECHILD, which is as good.
            let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
            if !self.is_alive() {
                return true;
            }
            if started.elapsed() > bound {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Whether it is over, and its start time. The name in between may hold anything, blanks and brackets too.
fn status(pid: i32) -> Option<(bool, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_status(&text)
}

fn parse_status(text: &str) -> Option<(bool, u64)> {
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?.chars().next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    // The first thread of a killed process may be gone while others still hold its sockets open.
    let over = matches!(state, 'Z' | 'X' | 'x') && threads <= 1;
    Some((over, fields.nth(1)?.parse().ok()?))
}

/// Numbers of all processes but this one.
pub(crate) fn all() -> impl Iterator<Item = i32> {
    let own = std::process::id().cast_signed();
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |pid| *pid != own)
}

/// Engines and their helpers whose command line names a path below `root`. Others may name it as
/// well, the shell from which a lab is removed above all.
#[must_use]
pub fn processes_naming(root: &Path) -> Vec<i32> {
    let needle = root.as_os_str().as_encoded_bytes();
    all()
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| is_engine(&line) && contains(&line, needle))
        })
        .collect()
}

fn contains(line: &[u8], needle: &[u8]) -> bool {
    line.windows(needle.len()).any(|window| window == needle)
}

/// `skep daemon …`, `skep shim …`, and the programs of a dockerd.
fn is_engine(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    let name = program
        .rsplit(|byte| *byte == b'/')
        .next()
        .unwrap_or_default();
    let first = words.next().unwrap_or_default();
    first == b"daemon"
        || first == b"shim"
        || [
            b"dockerd".as_slice(),
            b"containerd",
            b"docker-proxy",
            b"runc",
        ]
        .iter()
        .any(|engine| name.starts_with(engine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_state_and_start_behind_any_name() {
        let text = "7 (a) b) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(parse_status(text), Some((false, 4242)));
        let threads = "7 (a) Z 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 3 0 4242 9 9";
        assert_eq!(parse_status(threads), Some((false, 4242)));
        let over = "7 (a) Z 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(parse_status(over), Some((true, 4242)));
        assert_eq!(parse_status("7 (a"), None);
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "reaping it is what is tested")]
    fn a_child_that_ended_is_reaped_and_not_alive() {
        let child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        assert!(process.is_alive());
        process.signal(Signal::SIGKILL);
        assert!(process.ended_within(Duration::from_secs(10)));
        assert_eq!(Process::of(process.pid), None);
    }

    #[test]
    fn a_shell_that_names_the_directory_is_no_engine() {
        assert!(is_engine(b"/usr/bin/skep\0daemon\0--data-root=/x"));
        assert!(is_engine(b"/proc/self/exe\0shim\0/x"));
        assert!(is_engine(b"/x/usr/bin/containerd-shim-runc-v2\0-id"));
        assert!(!is_engine(b"bash\0-c\0skep lab down --dir /x"));
        assert!(!is_engine(b"docker\0-H\0unix:///x"));
    }
}
