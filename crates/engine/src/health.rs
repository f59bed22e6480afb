//! Health checks.

use std::sync::Arc;
use std::time::Duration;

use bollard_stubs::models as m;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::container::{Container, Health, HealthStatus};
use crate::engine::Engine;
use crate::time::UnixNanos;
use crate::types::ExecStart;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: i64 = 3;
/// How many results are kept, and how much of each one's output.
const KEPT_RESULTS: usize = 5;
const KEPT_OUTPUT: usize = 4096;

/// A check as configured, with the defaults filled in.
#[derive(Clone, Debug, PartialEq)]
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Check {
    /// `None` if there is none, or if it is switched off.
    fn of(config: &m::ContainerConfig) -> Option<Self> {
        let health = config.healthcheck.as_ref()?;
        let test = health.test.as_deref().unwrap_or_default();
        let command = match test.first().map(String::as_str) {
            Some("CMD") => test[1..].to_vec(),
            Some("CMD-SHELL") => {
                let default = vec!["/bin/sh".to_owned(), "-c".to_owned()];
                let mut shell = config
                    .shell
                    .clone()
                    .filter(|shell| !shell.is_empty())
                    .unwrap_or(default);
                shell.extend(test[1..].iter().cloned());
                shell
            }
            _ => return None,
        };
        let or = |nanos: Option<i64>, default: Duration| {
            nanos
                .and_then(|nanos| u64::try_from(nanos).ok())
                .filter(|&nanos| nanos > 0)
                .map_or(default, Duration::from_nanos)
        };
        (!command.is_empty()).then(|| Self {
            command,
            interval: or(health.interval, DEFAULT_INTERVAL),
            timeout: or(health.timeout, DEFAULT_TIMEOUT),
            start_period: or(health.start_period, Duration::ZERO),
            start_interval: or(health.start_interval, DEFAULT_START_INTERVAL),
            retries: health
                .retries
                .filter(|&retries| retries > 0)
                .unwrap_or(DEFAULT_RETRIES),
        })
    }
}

