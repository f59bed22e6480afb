//! Secrets and configs of a swarm's task as files inside its container.
//!
//! Their contents are in the daemon's memory and in a tmpfs, never on a disk. The tmpfs is taken
//! out of the host's sight as soon as the container has mounted the files: inside it lives on.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::error::{EngineError, Result};

/// One file. Says nothing of its contents when it is printed.
pub(crate) struct TaskFile {
    /// Clean and absolute.
    pub(crate) target: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    pub(crate) data: Vec<u8>,
}

impl std::fmt::Debug for TaskFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskFile")
            .field("target", &self.target)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Files in their tmpfs, until dropped.
#[derive(Debug)]
pub(crate) struct Staged {
    dir: PathBuf,
    /// Target and the path on the host.
    pub(crate) files: Vec<(String, PathBuf)>,
}

impl Staged {
    pub(crate) fn new(dir: PathBuf, files: &[TaskFile]) -> Result<Self> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            EngineError::from_source("unable to setup secret mount", error)
        };
        clear(&dir);
        std::fs::create_dir_all(&dir).map_err(|error| failed(&error))?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        mount("tmpfs", &dir, "tmpfs", flags, Some(c"mode=0700")).map_err(|error| {
            let _ = std::fs::remove_dir(&dir);
            failed(&error)
        })?;
        let mut staged = Self {
            dir,
            files: Vec::with_capacity(files.len()),
        };
        for (number, file) in files.iter().enumerate() {
            let path = staged.dir.join(number.to_string());
            write(&path, file).map_err(|error| {
                EngineError::from_source(format!("error injecting {}", file.target), &error)
            })?;
            staged.files.push((file.target.clone(), path));
        }
        Ok(staged)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        clear(&self.dir);
    }
}

fn write(path: &Path, file: &TaskFile) -> std::io::Result<()> {
    let mut made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    made.write_all(&file.data)?;
    std::os::unix::fs::fchown(&made, Some(file.uid), Some(file.gid))?;
    // After the owner: that takes set-user-id bits away.
    made.set_permissions(std::fs::Permissions::from_mode(file.mode & 0o7777))
}

/// Takes a tmpfs away, also one that an earlier daemon left; nothing there is fine.
pub(crate) fn clear(dir: &Path) {
    if dir.exists() {
        let _ = unmount(dir, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_a_file_does_not_tell_what_is_in_it() {
        let file = TaskFile {
            target: "/run/secrets/a".to_owned(),
            uid: 0,
            gid: 0,
            mode: 0o444,
            data: b"hunter2".to_vec(),
        };
        let printed = format!("{file:?}");
        assert!(
            printed.contains("/run/secrets/a") && !printed.contains("104"),
            "{printed}"
        );
    }
}
