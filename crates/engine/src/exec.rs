//! More processes in a running container.

use std::sync::Arc;

use bollard_stubs::models as m;
use futures::StreamExt as _;
use parking_lot::Mutex;
use skep_runtime::oci_spec::runtime::{Process, Spec};
use skep_runtime::{ExecControl, ExecRequest, RuntimeError, Shim};
use tokio_util::sync::CancellationToken;

use crate::container::{Container, Phase};
use crate::detach_keys::{self, Escapable};
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::names;
use crate::types::{Attach, ExecStart, Frame, Input, StdStream};

/// An exec: created, then started at most once.
pub(crate) struct ExecInstance {
    id: String,
    container: Arc<Container>,
    config: m::ExecConfig,
    detach_keys: Vec<u8>,
    state: Mutex<ExecState>,
}

#[derive(Default)]
struct ExecState {
    started: bool,
    running: bool,
    pid: i32,
    exit_code: Option<i32>,
    control: Option<ExecControl>,
}

impl ExecInstance {
    pub(crate) fn was_started(&self) -> bool {
        self.state.lock().started
    }

    pub(crate) fn container_id(&self) -> &str {
        &self.container.id
    }

    fn tty(&self) -> bool {
        self.config.tty.unwrap_or(false)
    }

    /// "exec_create: sh -c x", as the events name it.
    fn action(&self, verb: &str) -> String {
        format!(
            "{verb}: {}",
            self.config.cmd.as_deref().unwrap_or_default().join(" ")
        )
    }
}

