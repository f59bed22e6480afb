//! Removing a lab, or what is left of it. Everything is found in the kernel, by the lab's directory
//! and name; the state file need not be there any more.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use skep_netlink::Namespace;

use crate::cgroups::{cgroups_at, processes_in_cgroup};
use crate::mounts::mounts_below;
use crate::process::{self, processes_naming};
use crate::{LabError, LabFiles};

const BOUND: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(2);

/// What of a lab is still there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub processes: Vec<i32>,
    pub mounts: Vec<PathBuf>,
    pub cgroups: Vec<PathBuf>,
    pub directory: Option<PathBuf>,
}

impl Leftovers {
    /// Looks for what a lab has in the kernel and on disk.
    #[must_use]
    pub fn of(files: &LabFiles) -> Self {
        let root = files.root();
        Self {
            processes: processes(&files.namespaces(), root, &files.cgroup()),
            mounts: mounts_below(root),
            cgroups: cgroups_at(&files.cgroup()),
            directory: root.exists().then(|| root.to_owned()),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for Leftovers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let processes = self.processes.iter().map(|pid| format!("process {pid}"));
        let named = |kind: &str, path: &PathBuf| format!("{kind} {}", path.display());
        let all: Vec<String> = processes
            .chain(self.mounts.iter().map(|path| named("mount", path)))
            .chain(self.cgroups.iter().map(|path| named("cgroup", path)))
            .chain(self.directory.iter().map(|path| named("directory", path)))
            .collect();
        f.write_str(&all.join(", "))
    }
}

/// Kills, unmounts and removes all of a lab. Goes on after a failure, and says at its end what is
/// left.
pub fn down(files: &LabFiles) -> Result<(), LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let root = files.root();
    kill_all(|| processes(&files.namespaces(), root, &files.cgroup()));
    unmount_below(root);
    remove_cgroups(&files.cgroup());
    let removed = match fs::remove_dir_all(root) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(LabError::io(format!("remove {}", root.display()))(error))
        }
        _ => Ok(()),
    };
    // Its parent is ours as well, if no other lab is in it and its name says so.
    if let Some(parent) = root.parent().filter(|parent| parent.ends_with("skep-lab")) {
        let _ = fs::remove_dir(parent);
    }
    removed?;
    let left = Leftovers::of(files);
    if left.is_empty() {
        Ok(())
    } else {
        Err(LabError::Leftovers(left.to_string()))
    }
}

/// Ends everything that runs on one node and unmounts what it mounted.
pub(crate) fn node(files: &LabFiles, name: &str) -> Result<(), LabError> {
    let (directory, cgroup) = (files.node(name), files.node_cgroup(name));
    let find = || processes(&files.namespace(name), &directory, &cgroup);
    kill_all(find);
    unmount_below(&directory);
    remove_cgroups(&cgroup);
    let left = find();
    if left.is_empty() {
        return Ok(());
    }
    Err(LabError::Leftovers(format!("processes {left:?} of {name}")))
}

/// Processes in the network namespaces bound at or below `namespaces`, engines that name a path
/// below `root`, and whatever is in the cgroup: containers, above all.
fn processes(namespaces: &Path, root: &Path, cgroup: &str) -> Vec<i32> {
    let inside = identities(namespaces);
    let mut found: BTreeSet<i32> = process::all()
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|namespace| inside.contains(&(namespace.dev(), namespace.ino())))
        })
        .collect();
    found.extend(processes_naming(root));
    found.extend(processes_in_cgroup(cgroup));
    // A process that ended and was not waited for has nothing any more but its number.
    found.retain(|pid| process::Process::of(*pid).is_some());
    found.into_iter().collect()
}

fn identities(namespaces: &Path) -> BTreeSet<(u64, u64)> {
    let identity = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        metadata.is_file().then(|| (metadata.dev(), metadata.ino()))
    };
    let entries = fs::read_dir(namespaces).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| identity(&entry.path()))
        .chain(identity(namespaces))
        .collect()
}

/// Kills until nobody is found any more: what is killed may have been starting something.
fn kill_all(find: impl Fn() -> Vec<i32>) {
    let started = Instant::now();
    loop {
        let found = find();
        if found.is_empty() || started.elapsed() > BOUND {
            return;
        }
        for pid in found {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            // And it may be this process's own child.
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        }
        std::thread::sleep(PAUSE);
    }
}

fn unmount_below(root: &Path) {
    for point in mounts_below(root) {
        if mount_is_namespace(&point) {
            let _ = Namespace::delete_at(&point);
        } else {
            let _ = umount2(&point, MntFlags::MNT_DETACH);
        }
    }
}

fn mount_is_namespace(point: &Path) -> bool {
    fs::metadata(point).is_ok_and(|metadata| metadata.is_file())
        && point.parent().is_some_and(|parent| parent.ends_with("net"))
}

/// The kernel lets a cgroup go a moment after its last process.
fn remove_cgroups(path: &str) {
    let started = Instant::now();
    loop {
        for group in cgroups_at(path) {
            let _ = fs::remove_dir(group);
        }
        if cgroups_at(path).is_empty() || started.elapsed() > BOUND {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
