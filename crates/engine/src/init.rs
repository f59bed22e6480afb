//! `--init`: a first process that passes signals on and collects orphans.
//!
//! The container's image may be anything, so the program must be static. The engine carries one
//! (`init/main.rs`, compiled by the build script) and keeps it as a file in the data root, from
//! where it is bind-mounted read-only as `/sbin/docker-init`; a configured one is used instead.
//! A file, unlike a copy of the daemon's own process, works with every OCI runtime too.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bollard_stubs::models as m;
use parking_lot::Mutex;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::persist;

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/docker-init"));

impl Engine {
    /// The init to run in a container, if it shall have one.
    pub(crate) fn init_program(&self, host: &m::HostConfig) -> Result<Option<PathBuf>> {
        // With somebody else's processes around it would not be the first one.
        let own_pids = host.pid_mode.as_deref().is_none_or(str::is_empty);
        if !own_pids || !host.init.unwrap_or(self.config.init) {
            return Ok(None);
        }
        if let Some(path) = &self.config.init_path {
            return Ok(Some(path.clone()));
        }
        let path = self.config.data_root.join("docker-init");
        install(&path).map_err(|error| {
            EngineError::from_source(
                format!("cannot write the init program {}", path.display()),
                &error,
            )
        })?;
        Ok(Some(path))
    }

    /// What `docker info` shows.
    pub(crate) fn init_version(&self) -> String {
        let configured = self.config.init_path.as_deref().and_then(Path::file_name);
        configured.map_or_else(
            || "built-in".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    }
}

/// Writes the program unless it is there. Running containers keep an older one that is replaced.
fn install(path: &Path) -> std::io::Result<()> {
    // Two containers may start at once.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock();
    if std::fs::read(path).is_ok_and(|there| there == PROGRAM) {
        return Ok(());
    }
    persist::write_atomically(path, PROGRAM, false)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    /// Runs a program under the init.
    fn under_init(args: &[&str]) -> Output {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-init");
        install(&path).unwrap();
        install(&path).unwrap();
        Command::new(path).arg("--").args(args).output().unwrap()
    }

    #[test]
    fn the_commands_code_and_output_are_its_own() {
        let output = under_init(&["sh", "-c", "echo out; exit 7"]);
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(output.stdout, b"out\n");
        let killed = under_init(&["sh", "-c", "kill -9 $$"]);
        assert_eq!(killed.status.code(), Some(137));
    }

    #[test]
    fn a_command_that_is_not_there_is_127_and_one_that_may_not_run_126() {
        let missing = under_init(&["no-such-program"]);
        assert_eq!(missing.status.code(), Some(127));
        assert_eq!(
            String::from_utf8_lossy(&missing.stderr),
            "docker-init: exec no-such-program failed: No such file or directory\n"
        );
        assert_eq!(under_init(&["/etc/passwd"]).status.code(), Some(126));
    }

    #[test]
    fn a_script_without_a_first_line_is_the_shells() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "echo script $1\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let output = under_init(&[script.to_str().unwrap(), "argument"]);
        assert_eq!(output.stdout, b"script argument\n");
    }
}
