//! Removing what a daemon left behind, and saying what it was.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) use skep_lab::{cgroups_at, mounts_below, processes_in_cgroup, processes_naming};

/// Kills, unmounts and removes everything that belongs to a test's daemon.
pub(crate) fn sweep(root: &Path, cgroup: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut left = processes_naming(root);
        left.extend(processes_in_cgroup(cgroup));
        if left.is_empty() || Instant::now() > deadline {
            break;
        }
        for pid in left {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::yield_now();
    }
    for point in mounts_below(root) {
        let _ = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
    }
    for group in cgroups_at(cgroup) {
        let _ = std::fs::remove_dir(group);
    }
}