impl Engine {
    /// Prepares an exec and returns its id.
    pub async fn create_exec(&self, id: &str, config: m::ExecConfig) -> Result<String> {
        let container = self.containers.get(id)?;
        check_running(&container, id)?;
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(EngineError::invalid("No exec command specified"));
        }
        let detach_keys = detach_keys::parse(config.detach_keys.as_deref())?;
        skep_runtime::cgroup::announce_join();
        let exec = Arc::new(ExecInstance {
            id: names::random_id(),
            container: container.clone(),
            config,
            detach_keys,
            state: Mutex::default(),
        });
        self.execs.lock().insert(exec.id.clone(), exec.clone());
        container.live().execs.insert(exec.id.clone(), exec.clone());
        self.container_event_with(
            &container,
            exec.action("exec_create"),
            &[("execID", exec.id.clone())],
        );
        Ok(exec.id.clone())
    }

    fn exec(&self, id: &str) -> Result<Arc<ExecInstance>> {
        let exec = self.execs.lock().get(id).cloned();
        exec.ok_or_else(|| EngineError::not_found(format!("No such exec instance: {id}")))
    }

    /// Starts it; `None` if nobody wants its streams.
    pub async fn start_exec(
        self: &Arc<Self>,
        exec_id: &str,
        options: ExecStart,
    ) -> Result<Option<Attach>> {
        let exec = self.exec(exec_id)?;
        check_running(&exec.container, exec.container_id())?;
        skep_runtime::cgroup::announce_join();
        {
            let mut state = exec.state.lock();
            if state.exit_code.is_some() || (state.started && !state.running) {
                return Err(EngineError::conflict(format!(
                    "Error: Exec command {exec_id} has already run"
                )));
            }
            if state.started {
                return Err(EngineError::conflict(format!(
                    "Error: Exec command {exec_id} is already running"
                )));
            }
            state.started = true;
            state.running = true;
        }
        match self.run_exec(&exec, &options).await {
            Ok(attach) => Ok((!options.detach).then_some(attach)),
            Err((error, code)) => {
                {
                    let mut state = exec.state.lock();
                    state.running = false;
                    state.exit_code = Some(code);
                }
                exec.container.live().execs.remove(&exec.id);
                Err(error)
            }
        }
    }

    async fn run_exec(
        self: &Arc<Self>,
        exec: &Arc<ExecInstance>,
        options: &ExecStart,
    ) -> std::result::Result<Attach, (EngineError, i32)> {
        let unknown = |error: EngineError| (error, 126);
        let shim = exec.container.shim().map_err(unknown)?;
        let process = self
            .exec_process(exec, &shim, options)
            .await
            .map_err(unknown)?;
        let attached = !options.detach;
        let config = &exec.config;
        let request = ExecRequest {
            id: exec.id.clone(),
            process,
            tty: exec.tty(),
            stdin: attached && config.attach_stdin.unwrap_or(false),
            stdout: attached && config.attach_stdout.unwrap_or(false),
            stderr: attached && config.attach_stderr.unwrap_or(false),
        };
        let stdin = request.stdin;
        let running = shim.exec(request).await.map_err(|error| match error {
            RuntimeError::Start { code, message } => {
                let kind = if matches!(code, 126 | 127) {
                    EngineError::invalid(message)
                } else {
                    EngineError::system(message)
                };
                (kind, code)
            }
            other => (EngineError::from(other), 126),
        })?;
        {
            let mut state = exec.state.lock();
            state.pid = running.pid;
            state.control = Some(running.control());
        }
        self.container_event_with(
            &exec.container,
            exec.action("exec_start"),
            &[("execID", exec.id.clone())],
        );
        let (attached, control) = running.into_parts();
        self.watch_exec(exec, control);

        let detached = CancellationToken::new();
        let left = detached.clone();
        let output = attached
            .output
            .filter_map(|item| async move { item.ok() })
            .map(|(stream, bytes)| Frame {
                stream: match stream {
                    skep_runtime::StdStream::Stdout => StdStream::Stdout,
                    skep_runtime::StdStream::Stderr => StdStream::Stderr,
                },
                bytes,
            })
            .take_until(async move { left.cancelled().await });
        let input = stdin.then(|| -> Input {
            let input: Input = Box::pin(attached.input);
            if exec.tty() {
                Box::pin(Escapable::new(input, exec.detach_keys.clone(), detached))
            } else {
                input
            }
        });
        Ok(Attach {
            tty: exec.tty(),
            input,
            output: output.boxed(),
        })
    }

    fn watch_exec(self: &Arc<Self>, exec: &Arc<ExecInstance>, control: ExecControl) {
        let (engine, exec) = (self.clone(), exec.clone());
        tokio::spawn(async move {
            let code = control.wait().await.map_or(137, |status| status.code);
            {
                let mut state = exec.state.lock();
                state.running = false;
                state.pid = 0;
                state.exit_code = Some(code);
                state.control = None;
            }
            exec.container.live().execs.remove(&exec.id);
            engine.container_event_with(
                &exec.container,
                "exec_die",
                &[("execID", exec.id.clone()), ("exitCode", code.to_string())],
            );
            engine.forget_exec_later(exec.id.clone());
        });
    }

    /// How an exec ended, once it has.
    pub(crate) async fn exec_exit(&self, id: &str) -> i32 {
        let Ok(exec) = self.exec(id) else { return 137 };
        let control = exec.state.lock().control.clone();
        if let Some(control) = control {
            return control.wait().await.map_or(137, |status| status.code);
        }
        let code = exec.state.lock().exit_code;
        code.unwrap_or(137)
    }

    /// Kills an exec's process if it still runs.
    pub(crate) fn end_exec(&self, id: &str) {
        let Ok(exec) = self.exec(id) else { return };
        let state = exec.state.lock();
        let pid = if state.running {
            rustix::process::Pid::from_raw(state.pid)
        } else {
            None
        };
        if let Some(pid) = pid {
            // It is still ours: its exit has not been collected.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// Ended execs can be inspected for a while, as in dockerd, which forgets them after minutes.
    fn forget_exec_later(self: &Arc<Self>, id: String) {
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_secs(300)).await;
            if let Some(engine) = engine.upgrade() {
                engine.execs.lock().remove(&id);
            }
        });
    }

    /// The container's own process, with what the exec says in its place.
    async fn exec_process(
        &self,
        exec: &Arc<ExecInstance>,
        shim: &Shim,
        options: &ExecStart,
    ) -> Result<Process> {
        let record = exec.container.record().clone();
        let config = exec.config.clone();
        let spec_path = exec.container.bundle().join("config.json");
        let pid = shim.pid();
        let tty = exec.tty();
        let links = self.link_variables(&record);
        let size = options
            .console_size
            .or_else(|| match config.console_size.as_deref() {
                Some(&[rows, columns]) => {
                    Some((u16::try_from(rows).ok()?, u16::try_from(columns).ok()?))
                }
                _ => None,
            });
        blocking(move || {
            let mut process = container_process(&spec_path)?;
            let root = std::path::PathBuf::from(format!("/proc/{pid}/root"));
            let given = config.user.as_deref().filter(|user| !user.is_empty());
            let user = given.or(record.config.user.as_deref()).unwrap_or_default();
            let groups = record.host_config.group_add.clone().unwrap_or_default();
            let user = crate::oci::resolve(&root, user, &groups)?;
            let hostname = record.config.hostname.as_deref().unwrap_or_default();
            let mut env = crate::oci::environment(record.config.env.as_ref(), hostname, tty, links);
            env = crate::oci::replace_or_append(env, config.env.iter().flatten());
            if !env.iter().any(|variable| variable.starts_with("HOME=")) {
                env.push(format!("HOME={}", user.home));
            }
            let own = record.config.working_dir.as_deref();
            // The CLI sends an empty one for none.
            let given = |dir: &&str| !dir.is_empty();
            let asked = config.working_dir.as_deref().filter(given);
            let cwd = asked.or(own.filter(given)).unwrap_or("/");
            process.set_args(config.cmd.clone());
            process.set_env(Some(env));
            process.set_cwd(cwd.into());
            process.set_terminal(Some(tty));
            set_identity(&mut process, &user, config.privileged == Some(true))?;
            let size =
                size.map(|(rows, columns)| serde_json::json!({ "height": rows, "width": columns }));
            process.set_console_size(size.and_then(|size| serde_json::from_value(size).ok()));
            Ok(process)
        })
        .await
    }

    /// Sets the size of an exec's terminal.
    pub async fn resize_exec(&self, exec_id: &str, height: u16, width: u16) -> Result<()> {
        let exec = self.exec(exec_id)?;
        let control = exec.state.lock().control.clone();
        let Some(control) = control else {
            return Err(EngineError::conflict(format!(
                "exec {exec_id} is not running"
            )));
        };
        Ok(control.resize(height, width).await?)
    }

    /// An exec's state.
    pub async fn inspect_exec(&self, exec_id: &str) -> Result<m::ExecInspectResponse> {
        let exec = self.exec(exec_id)?;
        let config = &exec.config;
        let state = exec.state.lock();
        let command = config.cmd.as_deref().unwrap_or_default();
        Ok(m::ExecInspectResponse {
            can_remove: Some(false),
            detach_keys: config.detach_keys.clone(),
            id: Some(exec.id.clone()),
            running: Some(state.running),
            exit_code: state.exit_code.map(i64::from),
            process_config: Some(m::ProcessConfig {
                privileged: Some(config.privileged.unwrap_or(false)),
                user: config.user.clone(),
                tty: Some(exec.tty()),
                entrypoint: command.first().cloned(),
                arguments: Some(command.iter().skip(1).cloned().collect()),
            }),
            open_stdin: Some(config.attach_stdin.unwrap_or(false)),
            open_stderr: Some(config.attach_stderr.unwrap_or(false)),
            open_stdout: Some(config.attach_stdout.unwrap_or(false)),
            container_id: Some(exec.container.id.clone()),
            pid: Some(i64::from(state.pid)),
        })
    }
}

