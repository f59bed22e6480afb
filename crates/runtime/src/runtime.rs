//! Making containers and finding them again.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::net::UnixStream;

use crate::cgroup::Cgroup;
use crate::connection::{ask, connect};
use crate::error::RuntimeError;
use crate::exit::{EXIT_FILE, ExitStatus};
use crate::handle::{Shim, ShimInner};
use crate::prepare;
use crate::protocol::{Call, CreateCall, Reply, STATE_FILE, ShimState};
use crate::request::{CreateRequest, RuntimeConfig, RuntimeKind};
use crate::seccomp::ProgramCache;

/// Makes containers, one shim process each. Cheap to clone; dropping it touches no container.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<RuntimeInner>,
}

#[derive(Debug)]
struct RuntimeInner {
    config: RuntimeConfig,
    programs: Arc<ProgramCache>,
}

/// What became of a container while nobody looked.
#[derive(Debug)]
pub enum Reconnected {
    /// The shim answers; the container may be created, running or just ending.
    Running(Shim),
    /// It ended; what it left has been cleaned up.
    Exited(ExitStatus),
    /// No shim and no record: killed from outside, or the machine was rebooted. Processes that a
    /// killed shim left behind have been killed, their cgroup is removed.
    Gone,
}

impl Runtime {
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let programs = config.exec_root.join("seccomp");
        std::fs::create_dir_all(&programs).map_err(RuntimeError::io("create", &programs))?;
        Ok(Self {
            inner: Arc::new(RuntimeInner {
                programs: Arc::new(ProgramCache::new(programs)),
                config,
            }),
        })
    }

    /// Makes the container up to the point where only its own program is missing. Nothing is left of
    /// it if this fails.
    pub async fn create(&self, request: CreateRequest) -> Result<Shim, RuntimeError> {
        let directory = self.directory(&request.id)?;
        if connect(&directory).await?.is_some() {
            return Err(RuntimeError::Refused(format!(
                "container {} exists already",
                request.id
            )));
        }
        discard_leftovers(&directory).await?;
        let created = self.create_in(&directory, request).await;
        if created.is_err() {
            let _ = std::fs::remove_dir_all(&directory);
        }
        created
    }

    async fn create_in(
        &self,
        directory: &Path,
        request: CreateRequest,
    ) -> Result<Shim, RuntimeError> {
        std::fs::create_dir_all(directory).map_err(RuntimeError::io("create", directory))?;
        std::fs::create_dir_all(&request.bundle)
            .map_err(RuntimeError::io("create", &request.bundle))?;
        let stale = request.bundle.join(EXIT_FILE);
        match std::fs::remove_file(&stale) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(RuntimeError::io("remove", stale)(error));
            }
            _ => {}
        }
        let (call, exec_defaults) = prepare::container(&self.inner.programs, directory, request)?;
        let (bundle, id, kind) = (call.bundle.clone(), call.id.clone(), call.runtime.clone());
        let (pid, cgroup) = self.spawn_shim(directory, call).await?;
        Ok(Shim::new(ShimInner {
            id,
            bundle,
            directory: directory.to_owned(),
            pid,
            cgroup,
            kind,
            exec_defaults,
        }))
    }

    /// Starts the shim process with one end of a socket pair as its standard input; the first and only
    /// request on it is the creation, so there is no moment at which we would wait for a socket file.
    async fn spawn_shim(
        &self,
        directory: &Path,
        call: CreateCall,
    ) -> Result<(i32, Cgroup), RuntimeError> {
        let spawn_error = |source| RuntimeError::Spawn {
            shim: self.inner.config.shim.clone(),
            source,
        };
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|errno| spawn_error(errno.into()))?;
        let runtime_log = open_log(&directory.join("shim.log"))?;
        let mut child = tokio::process::Command::new(&self.inner.config.shim)
            .args(&self.inner.config.shim_args)
            .arg(directory)
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
        let mut stream = into_tokio(ours).map_err(spawn_error)?;
        match ask(&mut stream, Call::Create(call)).await? {
            Some(Reply::Created { pid, cgroup }) => Ok((pid, cgroup)),
            Some(other) => Err(RuntimeError::Protocol(format!("{other:?} to a create"))),
            None => Err(RuntimeError::Start {
                code: 128,
                message: format!(
                    "failed to create task for container: failed to create shim task: shim ended unexpectedly: {}: unknown",
                    last_words(directory)
                ),
            }),
        }
    }

    /// Finds a container again after a restart of the daemon.
    pub async fn reconnect(&self, id: &str, bundle: &Path) -> Result<Reconnected, RuntimeError> {
        let directory = self.directory(id)?;
        if let Some(mut stream) = connect(&directory).await?
            && let Some(Reply::Status(status)) = ask(&mut stream, Call::Status).await?
        {
            return Ok(Reconnected::Running(Shim::new(ShimInner {
                id: id.to_owned(),
                bundle: bundle.to_owned(),
                exec_defaults: prepare::stored_exec_defaults(&directory)?,
                directory,
                pid: status.pid,
                cgroup: status.cgroup,
                kind: status.runtime,
            })));
        }
        let exit =
            ExitStatus::read(bundle).map_err(RuntimeError::io("read exit status in", bundle))?;
        discard_leftovers(&directory).await?;
        Ok(exit.map_or(Reconnected::Gone, Reconnected::Exited))
    }

    fn directory(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        let fits = !id.is_empty()
            && id != "seccomp"
            && !id.starts_with('.')
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if fits {
            Ok(self.inner.config.exec_root.join(id))
        } else {
            Err(RuntimeError::InvalidId(id.to_owned()))
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

/// Ends and removes whatever a shim that no longer lives has left: processes, cgroup, directory.
pub(crate) async fn discard_leftovers(directory: &Path) -> Result<(), RuntimeError> {
    let state = match std::fs::read(directory.join(STATE_FILE)) {
        Ok(bytes) => serde_json::from_slice::<ShimState>(&bytes).ok(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(RuntimeError::io("read the state in", directory)(error)),
    };
    if let Some(state) = state {
        state.cgroup.destroy().await?;
        if let RuntimeKind::Oci { path, args } = &state.runtime {
            let id = directory.file_name().unwrap_or_default().to_string_lossy();
            let client = crate::oci::OciClient::new(path, args, directory, &id);
            // It may know nothing of the container any more; then there is nothing to delete.
            if let Err(error) = client.delete_async().await {
                tracing::debug!(container.id = %id, %error, "nothing to delete in the OCI runtime");
            }
        }
    }
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RuntimeError::io("remove", directory)(error))
        }
        _ => Ok(()),
    }
}
