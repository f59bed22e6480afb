//! What can go wrong between the daemon and a container.

use std::path::PathBuf;

use crate::protocol::Failure;

/// Errors of the daemon's half. The shim's own failures arrive as [`RuntimeError::Refused`] or, when
/// they are about the container's process, as [`RuntimeError::Start`].
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The container's or exec's process could not be made to run. `message` is Docker's full text
    /// (`failed to create task for container: … : unknown` or `OCI runtime exec failed: …`), `code`
    /// the exit code Docker shows for it: 127 not found, 126 not executable, 128 anything else.
    #[error("{message}")]
    Start { code: i32, message: String },
    /// The container is not in a state that allows the request.
    #[error("{0}")]
    Refused(String),
    /// Neither a running shim nor a recorded exit exists.
    #[error("container {0} has no running shim")]
    Gone(String),
    #[error("no such exec instance: {0}")]
    NoSuchExec(String),
    #[error("container id {0:?} cannot be used as a directory name")]
    InvalidId(String),
    #[error("{0}")]
    Seccomp(#[from] crate::seccomp::SeccompError),
    #[error("{0}")]
    Cgroup(#[from] crate::cgroup::CgroupError),
    /// The shim speaks a protocol this daemon does not know.
    #[error("shim answered with something that is not our protocol: {0}")]
    Protocol(String),
    #[error("cannot start the shim {}", shim.display())]
    Spawn {
        shim: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    OciRuntime(String),
}

impl RuntimeError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn from_failure(failure: Failure) -> Self {
        match failure.code {
            Some(code) => Self::Start {
                code,
                message: failure.message,
            },
            None if failure.no_such_exec => Self::NoSuchExec(failure.message),
            None => Self::Refused(failure.message),
        }
    }
}
