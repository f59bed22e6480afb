//! A shim that runs and has no container yet.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::net::UnixStream;

use crate::cgroup::Cgroup;
use crate::connection::ask;
use crate::error::RuntimeError;
use crate::protocol::{Call, CreateCall, Reply};
use crate::request::RuntimeConfig;

/// Made by [`crate::Runtime::prepare`]. Dropped without a container it leaves nothing: its process
/// ends with the connection, its directory is removed.
#[derive(Debug)]
pub struct PreparedShim {
    stream: UnixStream,
    directory: PathBuf,
    /// A container lives in the directory now.
    used: bool,
}

impl PreparedShim {
    /// Starts the process with one end of a socket pair as its standard input; the first and only
    /// request on it is the creation, so there is no moment at which we would wait for a socket file.
    pub(crate) fn spawn(config: &RuntimeConfig, directory: PathBuf) -> Result<Self, RuntimeError> {
        let spawn_error = |source| RuntimeError::Spawn {
            shim: config.shim.clone(),
            source,
        };
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|errno| spawn_error(errno.into()))?;
        let prepared = Self {
            stream: into_tokio(ours).map_err(spawn_error)?,
            directory,
            used: false,
        };
        let runtime_log = open_log(&prepared.directory.join("shim.log"))?;
        let mut child = tokio::process::Command::new(&config.shim)
            .args(&config.shim_args)
            .arg(&prepared.directory)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::from(runtime_log))
            .env_clear()
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            .kill_on_drop(false)
            .spawn()
            .map_err(spawn_error)?;
        // Shims end long after anybody holds a handle to them: somebody has to collect them.
        tokio::spawn(async move {
            let _ = child.wait().await;
        });
        Ok(prepared)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Has the container made. Returns its process and cgroup, and the directory, which is its from
    /// now on.
    pub(crate) async fn create(
        mut self,
        call: CreateCall,
    ) -> Result<(i32, Cgroup, PathBuf), RuntimeError> {
        match ask(&mut self.stream, Call::Create(call)).await? {
            Some(Reply::Created { pid, cgroup }) => {
                self.used = true;
                Ok((pid, cgroup, self.directory.clone()))
            }
            Some(other) => Err(RuntimeError::Protocol(format!("{other:?} to a create"))),
            None => Err(RuntimeError::Start {
                code: 128,
                message: format!(
                    "failed to create task for container: failed to create shim task: shim ended unexpectedly: {}: unknown",
                    last_words(&self.directory)
                ),
            }),
        }
    }
}

impl Drop for PreparedShim {
    fn drop(&mut self) {
        if !self.used {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn open_log(path: &Path) -> Result<std::fs::File, RuntimeError> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(RuntimeError::io("open", path))
}

fn into_tokio(fd: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// The end of what a shim wrote to its standard error before it died.
fn last_words(directory: &Path) -> String {
    let text = std::fs::read_to_string(directory.join("shim.log")).unwrap_or_default();
    let start = text.len().saturating_sub(1024);
    text.get(start..).unwrap_or_default().trim().to_owned()
}
