//! Finding everything again after the daemon ended, however it ended.

use std::sync::Arc;

use skep_runtime::{ExitStatus, Reconnected};

use crate::container::{Container, Phase, Record};
use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::restart::RestartTracker;
use crate::time::UnixNanos;

/// What Docker shows for a container whose end nobody saw.
const UNKNOWN_END: i32 = 255;

/// Loads the records, reconnects to running containers, notes the ends that came meanwhile,
/// removes what belongs to nobody, and restarts what shall run.
pub(crate) async fn restore(engine: &Arc<Engine>) -> Result<()> {
    let containers = load(engine)?;
    let mut running = Vec::new();
    let mut ended = Vec::new();
    for container in &containers {
        let was_up = container.record().state.is_up();
        match engine
            .runtime
            .reconnect(&container.id, &container.bundle())
            .await
        {
            Ok(Reconnected::Running(shim)) => running.push((container.clone(), shim, was_up)),
            Ok(Reconnected::Exited(status)) if was_up => ended.push((container.clone(), status)),
            Ok(Reconnected::Gone) if was_up => {
                let status = ExitStatus {
                    code: UNKNOWN_END,
                    oom_killed: false,
                    exited_at: UnixNanos::now().rfc3339(),
                    log_lines_dropped: 0,
                };
                ended.push((container.clone(), status));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(container.id = %container.id, %error, "cannot tell what became of a container");
                if was_up {
                    let status = ExitStatus {
                        code: UNKNOWN_END,
                        oom_killed: false,
                        exited_at: UnixNanos::now().rfc3339(),
                        log_lines_dropped: 0,
                    };
                    ended.push((container.clone(), status));
                }
            }
        }
    }
    end_stray_shims(engine).await;
    let active: Vec<String> = running
        .iter()
        .map(|(container, ..)| container.id.clone())
        .collect();
    let report = engine.networks.restore(&active).await;
    for problem in report.problems.iter().chain(&report.lost) {
        tracing::warn!(problem, "network state of an earlier daemon");
    }
    for (container, shim, was_up) in running {
        if was_up {
            adopt(engine, &container, shim);
        } else {
            // The daemon died in the middle of a start: nobody was told that it runs.
            if let Err(error) = shim.delete().await {
                tracing::error!(container.id = %container.id, %error, "interrupted start not undone");
            }
            engine.take_down(&container).await;
        }
    }
    for (container, status) in ended {
        record_end(engine, &container, status).await;
    }
    remove_strays(engine).await;
    restart_by_policy(engine);
    Ok(())
}

/// Ends the shims of containers of which there is no record any more.
async fn end_stray_shims(engine: &Engine) {
    let shims = engine.config.exec_root.join("shims");
    for entry in std::fs::read_dir(shims).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        let is_shim = entry.file_type().is_ok_and(|kind| kind.is_dir()) && id != "seccomp";
        if !is_shim || engine.containers.get(&id).is_ok() {
            continue;
        }
        let bundle = engine
            .config
            .data_root
            .join("containers")
            .join(&id)
            .join("bundle");
        let ended = match engine.runtime.reconnect(&id, &bundle).await {
            Ok(Reconnected::Running(shim)) => shim.delete().await,
            other => other.map(drop),
        };
        match ended {
            Ok(()) => tracing::warn!(container.id = %id, "ended a shim without a container"),
            Err(error) => {
                tracing::error!(container.id = %id, %error, "shim without a container not ended");
            }
        }
    }
}

