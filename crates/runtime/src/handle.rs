//! The daemon's handle to a container.

use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::runtime::LinuxResources;
use tokio::net::UnixStream;

use crate::attached::Attached;
use crate::cgroup::{Cgroup, Stats};
use crate::connection::{ask, connect};
use crate::error::RuntimeError;
use crate::exit::ExitStatus;
use crate::oci::OciClient;
use crate::prepare::{self, ExecDefaults};
use crate::protocol::{Call, Reply};
use crate::request::{AttachRequest, ExecRequest, RuntimeKind};
use crate::runtime::discard_leftovers;

/// A container and its shim. Cheap to clone; dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Shim {
    inner: Arc<ShimInner>,
}

#[derive(Debug)]
pub(crate) struct ShimInner {
    pub id: String,
    pub bundle: PathBuf,
    pub directory: PathBuf,
    pub pid: i32,
    pub cgroup: Cgroup,
    pub kind: RuntimeKind,
    pub exec_defaults: ExecDefaults,
}

/// A process started by [`Shim::exec`].
#[derive(Debug)]
pub struct Exec {
    pub id: String,
    /// As the host sees it.
    pub pid: i32,
    /// The streams asked for; without any, `output` just ends with the process.
    pub attached: Attached,
    control: ExecControl,
}

/// Resizes and waits for an exec; may be cloned and kept apart from its streams.
#[derive(Debug, Clone)]
pub struct ExecControl {
    shim: Shim,
    id: String,
}

impl Shim {
    pub(crate) fn new(inner: ShimInner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The container's first process, as the host sees it.
    pub fn pid(&self) -> i32 {
        self.inner.pid
    }

    /// The container's cgroup, for those who read more than [`Self::stats`] gives.
    pub fn cgroup(&self) -> &Cgroup {
        &self.inner.cgroup
    }

    /// Lets the program run.
    pub async fn start(&self) -> Result<(), RuntimeError> {
        match self.oci() {
            Some(client) => {
                client.run(&["start"], &[]).await?;
                // The shim only takes note of it; a container may be over before it can.
                match self.done(Call::Start).await {
                    Err(RuntimeError::Gone(_)) => Ok(()),
                    other => other,
                }
            }
            None => self.done(Call::Start).await,
        }
    }

    /// Signals the container's first process. A process that has ended already is no error.
    pub async fn kill(&self, signal: i32) -> Result<(), RuntimeError> {
        match self.done(Call::Kill { signal }).await {
            Err(RuntimeError::Gone(_)) => Ok(()),
            other => other,
        }
    }

    pub async fn pause(&self) -> Result<(), RuntimeError> {
        match self.oci() {
            Some(client) => client.run(&["pause"], &[]).await,
            None => Ok(self.inner.cgroup.freeze().await?),
        }
    }

    pub async fn resume(&self) -> Result<(), RuntimeError> {
        match self.oci() {
            Some(client) => client.run(&["resume"], &[]).await,
            None => Ok(self.inner.cgroup.thaw().await?),
        }
    }

    /// Sets the size of the container's terminal.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), RuntimeError> {
        self.done(Call::Resize {
            exec: None,
            rows,
            columns,
        })
        .await
    }

    /// Changes limits; fields that are `None` stay as they are.
    pub async fn update(&self, resources: &LinuxResources) -> Result<(), RuntimeError> {
        match self.oci() {
            Some(client) => client.update(resources).await,
            None => Ok(self.inner.cgroup.update(resources)?),
        }
    }

    /// All processes of the container, execs included, as the host sees them.
    pub fn pids(&self) -> Result<Vec<i32>, RuntimeError> {
        Ok(self.inner.cgroup.pids()?)
    }

    pub fn stats(&self) -> Result<Stats, RuntimeError> {
        Ok(self.inner.cgroup.stats()?)
    }

