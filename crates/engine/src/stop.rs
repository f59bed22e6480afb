//! Stopping, killing, restarting, pausing.

use std::sync::Arc;
use std::time::Duration;

use crate::container::{Container, Phase, Record};
use crate::engine::{Engine, to_its_end};
use crate::error::{EngineError, Result};
use crate::signal;
use crate::types::StopOptions;

/// An option's text, if there is one; refused if it is no signal.
fn check_signal(options: &StopOptions) -> Result<()> {
    given(options.signal.as_deref()).map_or(Ok(()), |text| signal::parse(text).map(drop))
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// How long the end after SIGKILL may take: the kernel has to tear the processes down.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Waits for an end after the `ends`th.
async fn next_end(container: &Container, ends: u64) {
    let mut progress = container.progress.subscribe();
    // It only fails when the container is gone, which is an end too.
    let _ = progress
        .wait_for(|progress| progress.ends > ends || progress.removed)
        .await;
}

async fn end_after_kill(container: &Container, ends: u64) -> Result<()> {
    let ended = tokio::time::timeout(KILL_LIMIT, next_end(container, ends)).await;
    ended.map_err(|_| {
        EngineError::system("tried to kill container, but did not receive an exit event")
    })
}

fn own_signal(record: &Record) -> i32 {
    given(record.config.stop_signal.as_deref())
        .and_then(|text| signal::parse(text).ok())
        .unwrap_or(signal::TERM)
}

impl Engine {
    /// Stops a container: its stop signal, a while, then SIGKILL. Not modified if it is down.
    pub async fn stop_container(self: &Arc<Self>, id: &str, options: StopOptions) -> Result<()> {
        let container = self.containers.get(id)?;
        check_signal(&options)?;
        if !container.record().state.is_running() {
            return Err(EngineError::not_modified("container is already stopped"));
        }
        let engine = self.clone();
        let name = id.to_owned();
        to_its_end(async move {
            engine
                .stop_running(&container, options)
                .await
                .map_err(|error| error.context(format!("cannot stop container: {name}")))
        })
        .await
    }

    /// Seconds a container gets before SIGKILL: its own, or the daemon's for all.
    pub(crate) fn grace_of(&self, record: &Record) -> i64 {
        let default = self.reloadable.read().default_stop_timeout;
        record.config.stop_timeout.unwrap_or(default)
    }

    pub(crate) async fn stop_running(
        self: &Arc<Self>,
        container: &Arc<Container>,
        options: StopOptions,
    ) -> Result<()> {
        if self.cancel_restart(container).await {
            self.container_event(container, "stop");
            return Ok(());
        }
        let (stop_signal, timeout) = {
            let record = container.record();
            let asked = given(options.signal.as_deref());
            let stop_signal = asked.map_or(Ok(own_signal(&record)), signal::parse)?;
            (
                stop_signal,
                options.timeout.unwrap_or_else(|| self.grace_of(&record)),
            )
        };
        let ends = container.progress.borrow().ends;
        let Ok(shim) = container.shim() else {
            return Ok(());
        };
        if !self.is_stopping() {
            container.record().stopped_by_hand = true;
            container.save_or_log();
        }
        self.container_event_with(container, "kill", &[("signal", stop_signal.to_string())]);
        shim.kill(stop_signal).await?;
        if container.record().state.phase == Phase::Paused {
            // A frozen process cannot react to anything.
            let _ = shim.resume().await;
        }
        let ended = next_end(container, ends);
        let in_time = if let Ok(grace) = u64::try_from(timeout) {
            let grace = Duration::from_secs(grace);
            tokio::time::timeout(grace, ended).await.is_ok()
        } else {
            // Less than nothing is for ever.
            ended.await;
            true
        };
        if !in_time {
            self.container_event_with(container, "kill", &[("signal", signal::KILL.to_string())]);
            shim.kill(signal::KILL).await?;
            end_after_kill(container, ends).await?;
        }
        self.container_event(container, "stop");
        Ok(())
    }

    /// If the container only waits to be restarted, that wait ends and it stays down.
    async fn cancel_restart(&self, container: &Arc<Container>) -> bool {
        if container.record().state.phase != Phase::Restarting {
            return false;
        }
        if let Some(wait) = container.live().restart_wait.take() {
            wait.cancel();
        }
        let _operation = container.operation.lock().await;
        {
            let mut record = container.record();
            if record.state.phase != Phase::Restarting {
                return false;
            }
            record.state.phase = Phase::Exited;
            record.stopped_by_hand = true;
        }
        container.save_or_log();
        container.announce(|progress| progress.exits += 1);
        true
    }

    /// Sends a signal; with SIGKILL (the default) also waits for the end.
    pub async fn kill_container(self: &Arc<Self>, id: &str, signal: Option<&str>) -> Result<()> {
        let number = given(signal).map_or(Ok(signal::KILL), signal::parse)?;
        let container = self.containers.get(id)?;
        let engine = self.clone();
        to_its_end(async move { engine.kill(&container, number).await }).await
    }

    pub(crate) async fn kill(
        self: &Arc<Self>,
        container: &Arc<Container>,
        number: i32,
    ) -> Result<()> {
        if number == signal::KILL && self.cancel_restart(container).await {
            return Ok(());
        }
        if container.record().state.phase == Phase::Restarting {
            return Err(EngineError::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        let ends = container.progress.borrow().ends;
        let shim = container.shim()?;
        let paused = {
            let mut record = container.record();
            let custom = given(record.config.stop_signal.as_deref()).is_some();
            let stops = number == signal::KILL || !custom || own_signal(&record) == number;
            if stops && !self.is_stopping() {
                record.stopped_by_hand = true;
            }
            stops && record.state.phase == Phase::Paused
        };
        container.save_or_log();
        shim.kill(number).await?;
        if paused {
            let _ = shim.resume().await;
        }
        self.container_event_with(container, "kill", &[("signal", number.to_string())]);
        if number == signal::KILL {
            end_after_kill(container, ends).await?;
        }
        Ok(())
    }

    /// Stops it if it runs, and starts it.
    pub async fn restart_container(self: &Arc<Self>, id: &str, options: StopOptions) -> Result<()> {
        let container = self.containers.get(id)?;
        check_signal(&options)?;
        let engine = self.clone();
        let name = id.to_owned();
        to_its_end(async move {
            engine
                .restart(&container, options)
                .await
                .map_err(|error| error.context(format!("Cannot restart container {name}")))
        })
        .await
    }

    async fn restart(
        self: &Arc<Self>,
        container: &Arc<Container>,
        options: StopOptions,
    ) -> Result<()> {
        if container.record().state.is_running() {
            container.live().restarting_by_hand = true;
            let stopped = self.stop_running(container, options).await;
            if let Err(error) = stopped {
                container.live().restarting_by_hand = false;
                return Err(error);
            }
        }
        let _operation = container.operation.lock().await;
        container.live().restarting_by_hand = false;
        if container.record().state.is_running() {
            // Somebody else started it meanwhile: it has been restarted.
            return Ok(());
        }
        container.record().stopped_by_hand = false;
        container.live().restarts = Default::default();
        self.start_locked(container).await?;
        self.container_event(container, "restart");
        Ok(())
    }

    /// Freezes all of a container's processes.
    pub async fn pause_container(&self, id: &str) -> Result<()> {
        let container = self.containers.get(id)?;
        let _operation = container.operation.lock().await;
        match container.record().state.phase {
            Phase::Paused => {
                return Err(EngineError::conflict(format!(
                    "container {} is already paused",
                    container.id
                )));
            }
            Phase::Restarting => {
                return Err(EngineError::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {}
        }
        let shim = container.shim()?;
        shim.pause().await.map_err(|error| {
            EngineError::from(error).context(format!("cannot pause container {}", container.id))
        })?;
        container.record().state.phase = Phase::Paused;
        container.save_or_log();
        self.container_event(&container, "pause");
        Ok(())
    }

    /// Lets them run on.
    pub async fn unpause_container(&self, id: &str) -> Result<()> {
        let container = self.containers.get(id)?;
        let _operation = container.operation.lock().await;
        if container.record().state.phase != Phase::Paused {
            return Err(EngineError::conflict(format!(
                "Container {} is not paused",
                container.id
            )));
        }
        let shim = container.shim()?;
        shim.resume().await.map_err(|error| {
            EngineError::from(error).context(format!("cannot unpause container {}", container.id))
        })?;
        container.record().state.phase = Phase::Running;
        container.save_or_log();
        self.container_event(&container, "unpause");
        Ok(())
    }
}