fn load(engine: &Engine) -> Result<Vec<Arc<Container>>> {
    let root = engine.config.data_root.join("containers");
    let mut containers = Vec::new();
    for entry in std::fs::read_dir(&root)? {
        let dir = entry?.path();
        let record = match std::fs::read(dir.join("config.json")) {
            // A creation that never answered, or what a power cut left of a record that was not
            // flushed because its container would not have survived that either.
            Ok(bytes) if bytes.is_empty() => {
                let _ = std::fs::remove_dir_all(&dir);
                continue;
            }
            Ok(bytes) => serde_json::from_slice::<Record>(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let _ = std::fs::remove_dir_all(&dir);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match record {
            Ok(record) => {
                if let Err(error) = engine.containers.reserve(Some(&record.name), &record.id) {
                    tracing::error!(container.id = %record.id, %error, "container's name is taken");
                    continue;
                }
                let container = Arc::new(Container::new(record, dir));
                engine.containers.insert(container.clone());
                containers.push(container);
            }
            Err(error) => {
                tracing::error!(path = %dir.display(), %error, "unreadable container record");
            }
        }
    }
    Ok(containers)
}

fn adopt(engine: &Arc<Engine>, container: &Arc<Container>, shim: skep_runtime::Shim) {
    container.live().shim = Some(shim.clone());
    {
        let mut record = container.record();
        for name in record.volume_names() {
            engine.volumes.adopt(name, &record.id);
        }
        record.state.pid = shim.pid();
        let endpoints = engine.networks.endpoints(&record.id);
        if !endpoints.is_empty() {
            record.endpoints = endpoints
                .into_iter()
                .map(|endpoint| (endpoint.network_name.clone(), endpoint))
                .collect();
        }
    }
    engine.start_health_checks(container);
    engine.watch_exit(container, shim);
}

/// An end that came while no daemon ran. Whether it restarts is decided later, for all together.
async fn record_end(engine: &Arc<Engine>, container: &Arc<Container>, status: ExitStatus) {
    engine.take_down(container).await;
    let ran_for = {
        let mut record = container.record();
        let at = crate::exit::parse_time(&status.exited_at);
        let ran_for = at.since(record.state.started_at.unwrap_or(at));
        record
            .state
            .set_exited(status.code, status.oom_killed, at, false);
        ran_for
    };
    container.announce(|progress| progress.ends += 1);
    container.save_or_log();
    engine.container_event_with(
        container,
        "die",
        &[
            ("exitCode", status.code.to_string()),
            ("execDuration", ran_for.as_secs().to_string()),
        ],
    );
}

/// Half-removed containers, roots and mounts without a container.
async fn remove_strays(engine: &Arc<Engine>) {
    for container in engine.containers.all() {
        let (dead, up, auto_remove) = {
            let record = container.record();
            (
                record.state.phase == Phase::Dead,
                record.state.is_up(),
                record.host_config.auto_remove == Some(true) && record.ever_started,
            )
        };
        if dead || (!up && auto_remove) {
            let _operation = container.operation.lock().await;
            let options = crate::types::RemoveOptions {
                force: true,
                volumes: auto_remove,
                link: false,
            };
            if let Err(error) = engine.remove_locked(&container, options).await {
                tracing::error!(container.id = %container.id, %error, "half-removed container still there");
            }
        }
    }
    let (images, known) = (engine.images.clone(), engine.containers.all());
    let volumes = engine.volumes.clone();
    let shm = engine.config.exec_root.join("shm");
    let task_files = engine.config.exec_root.join("task-files");
    let result = blocking(move || {
        volumes.unmount_unused();
        let is_known = |id: &str| known.iter().any(|container| container.id == id);
        for id in images.rootfs_ids() {
            let up = known
                .iter()
                .any(|container| container.id == id && container.record().state.is_up());
            if up {
                continue;
            }
            let rootfs = images.open_rootfs(&id)?;
            let cleaned = if is_known(&id) {
                rootfs.unmount()
            } else {
                rootfs.remove()
            };
            if let Err(error) = cleaned {
                tracing::warn!(container.id = %id, %error, "left-over root file system");
            }
        }
        // A daemon that was killed while it started a container.
        for entry in std::fs::read_dir(task_files)
            .into_iter()
            .flatten()
            .flatten()
        {
            crate::task_files::clear(&entry.path());
        }
        for entry in std::fs::read_dir(shm).into_iter().flatten().flatten() {
            if !is_known(&entry.file_name().to_string_lossy()) {
                crate::shm::unmount(&entry.path());
            }
        }
        Ok(())
    })
    .await;
    if let Err(error) = result {
        tracing::warn!(%error, "left-overs of an earlier daemon not removed");
    }
}

/// Starts what its policy wants to run. In the background: the API is there meanwhile.
fn restart_by_policy(engine: &Arc<Engine>) {
    for container in engine.containers.all() {
        let wait = {
            let mut record = container.record();
            if record.state.is_up() || !record.ever_started {
                continue;
            }
            // "always" starts what was stopped by hand too; the others respect it.
            let always = record
                .host_config
                .restart_policy
                .as_ref()
                .and_then(|policy| policy.name)
                == Some(bollard_stubs::models::RestartPolicyNameEnum::ALWAYS);
            let stay_down = record.stopped_by_hand && !always;
            let mut tracker = RestartTracker::counted(record.restart_count);
            let ran_for = record
                .state
                .finished_at
                .map_or_else(Default::default, |end| {
                    end.since(record.state.started_at.unwrap_or(end))
                });
            let wait = tracker.next(
                record.host_config.restart_policy.as_ref(),
                record.state.exit_code,
                stay_down,
                ran_for,
            );
            if wait.is_some() {
                record.state.phase = Phase::Restarting;
            } else if record.state.phase == Phase::Restarting {
                record.state.phase = Phase::Exited;
            }
            wait
        };
        container.announce(|_| {});
        if wait.is_some() {
            engine.restart_later(&container, std::time::Duration::ZERO);
        }
    }
}