/// Takes one result in; true if the status changed.
fn note(
    health: &mut Health,
    result: m::HealthcheckResult,
    retries: i64,
    in_start_period: bool,
) -> bool {
    let before = health.status;
    if result.exit_code == Some(0) {
        health.failing_streak = 0;
        health.status = HealthStatus::Healthy;
    } else if !(in_start_period && before == HealthStatus::Starting) {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    health.log.push(result);
    if health.log.len() > KEPT_RESULTS {
        health.log.remove(0);
    }
    health.status != before
}

impl Engine {
    /// Checks in the background until the container ends.
    pub(crate) fn start_health_checks(self: &Arc<Self>, container: &Arc<Container>) {
        let Some(check) = Check::of(&container.record().config) else {
            return;
        };
        let cancel = CancellationToken::new();
        container.live().health = Some(cancel.clone());
        container
            .record()
            .state
            .health
            .get_or_insert_with(Health::default);
        let (engine, container) = (Arc::downgrade(self), container.clone());
        tokio::spawn(async move {
            let started = container
                .record()
                .state
                .started_at
                .unwrap_or_else(UnixNanos::now);
            loop {
                let in_start_period = UnixNanos::now().since(started) < check.start_period;
                let starting = container
                    .record()
                    .state
                    .health
                    .as_ref()
                    .is_some_and(|h| h.status == HealthStatus::Starting);
                let wait = if in_start_period && starting {
                    check.start_interval.min(check.interval)
                } else {
                    check.interval
                };
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                // A frozen container is neither well nor ill.
                if container.record().state.phase != crate::container::Phase::Running {
                    continue;
                }
                let result = engine.probe(&container, &check).await;
                if cancel.is_cancelled() {
                    return;
                }
                let in_start_period = UnixNanos::now().since(started) < check.start_period;
                let changed = {
                    let mut record = container.record();
                    let health = record.state.health.get_or_insert_with(Health::default);
                    let changed = note(health, result, check.retries, in_start_period);
                    changed.then_some(health.status)
                };
                if let Some(status) = changed {
                    container.save_or_log();
                    container.announce(|_| {});
                    engine
                        .container_event(&container, format!("health_status: {}", status.as_str()));
                }
            }
        });
    }

    async fn probe(
        self: &Arc<Self>,
        container: &Arc<Container>,
        check: &Check,
    ) -> m::HealthcheckResult {
        let start = UnixNanos::now();
        let mut output = Vec::new();
        let ran =
            tokio::time::timeout(check.timeout, self.run_probe(container, check, &mut output))
                .await;
        let (exit_code, output) = match ran {
            Ok(Ok(code)) => (code, String::from_utf8_lossy(&output).into_owned()),
            Ok(Err(text)) => (-1, text),
            Err(_) => (
                -1,
                format!(
                    "Health check exceeded timeout ({}s): {}",
                    check.timeout.as_secs_f64(),
                    String::from_utf8_lossy(&output)
                ),
            ),
        };
        m::HealthcheckResult {
            start: Some(start.rfc3339()),
            end: Some(UnixNanos::now().rfc3339()),
            exit_code: Some(exit_code),
            output: Some(output),
        }
    }

    async fn run_probe(
        self: &Arc<Self>,
        container: &Arc<Container>,
        check: &Check,
        output: &mut Vec<u8>,
    ) -> std::result::Result<i64, String> {
        let config = m::ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(check.command.clone()),
            ..Default::default()
        };
        let text = |error: crate::error::EngineError| error.message;
        let id = self
            .create_exec(&container.id, config)
            .await
            .map_err(text)?;
        let guard = ProbeGuard {
            engine: self.clone(),
            exec: id.clone(),
        };
        let attach = self
            .start_exec(&id, ExecStart::default())
            .await
            .map_err(text)?;
        let Some(mut attach) = attach else {
            return Err("no output".to_owned());
        };
        while let Some(frame) = attach.output.next().await {
            let room = KEPT_OUTPUT.saturating_sub(output.len());
            output.extend_from_slice(&frame.bytes[..frame.bytes.len().min(room)]);
        }
        let code = self.exec_exit(&id).await;
        drop(guard);
        Ok(i64::from(code))
    }
}

/// Ends a probe that took too long.
struct ProbeGuard {
    engine: Arc<Engine>,
    exec: String,
}

impl Drop for ProbeGuard {
    fn drop(&mut self) {
        self.engine.end_exec(&self.exec);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(code: i64) -> m::HealthcheckResult {
        m::HealthcheckResult {
            exit_code: Some(code),
            ..Default::default()
        }
    }

    #[test]
    fn failures_count_after_the_start_period_and_success_at_once() {
        let mut health = Health::default();
        for _ in 0..5 {
            assert!(!note(&mut health, result(1), 3, true));
        }
        assert_eq!(
            (health.status, health.failing_streak),
            (HealthStatus::Starting, 0)
        );
        assert!(!note(&mut health, result(1), 3, false));
        assert!(!note(&mut health, result(1), 3, false));
        assert!(note(&mut health, result(1), 3, false));
        assert_eq!(health.status, HealthStatus::Unhealthy);
        assert!(note(&mut health, result(0), 3, false));
        assert_eq!(
            (health.status, health.log.len()),
            (HealthStatus::Healthy, 5)
        );
    }

    #[test]
    fn a_check_may_be_switched_off() {
        let config = |test: &[&str]| m::ContainerConfig {
            healthcheck: Some(m::HealthConfig {
                test: Some(test.iter().map(|&word| word.to_owned()).collect()),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(Check::of(&config(&["NONE"])).is_none());
        assert_eq!(
            Check::of(&config(&["CMD-SHELL", "true"])).unwrap().command,
            ["/bin/sh", "-c", "true"]
        );
        assert_eq!(
            Check::of(&config(&["CMD", "true"])).unwrap().interval,
            DEFAULT_INTERVAL
        );
    }
}