/// An exec needs a container that runs and is not frozen.
fn check_running(container: &Container, name: &str) -> Result<()> {
    match container.record().state.phase {
        Phase::Running => Ok(()),
        Phase::Paused => Err(EngineError::conflict(format!(
            "Container {name} is paused, unpause the container before exec"
        ))),
        Phase::Restarting => Err(EngineError::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        Phase::Created | Phase::Exited | Phase::Dead => Err(container.not_running()),
    }
}

fn container_process(path: &std::path::Path) -> Result<Process> {
    let bytes = std::fs::read(path)
        .map_err(|error| EngineError::from_source("read the container's spec", &error))?;
    let spec: Spec = serde_json::from_slice(&bytes)
        .map_err(|error| EngineError::from_source("read the container's spec", &error))?;
    spec.process()
        .clone()
        .ok_or_else(|| EngineError::system("the container's spec has no process"))
}

fn set_identity(
    process: &mut Process,
    user: &crate::oci::ResolvedUser,
    privileged: bool,
) -> Result<()> {
    let capabilities = process.capabilities().as_ref();
    let bounding = capabilities
        .and_then(|sets| sets.bounding().clone())
        .map(serde_json::to_value);
    let bounding = if privileged {
        serde_json::json!(skep_runtime::spec::available_capabilities())
    } else {
        bounding
            .and_then(std::result::Result::ok)
            .unwrap_or(serde_json::Value::Null)
    };
    // Who is not root starts with nothing but the bounding set.
    let active = if user.uid == 0 {
        bounding.clone()
    } else {
        serde_json::Value::Null
    };
    let sets = serde_json::json!({
        "bounding": bounding, "effective": active, "permitted": active, "inheritable": null, "ambient": null,
    });
    let sets = serde_json::from_value(sets)
        .map_err(|error| EngineError::system(format!("capabilities of the exec: {error}")))?;
    process.set_capabilities(Some(sets));
    let own = process.user_mut();
    own.set_uid(user.uid);
    own.set_gid(user.gid);
    own.set_additional_gids(Some(user.groups.clone()));
    Ok(())
}