    /// Joins the container's streams. What was attached before `start` misses no output.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attached, RuntimeError> {
        let mut stream = self.connect().await?;
        match ask(&mut stream, Call::Attach(request)).await? {
            Some(Reply::Done) => Ok(Attached::new(stream)),
            Some(other) => Err(unexpected(&other)),
            None => Err(self.gone()),
        }
    }

    /// Ends the container's standard input for good.
    pub async fn close_stdin(&self) -> Result<(), RuntimeError> {
        self.done(Call::CloseStdin).await
    }

    /// Runs one more process in the container. When this returns it is running, or the error says why
    /// it cannot.
    pub async fn exec(&self, request: ExecRequest) -> Result<Exec, RuntimeError> {
        let id = request.id.clone();
        let call = prepare::exec(&self.inner, request)?;
        let process = call.process.clone();
        let started = self.start_exec(call).await;
        let _ = std::fs::remove_file(process);
        let (pid, stream) = started?;
        Ok(Exec {
            id: id.clone(),
            pid,
            attached: Attached::new(stream),
            control: ExecControl {
                shim: self.clone(),
                id,
            },
        })
    }

    async fn start_exec(
        &self,
        call: crate::protocol::ExecCall,
    ) -> Result<(i32, UnixStream), RuntimeError> {
        let mut stream = self.connect().await?;
        match ask(&mut stream, Call::Exec(call)).await? {
            Some(Reply::Pid(pid)) => Ok((pid, stream)),
            Some(other) => Err(unexpected(&other)),
            None => Err(self.gone()),
        }
    }

    /// How the container ended, once it has; answers also when that was long ago. If the shim itself
    /// was killed, the container's remaining processes are killed and 137 is reported.
    pub async fn wait(&self) -> Result<ExitStatus, RuntimeError> {
        if let Some(mut stream) = connect(&self.inner.directory).await?
            && let Some(Reply::Exited(status)) = ask(&mut stream, Call::Wait).await?
        {
            return Ok(status);
        }
        if let Some(status) = self.recorded_exit()? {
            return Ok(status);
        }
        tracing::error!(container.id = %self.inner.id, "the shim is gone; ending its container");
        self.inner.cgroup.destroy().await?;
        let status = ExitStatus {
            code: 137,
            oom_killed: false,
            exited_at: crate::clock::now_rfc3339(),
            log_lines_dropped: 0,
        };
        status
            .write(&self.inner.bundle, false)
            .map_err(RuntimeError::io("record the exit in", &self.inner.bundle))?;
        Ok(status)
    }

    /// Waits until the kernel has killed more than `seen` processes of the container for memory and
    /// returns how many it were; `None` once the container has ended.
    pub async fn wait_oom(&self, seen: u64) -> Result<Option<u64>, RuntimeError> {
        let Some(mut stream) = connect(&self.inner.directory).await? else {
            return Ok(None);
        };
        match ask(&mut stream, Call::WaitOom { seen }).await? {
            Some(Reply::OomKills(count)) => Ok(Some(count)),
            _ => Ok(None),
        }
    }

    /// Removes every trace outside the bundle. A container that still runs is killed.
    pub async fn delete(&self) -> Result<(), RuntimeError> {
        if let Some(mut stream) = connect(&self.inner.directory).await? {
            // Answered, or hung up because it was ending anyway: gone when the connection closes.
            ask(&mut stream, Call::Delete).await?;
            let mut rest = [0; 1];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await;
        }
        self.inner.cgroup.destroy().await?;
        discard_leftovers(&self.inner.directory).await
    }

    fn recorded_exit(&self) -> Result<Option<ExitStatus>, RuntimeError> {
        ExitStatus::read(&self.inner.bundle)
            .map_err(RuntimeError::io("read exit status in", &self.inner.bundle))
    }

    fn oci(&self) -> Option<OciClient> {
        match &self.inner.kind {
            RuntimeKind::Builtin => None,
            RuntimeKind::Oci { path, args } => Some(OciClient::new(
                path,
                args,
                &self.inner.directory,
                &self.inner.id,
            )),
        }
    }

    fn gone(&self) -> RuntimeError {
        RuntimeError::Gone(self.inner.id.clone())
    }

    async fn connect(&self) -> Result<UnixStream, RuntimeError> {
        connect(&self.inner.directory)
            .await?
            .ok_or_else(|| self.gone())
    }

    async fn done(&self, call: Call) -> Result<(), RuntimeError> {
        let mut stream = self.connect().await?;
        match ask(&mut stream, call).await? {
            Some(Reply::Done) => Ok(()),
            Some(other) => Err(unexpected(&other)),
            None => Err(self.gone()),
        }
    }
}

impl Exec {
    /// Takes the streams and the control apart.
    pub fn into_parts(self) -> (Attached, ExecControl) {
        (self.attached, self.control)
    }

    pub fn control(&self) -> ExecControl {
        self.control.clone()
    }

    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), RuntimeError> {
        self.control.resize(rows, columns).await
    }

    pub async fn wait(&self) -> Result<ExitStatus, RuntimeError> {
        self.control.wait().await
    }
}

impl ExecControl {
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), RuntimeError> {
        self.shim
            .done(Call::Resize {
                exec: Some(self.id.clone()),
                rows,
                columns,
            })
            .await
    }

    /// How the process ended. When the whole container has ended meanwhile and took the answer with
    /// it, that is 137.
    pub async fn wait(&self) -> Result<ExitStatus, RuntimeError> {
        if let Some(mut stream) = connect(&self.shim.inner.directory).await?
            && let Some(Reply::Exited(status)) = ask(
                &mut stream,
                Call::ExecWait {
                    id: self.id.clone(),
                },
            )
            .await?
        {
            return Ok(status);
        }
        Ok(ExitStatus {
            code: 137,
            oom_killed: false,
            exited_at: crate::clock::now_rfc3339(),
            log_lines_dropped: 0,
        })
    }
}

fn unexpected(reply: &Reply) -> RuntimeError {
    RuntimeError::Protocol(format!("{reply:?}"))
}
