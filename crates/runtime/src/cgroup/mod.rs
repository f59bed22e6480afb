//! A container's control group, v1 (also hybrid) and v2, by its files.
//!
//! libcontainer (or the OCI runtime) makes it; afterwards shim and daemon read and write its files
//! themselves, so nothing here depends on who made the container.

mod announce;
pub(crate) mod devices;
mod locate;
mod stats;
mod update;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

pub use announce::announce_join;
pub use stats::{BlockIo, CpuStats, MemoryStats, PidsStats, Stats};

/// Which interface the host's cgroups have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// Controllers in hierarchies of their own; a hybrid host counts as this.
    V1,
    #[default]
    V2,
}

/// Reads which interface this host has.
pub fn host_version() -> CgroupVersion {
    locate::host_version()
}

/// The v1 hierarchies with controllers that are mounted here.
pub(crate) fn v1_hierarchies() -> io::Result<Vec<(PathBuf, Vec<String>)>> {
    Ok(locate::v1_hierarchies(&std::fs::read_to_string(
        "/proc/self/mountinfo",
    )?))
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the container has no {0} cgroup")]
    NoController(&'static str),
    #[error("processes in {} cannot be ended", .0.display())]
    Busy(PathBuf),
    #[error("the container did not freeze within {0:?}")]
    NotFrozen(Duration),
}

impl CgroupError {
    fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// The directories that belong to one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    pub version: CgroupVersion,
    /// By controller; on v2 the only key is the empty string.
    pub paths: BTreeMap<String, PathBuf>,
}

/// How long a container may take to freeze: a process deep in the kernel cannot at once.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// How long killed processes may take to vanish.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);

impl Cgroup {
    /// The cgroups of a process as far as they are called `name`; those of an ancestor are left out.
    pub(crate) fn of_process(pid: i32, name: &str) -> io::Result<Self> {
        locate::of_process(pid, name)
    }

    /// Directory of a controller; on v2 all controllers share one.
    pub fn directory(&self, controller: &str) -> Option<&Path> {
        match self.version {
            CgroupVersion::V1 => self.paths.get(controller),
            CgroupVersion::V2 => self.paths.get(""),
        }
        .map(PathBuf::as_path)
    }

    fn required(&self, controller: &'static str) -> Result<&Path, CgroupError> {
        self.directory(controller)
            .ok_or(CgroupError::NoController(controller))
    }

    /// Processes in the container's cgroup and those below it.
    pub fn pids(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids = Vec::new();
        if let Some(directory) = self.process_directory() {
            collect_pids(directory, &mut pids)
                .map_err(CgroupError::io("read the processes of", directory))?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// On v1 every hierarchy holds the same processes; take one that is sure to be the container's.
    fn process_directory(&self) -> Option<&Path> {
        ["devices", "freezer", "pids", "memory"]
            .iter()
            .find_map(|controller| self.directory(controller))
            .or_else(|| self.paths.values().next().map(PathBuf::as_path))
    }

    pub async fn freeze(&self) -> Result<(), CgroupError> {
        let deadline = tokio::time::Instant::now() + FREEZE_LIMIT;
        while !self.try_freeze()? {
            if tokio::time::Instant::now() >= deadline {
                self.start_thaw()?;
                return Err(CgroupError::NotFrozen(FREEZE_LIMIT));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub async fn thaw(&self) -> Result<(), CgroupError> {
        self.start_thaw()
    }

    /// One step: asks for it and looks whether it is so. On v1 the state has to be written again and
    /// again: processes that fork meanwhile keep it at FREEZING.
    fn try_freeze(&self) -> Result<bool, CgroupError> {
        let directory = self.required("freezer")?;
        match self.version {
            CgroupVersion::V1 => {
                write(directory, "freezer.state", "FROZEN")?;
                Ok(read(directory, "freezer.state")?.trim() == "FROZEN")
            }
            CgroupVersion::V2 => {
                write(directory, "cgroup.freeze", "1")?;
                Ok(read(directory, "cgroup.events")?
                    .lines()
                    .any(|line| line == "frozen 1"))
            }
        }
    }

    pub(crate) fn start_thaw(&self) -> Result<(), CgroupError> {
        let directory = self.required("freezer")?;
        match self.version {
            CgroupVersion::V1 => write(directory, "freezer.state", "THAWED"),
            CgroupVersion::V2 => write(directory, "cgroup.freeze", "0"),
        }
    }

    /// How many processes the kernel has killed here for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let file = match self.version {
            CgroupVersion::V1 => "memory.oom_control",
            CgroupVersion::V2 => "memory.events",
        };
        self.directory("memory")
            .and_then(|directory| std::fs::read_to_string(directory.join(file)).ok())
            .and_then(|text| stats::keyed(&text, "oom_kill"))
            .unwrap_or(0)
    }

    /// Kills what is left and removes the directories. Nothing to do is no error.
    pub async fn destroy(&self) -> Result<(), CgroupError> {
        let deadline = tokio::time::Instant::now() + KILL_LIMIT;
        while !self.destroy_step()? {
            if tokio::time::Instant::now() >= deadline {
                return Err(self.busy());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub(crate) fn busy(&self) -> CgroupError {
        CgroupError::Busy(self.process_directory().unwrap_or(Path::new("")).to_owned())
    }

    /// Kills every process and tries to remove every directory; `true` once nothing is left.
    pub(crate) fn destroy_step(&self) -> Result<bool, CgroupError> {
        let mut pids = Vec::new();
        for directory in self.paths.values() {
            collect_pids(directory, &mut pids)
                .map_err(CgroupError::io("read the processes of", directory))?;
        }
        for &pid in &pids {
            // It may have ended between the reading and now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if !pids.is_empty() && self.directory("freezer").is_some_and(Path::exists) {
            // The frozen cannot die (v1).
            self.start_thaw()?;
        }
        let mut all_gone = true;
        for directory in self.paths.values() {
            all_gone &= remove_tree(directory).map_err(CgroupError::io("remove", directory))?;
        }
        Ok(all_gone)
    }
}

fn read(directory: &Path, file: &str) -> Result<String, CgroupError> {
    let path = directory.join(file);
    std::fs::read_to_string(&path).map_err(CgroupError::io("read", path))
}

fn write(directory: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = directory.join(file);
    std::fs::write(&path, value).map_err(CgroupError::io("write", path))
}

fn collect_pids(directory: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    let text = match std::fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => return Ok(()),
        // A threaded cgroup below the container's (v2) lists its processes in its root only.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        Err(error) => return Err(error),
    };
    pids.extend(
        text.lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .filter(|&pid| pid > 0),
    );
    for child in children(directory)? {
        collect_pids(&child, pids)?;
    }
    Ok(())
}

fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

/// Removes a cgroup and those below; `false` while something in it still lives.
fn remove_tree(directory: &Path) -> io::Result<bool> {
    for child in children(directory)? {
        if !remove_tree(&child)? {
            return Ok(false);
        }
    }
    match std::fs::remove_dir(directory) {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gone, or going while we read it.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
