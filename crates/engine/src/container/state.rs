//! The state machine of one container, and how Docker shows it.

use bollard_stubs::models as m;
use serde::{Deserialize, Serialize};

use crate::time::{UnixNanos, human_duration, rfc3339_or_zero};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    #[default]
    Created,
    Running,
    Paused,
    /// It exited and its restart policy will start it again.
    Restarting,
    Exited,
    /// Removal started and failed, or the daemon died in the middle of it.
    Dead,
}

/// A container's state as it is kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// In addition to the phase; not kept across a restart of the daemon.
    #[serde(skip)]
    pub(crate) removing: bool,
    pub(crate) pid: i32,
    pub(crate) exit_code: i32,
    pub(crate) error: String,
    pub(crate) oom_killed: bool,
    pub(crate) started_at: Option<UnixNanos>,
    pub(crate) finished_at: Option<UnixNanos>,
    #[serde(default)]
    pub(crate) health: Option<Health>,
}

/// What the health check found so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) status: HealthStatus,
    pub(crate) failing_streak: i64,
    /// The newest five.
    pub(crate) log: Vec<m::HealthcheckResult>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl State {
    /// A process exists: running or paused.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused)
    }

    /// Docker's `Running`, which includes waiting for a restart.
    pub(crate) fn is_running(&self) -> bool {
        self.is_up() || self.phase == Phase::Restarting
    }

    /// The word that `docker ps --filter status=` takes.
    pub(crate) fn word(&self) -> &'static str {
        if self.removing && !self.is_running() {
            return "removing";
        }
        match self.phase {
            Phase::Created => "created",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Restarting => "restarting",
            Phase::Exited => "exited",
            Phase::Dead => "dead",
        }
    }

    /// The STATUS column of `docker ps`.
    pub(crate) fn describe(&self, now: UnixNanos) -> String {
        let up = || human_duration(now.since(self.started_at.unwrap_or(now)));
        let gone = || human_duration(now.since(self.finished_at.unwrap_or(now)));
        if self.removing && !self.is_running() {
            return "Removal In Progress".to_owned();
        }
        match self.phase {
            Phase::Paused => format!("Up {} (Paused)", up()),
            Phase::Restarting => format!("Restarting ({}) {} ago", self.exit_code, gone()),
            Phase::Running => match &self.health {
                None => format!("Up {}", up()),
                Some(health) if health.status == HealthStatus::Starting => {
                    format!("Up {} (health: starting)", up())
                }
                Some(health) => format!("Up {} ({})", up(), health.status.as_str()),
            },
            Phase::Dead => "Dead".to_owned(),
            Phase::Created => "Created".to_owned(),
            Phase::Exited => format!("Exited ({}) {} ago", self.exit_code, gone()),
        }
    }

    /// `State` of `docker inspect`.
    pub(crate) fn to_api(&self) -> m::ContainerState {
        m::ContainerState {
            status: Some(match self.word() {
                "removing" => m::ContainerStateStatusEnum::REMOVING,
                "running" => m::ContainerStateStatusEnum::RUNNING,
                "paused" => m::ContainerStateStatusEnum::PAUSED,
                "restarting" => m::ContainerStateStatusEnum::RESTARTING,
                "exited" => m::ContainerStateStatusEnum::EXITED,
                "dead" => m::ContainerStateStatusEnum::DEAD,
                _ => m::ContainerStateStatusEnum::CREATED,
            }),
            running: Some(self.is_running()),
            paused: Some(self.phase == Phase::Paused),
            restarting: Some(self.phase == Phase::Restarting),
            oom_killed: Some(self.oom_killed),
            dead: Some(self.phase == Phase::Dead),
            pid: Some(i64::from(self.pid)),
            exit_code: Some(i64::from(self.exit_code)),
            error: Some(self.error.clone()),
            started_at: Some(rfc3339_or_zero(self.started_at)),
            finished_at: Some(rfc3339_or_zero(self.finished_at)),
            health: self.health.as_ref().map(|health| m::Health {
                status: Some(match health.status {
                    HealthStatus::Starting => m::HealthStatusEnum::STARTING,
                    HealthStatus::Healthy => m::HealthStatusEnum::HEALTHY,
                    HealthStatus::Unhealthy => m::HealthStatusEnum::UNHEALTHY,
                }),
                failing_streak: Some(health.failing_streak),
                log: Some(health.log.clone()),
            }),
        }
    }

    /// A process runs now.
    pub(crate) fn set_running(&mut self, pid: i32, at: UnixNanos) {
        *self = Self {
            phase: Phase::Running,
            pid,
            started_at: Some(at),
            finished_at: self.finished_at,
            ..Self::default()
        };
    }

    /// Its process is gone.
    pub(crate) fn set_exited(
        &mut self,
        code: i32,
        oom_killed: bool,
        at: UnixNanos,
        restarting: bool,
    ) {
        self.phase = if restarting {
            Phase::Restarting
        } else {
            Phase::Exited
        };
        self.pid = 0;
        self.exit_code = code;
        self.oom_killed = oom_killed;
        self.finished_at = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn at(seconds: i64) -> UnixNanos {
        UnixNanos(seconds * SECOND)
    }

    #[test]
    fn status_texts_are_dockers() {
        let mut state = State::default();
        assert_eq!(state.describe(at(0)), "Created");
        state.set_running(7, at(100));
        assert_eq!(state.describe(at(400)), "Up 5 minutes");
        state.health = Some(Health::default());
        assert_eq!(state.describe(at(400)), "Up 5 minutes (health: starting)");
        state.health = Some(Health {
            status: HealthStatus::Unhealthy,
            ..Health::default()
        });
        assert_eq!(state.describe(at(400)), "Up 5 minutes (unhealthy)");
        state.phase = Phase::Paused;
        assert_eq!(state.describe(at(103)), "Up 3 seconds (Paused)");
        state.set_exited(1, false, at(110), true);
        assert_eq!(state.describe(at(112)), "Restarting (1) 2 seconds ago");
        state.set_exited(0, false, at(110), false);
        assert_eq!(state.describe(at(113)), "Exited (0) 3 seconds ago");
        state.removing = true;
        assert_eq!(state.describe(at(113)), "Removal In Progress");
        assert_eq!(state.word(), "removing");
    }

    #[test]
    fn starting_again_forgets_the_last_end_but_for_its_time() {
        let mut state = State::default();
        state.set_exited(137, true, at(5), false);
        state.error = "boom".to_owned();
        state.set_running(9, at(6));
        assert_eq!(state.exit_code, 0);
        assert!(!state.oom_killed && state.error.is_empty());
        assert_eq!(state.finished_at, Some(at(5)));
    }

    #[test]
    fn never_started_shows_dockers_zero_time() {
        assert_eq!(
            State::default().to_api().started_at.as_deref(),
            Some("0001-01-01T00:00:00Z")
        );
    }
}
