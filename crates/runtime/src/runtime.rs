//! Making containers and finding them again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::connection::{ask, connect};
use crate::error::RuntimeError;
use crate::exit::{EXIT_FILE, ExitStatus};
use crate::handle::{Shim, ShimInner};
use crate::prepare;
use crate::prepared::PreparedShim;
use crate::protocol::{Call, Reply, STATE_FILE, ShimState};
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

    /// Starts the shim of a container that will be created. It needs nothing of the container, so it can
    /// be on its way while the root file system and the network are made.
    pub async fn prepare(&self, id: &str) -> Result<PreparedShim, RuntimeError> {
        let directory = self.directory(id)?;
        if connect(&directory).await?.is_some() {
            return Err(RuntimeError::Refused(format!(
                "container {id} exists already"
            )));
        }
        discard_leftovers(&directory).await?;
        std::fs::create_dir_all(&directory).map_err(RuntimeError::io("create", &directory))?;
        PreparedShim::spawn(&self.inner.config, directory)
    }

    /// Makes the container up to the point where only its own program is missing. Nothing is left of
    /// it if this fails.
    pub async fn create(&self, request: CreateRequest) -> Result<Shim, RuntimeError> {
        let prepared = self.prepare(&request.id).await?;
        self.create_in(prepared, request).await
    }

    /// [`Self::create`] with a shim that was started before.
    pub async fn create_in(
        &self,
        prepared: PreparedShim,
        request: CreateRequest,
    ) -> Result<Shim, RuntimeError> {
        if self.directory(&request.id)? != prepared.directory() {
            return Err(RuntimeError::Refused(format!(
                "the shim was not prepared for container {}",
                request.id
            )));
        }
        std::fs::create_dir_all(&request.bundle)
            .map_err(RuntimeError::io("create", &request.bundle))?;
        let stale = request.bundle.join(EXIT_FILE);
        match std::fs::remove_file(&stale) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(RuntimeError::io("remove", stale)(error));
            }
            _ => {}
        }
        let (call, exec_defaults) =
            prepare::container(&self.inner.programs, prepared.directory(), request)?;
        let (bundle, id, kind) = (call.bundle.clone(), call.id.clone(), call.runtime.clone());
        let (pid, cgroup, directory) = prepared.create(call).await?;
        Ok(Shim::new(ShimInner {
            id,
            bundle,
            directory,
            pid,
            cgroup,
            kind,
            exec_defaults,
        }))
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
