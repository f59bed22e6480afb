//! The end of a container's process, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use skep_runtime::{ExitStatus, Shim};
use tokio_util::sync::CancellationToken;

use crate::container::{Container, Phase};
use crate::engine::{Engine, blocking};
use crate::time::UnixNanos;
use crate::types::RemoveOptions;

impl Engine {
    /// Waits for the end in the background.
    pub(crate) fn watch_exit(self: &Arc<Self>, container: &Arc<Container>, shim: Shim) {
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let mut seen = 0;
            let status = {
                let end = shim.wait();
                tokio::pin!(end);
                loop {
                    tokio::select! {
                        status = &mut end => break status,
                        count = shim.wait_oom(seen) => match count {
                            Ok(Some(count)) => {
                                seen = count;
                                container.record().state.oom_killed = true;
                                engine.container_event(&container, "oom");
                            }
                            _ => break end.await,
                        },
                    }
                }
            };
            let status = status.unwrap_or_else(|error| {
                tracing::error!(container.id = %container.id, %error, "lost sight of a container");
                ExitStatus {
                    code: 137,
                    oom_killed: false,
                    exited_at: UnixNanos::now().rfc3339(),
                    log_lines_dropped: 0,
                }
            });
            if status.oom_killed && seen == 0 {
                // The kill that ended the container is told with its end.
                engine.container_event(&container, "oom");
            }
            engine.handle_exit(&container, Some(shim), status).await;
        });
    }

    /// Cleans up, tells everybody, and restarts or removes it if that is due.
    pub(crate) async fn handle_exit(
        self: &Arc<Self>,
        container: &Arc<Container>,
        shim: Option<Shim>,
        status: ExitStatus,
    ) {
        let _operation = container.operation.lock().await;
        let by_hand = container.live().restarting_by_hand;
        let remove = !by_hand
            && !self.is_stopping()
            && container.record().host_config.auto_remove == Some(true);
        let delete_shim = async {
            if let Some(shim) = &shim
                && let Err(error) = shim.delete().await
            {
                tracing::warn!(container.id = %container.id, %error, "shim not removed");
            }
        };
        // The root of a container that is removed now is unmounted with its removal.
        let unmount = async {
            if !remove {
                self.unmount_root(container).await;
            }
        };
        tokio::join!(unmount, self.disconnect(container), delete_shim);

        let exited_at = parse_time(&status.exited_at);
        let (restart_in, ran_for) = {
            let mut record = container.record();
            let ran_for = exited_at.since(record.state.started_at.unwrap_or(exited_at));
            let stay_down = record.stopped_by_hand || by_hand || self.is_stopping();
            let policy = record.host_config.restart_policy.clone();
            let mut live = container.live();
            let restart = live
                .restarts
                .next(policy.as_ref(), status.code, stay_down, ran_for);
            let oom = status.oom_killed || record.state.oom_killed;
            record
                .state
                .set_exited(status.code, oom, exited_at, restart.is_some());
            record.restart_count = live.restarts.count;
            live.shim = None;
            (restart, ran_for)
        };
        let restarts = restart_in.is_some();
        let remove = remove && !restarts;
        if !remove {
            container.save_or_log();
        }
        self.container_event_with(
            container,
            "die",
            &[
                ("exitCode", status.code.to_string()),
                ("execDuration", ran_for.as_secs().to_string()),
            ],
        );
        container.announce(|progress| {
            progress.ends += 1;
            if !restarts {
                progress.exits += 1;
            }
        });
        if let Some(wait) = restart_in {
            self.restart_later(container, wait);
        } else if remove {
            let options = RemoveOptions {
                force: true,
                volumes: true,
                link: false,
            };
            if let Err(error) = self.remove_locked(container, options).await {
                tracing::error!(container.id = %container.id, %error, "ended container not removed");
            }
        }
    }

    /// Gives back what only a running container has: network, mounts, execs, health checks.
    pub(crate) async fn take_down(&self, container: &Arc<Container>) {
        tokio::join!(self.unmount_root(container), self.disconnect(container));
    }

    async fn unmount_root(&self, container: &Container) {
        let (images, id) = (self.images.clone(), container.id.clone());
        let shm = self.shm_path(&id);
        let unmounted = blocking(move || {
            crate::shm::unmount(&shm);
            images.open_rootfs(&id)?.unmount()?;
            Ok(())
        });
        if let Err(error) = unmounted.await {
            tracing::warn!(container.id = %container.id, %error, "container's root not unmounted");
        }
    }

    /// All that a running container has but its root.
    async fn disconnect(&self, container: &Container) {
        let execs = {
            let mut live = container.live();
            if let Some(health) = live.health.take() {
                health.cancel();
            }
            std::mem::take(&mut live.execs)
        };
        // Those that were created and never started can never be.
        for id in execs
            .into_iter()
            .filter(|(_, exec)| !exec.was_started())
            .map(|(id, _)| id)
        {
            self.execs.lock().remove(&id);
        }
        let endpoints = std::mem::take(&mut container.record().endpoints);
        if let Err(error) = self.networks.release(&container.id).await {
            tracing::warn!(container.id = %container.id, %error, "container's network not released");
        }
        for endpoint in endpoints.values() {
            self.network_event(
                "disconnect",
                &endpoint.network_id,
                &endpoint.network_name,
                &container.id,
            );
        }
        let names: Vec<_> = container
            .record()
            .volume_names()
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            return;
        }
        let (volumes, id, unmounted) = (self.volumes.clone(), container.id.clone(), names.clone());
        let unmounting = blocking(move || {
            for name in unmounted {
                volumes.release_or_log(&name, &id);
            }
            Ok(())
        });
        if let Err(error) = unmounting.await {
            tracing::warn!(container.id = %container.id, %error, "volumes not unmounted");
        }
        for name in names {
            let attributes = [
                ("driver".to_owned(), "local".to_owned()),
                ("container".to_owned(), container.id.clone()),
            ];
            self.volume_event("unmount", &name, attributes.into());
        }
    }

    /// Starts it again after a while, unless somebody stops, starts or removes it first.
    pub(crate) fn restart_later(self: &Arc<Self>, container: &Arc<Container>, wait: Duration) {
        let cancel = CancellationToken::new();
        container.live().restart_wait = Some(cancel.clone());
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = cancel.cancelled() => return,
            }
            let _operation = container.operation.lock().await;
            // Checked again under the lock: a stop may have come first.
            if cancel.is_cancelled() || container.record().state.phase != Phase::Restarting {
                return;
            }
            container.live().restart_wait = None;
            if let Err(error) = engine.start_locked(&container).await {
                tracing::warn!(container.id = %container.id, %error, "container not restarted");
                // It stays down now: those who wait for its end have it.
                container.announce(|progress| progress.exits += 1);
            }
        });
    }
}

pub(crate) fn parse_time(text: &str) -> UnixNanos {
    let parsed = text
        .parse::<jiff::Timestamp>()
        .ok()
        .and_then(|at| i64::try_from(at.as_nanosecond()).ok());
    parsed.map_or_else(UnixNanos::now, UnixNanos)
}
