//! When a container that exited starts again, and after how long.

use std::time::Duration;

use bollard_stubs::models as m;

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// A container that ran this long starts its back-off anew.
const LONG_RUN: Duration = Duration::from_secs(10);

/// One container's restarts since it was last started by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RestartTracker {
    wait: Option<Duration>,
    pub(crate) count: i64,
}

/// Whether the policy is to restart at all.
pub(crate) fn restarts(policy: Option<&m::RestartPolicy>) -> bool {
    use m::RestartPolicyNameEnum as Name;
    matches!(
        policy.and_then(|policy| policy.name),
        Some(Name::ALWAYS | Name::UNLESS_STOPPED | Name::ON_FAILURE)
    )
}

impl RestartTracker {
    /// One that has restarted so often already.
    pub(crate) fn counted(count: i64) -> Self {
        Self { wait: None, count }
    }

    /// How long to wait before the next start; `None`: stay down.
    pub(crate) fn next(
        &mut self,
        policy: Option<&m::RestartPolicy>,
        exit_code: i32,
        stopped_by_hand: bool,
        ran_for: Duration,
    ) -> Option<Duration> {
        if ran_for >= LONG_RUN {
            self.wait = None;
        }
        let next = self.wait.map_or(FIRST, |wait| (wait * 2).min(LONGEST));
        self.wait = Some(next);
        if stopped_by_hand || !self.allowed(policy?, exit_code) {
            return None;
        }
        self.count += 1;
        Some(next)
    }

    fn allowed(&self, policy: &m::RestartPolicy, exit_code: i32) -> bool {
        use m::RestartPolicyNameEnum as Name;
        match policy.name {
            Some(Name::ALWAYS | Name::UNLESS_STOPPED) => true,
            Some(Name::ON_FAILURE) => {
                let most = policy.maximum_retry_count.unwrap_or(0);
                exit_code != 0 && (most == 0 || self.count < most)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: m::RestartPolicyNameEnum, most: i64) -> m::RestartPolicy {
        m::RestartPolicy {
            name: Some(name),
            maximum_retry_count: Some(most),
        }
    }

    #[test]
    fn waits_double_up_to_a_minute_and_reset_after_a_long_run() {
        let always = policy(m::RestartPolicyNameEnum::ALWAYS, 0);
        let mut tracker = RestartTracker::default();
        let short = Duration::from_secs(1);
        let waits: Vec<_> = (0..12)
            .map(|_| {
                tracker
                    .next(Some(&always), 0, false, short)
                    .unwrap()
                    .as_millis()
            })
            .collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        assert_eq!(
            tracker.next(Some(&always), 0, false, Duration::from_secs(10)),
            Some(FIRST)
        );
    }

    #[test]
    fn on_failure_counts_failures_and_stops_at_the_maximum() {
        let twice = policy(m::RestartPolicyNameEnum::ON_FAILURE, 2);
        let mut tracker = RestartTracker::default();
        assert!(tracker.next(Some(&twice), 0, false, FIRST).is_none());
        assert!(tracker.next(Some(&twice), 1, false, FIRST).is_some());
        assert!(tracker.next(Some(&twice), 1, false, FIRST).is_some());
        assert!(tracker.next(Some(&twice), 1, false, FIRST).is_none());
    }

    #[test]
    fn a_manual_stop_is_respected() {
        let always = policy(m::RestartPolicyNameEnum::ALWAYS, 0);
        assert!(
            RestartTracker::default()
                .next(Some(&always), 1, true, FIRST)
                .is_none()
        );
        assert!(
            RestartTracker::default()
                .next(None, 1, false, FIRST)
                .is_none()
        );
    }
}
