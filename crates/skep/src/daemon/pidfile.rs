//! The daemon's PID file: refuses to start over a living daemon, vanishes at the end.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Removed when dropped.
pub(crate) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes this process's id, unless the file names a process that is still running.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).context("failed to create pidfile directory")?;
        }
        let old = std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        if let Some(pid) = old.filter(|&pid: &u32| is_running(pid)) {
            bail!(
                "failed to start daemon, ensure docker is not running or delete {}: process with \
                 PID {pid} is still running",
                path.display()
            );
        }
        std::fs::write(path, std::process::id().to_string())
            .with_context(|| format!("can't write the PID file {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "can not remove the PID file");
        }
    }
}

/// A container's first daemon may find its own number in a file left by its predecessor.
fn is_running(pid: u32) -> bool {
    pid != std::process::id() && !is_over(pid)
}

/// Whether there is no such process, or only what is left of one until its parent looks.
fn is_over(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The state follows the name, which stands in parentheses and may hold anything.
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    state.starts_with(['Z', 'X'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_was_killed_and_not_yet_reaped_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.pid");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        std::fs::write(&path, child.id().to_string()).unwrap();
        assert!(PidFile::create(&path).is_err());
        child.kill().unwrap();
        while !is_over(child.id()) {
            std::thread::yield_now();
        }
        PidFile::create(&path).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_stale_file_is_taken_over_and_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/docker.pid");
        let file = PidFile::create(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            std::process::id().to_string()
        );
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_living_daemons_file_is_respected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.pid");
        std::fs::write(&path, "1").unwrap();
        let error = PidFile::create(&path).err().unwrap().to_string();
        assert!(
            error.contains("process with PID 1 is still running"),
            "{error}"
        );
        assert!(path.exists());
    }
}
