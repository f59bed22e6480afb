//! Removing what a daemon left behind, and saying what it was.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Mount points below `root`, deepest first.
pub(crate) fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(root))
        .collect();
    found.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    found
}

/// Processes whose command line names a path below `root`: shims, above all.
pub(crate) fn processes_naming(root: &Path) -> Vec<i32> {
    let needle = root.as_os_str().as_encoded_bytes();
    processes()
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(needle.len()).any(|window| window == needle))
        })
        .filter(|&pid| pid != std::process::id().cast_signed())
        .collect()
}

/// Processes in a cgroup at or below `parent`, whichever hierarchy says so.
pub(crate) fn processes_in_cgroup(parent: &str) -> Vec<i32> {
    processes()
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
                .is_ok_and(|text| text.lines().any(|line| line.contains(parent)))
        })
        .collect()
}

fn processes() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Cgroup directories of `parent` in every hierarchy, deepest first, without `parent` itself.
pub(crate) fn cgroups_below(parent: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        collect(&hierarchy.join(parent.trim_start_matches('/')), &mut found);
    }
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut found = vec![root.to_owned()];
    found.extend(
        std::fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path()),
    );
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
            found.push(entry.path());
        }
    }
}

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
    let mut groups = cgroups_below(cgroup);
    groups.extend(
        hierarchies()
            .into_iter()
            .map(|h| h.join(cgroup.trim_start_matches('/'))),
    );
    for group in groups {
        let _ = std::fs::remove_dir(group);
    }
}
