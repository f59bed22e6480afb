//! What SwarmKit assumes where a user says nothing. Durations are wire durations where a spec holds
//! them as such.

use std::time::Duration;

use crate::proto;

pub const RESTART_DELAY: Duration = Duration::from_secs(5);
pub const RESTART_CONDITION: proto::restart_policy::RestartCondition =
    proto::restart_policy::RestartCondition::Any;
pub const UPDATE_PARALLELISM: u64 = 1;
pub const UPDATE_MONITOR: Duration = Duration::from_secs(5);
pub const UPDATE_FAILURE_ACTION: proto::update_config::FailureAction =
    proto::update_config::FailureAction::Pause;
pub const UPDATE_ORDER: proto::update_config::UpdateOrder =
    proto::update_config::UpdateOrder::StopFirst;
pub const STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);
/// How many ended tasks of a slot are kept.
pub const TASK_HISTORY_RETENTION_LIMIT: i64 = 5;
pub const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);
pub const HEARTBEAT_EPSILON: Duration = Duration::from_millis(500);
pub const NODE_CERT_EXPIRY: Duration = Duration::from_secs(90 * 24 * 3600);
/// After this time, tasks on a node that is down are given up.
pub const NODE_DOWN_PERIOD: Duration = Duration::from_secs(24 * 3600);
pub const CLUSTER_NAME: &str = "default";
pub const LISTEN_PORT: u16 = 2377;
pub const DATA_PATH_PORT: u32 = 4789;
pub const ADDRESS_POOL: &str = "10.0.0.0/8";
/// Prefix length of the networks cut from [`ADDRESS_POOL`].
pub const SUBNET_SIZE: u32 = 24;
/// Published ports that nobody chose are taken from here, ends included.
pub const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
pub const RAFT_SNAPSHOT_INTERVAL: u64 = 10_000;
pub const RAFT_LOG_ENTRIES_FOR_SLOW_FOLLOWERS: u64 = 500;
pub const RAFT_HEARTBEAT_TICK: u32 = 1;
pub const RAFT_ELECTION_TICK: u32 = 10;

/// A duration as specs hold it.
pub fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

/// A wire duration as ours; `None` if it is negative, which the control API refuses.
pub fn duration_from_wire(duration: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok()?;
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

/// How a service is updated if its spec does not say.
pub fn update_config() -> proto::UpdateConfig {
    proto::UpdateConfig {
        parallelism: UPDATE_PARALLELISM,
        delay: None,
        failure_action: UPDATE_FAILURE_ACTION.into(),
        monitor: Some(wire_duration(UPDATE_MONITOR)),
        max_failure_ratio: 0.0,
        order: UPDATE_ORDER.into(),
    }
}

/// When an ended task is replaced if its spec does not say.
pub fn restart_policy() -> proto::RestartPolicy {
    proto::RestartPolicy {
        condition: RESTART_CONDITION.into(),
        delay: Some(wire_duration(RESTART_DELAY)),
        max_attempts: 0,
        window: None,
    }
}

/// Fills in everything a spec leaves open, as inspecting a service with defaults shows it. Nothing
/// that is stored: the stored spec stays as the user wrote it.
pub fn interpolate_service(spec: &proto::ServiceSpec) -> proto::ServiceSpec {
    let mut spec = spec.clone();
    let task = spec.task.get_or_insert_default();
    if let Some(proto::task_spec::Runtime::Container(container)) = &mut task.runtime {
        container
            .stop_grace_period
            .get_or_insert_with(|| wire_duration(STOP_GRACE_PERIOD));
        container.pull_options.get_or_insert_default();
        container.dns_config.get_or_insert_default();
    }
    task.resources.get_or_insert_default();
    task.restart
        .get_or_insert_with(restart_policy)
        .delay
        .get_or_insert_with(|| wire_duration(RESTART_DELAY));
    task.placement.get_or_insert_default();
    for update in [&mut spec.update, &mut spec.rollback] {
        update
            .get_or_insert_with(update_config)
            .monitor
            .get_or_insert_with(|| wire_duration(UPDATE_MONITOR));
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_spec_gets_every_default() {
        let spec = interpolate_service(&proto::ServiceSpec::default());
        let task = spec.task.unwrap();
        assert_eq!(task.restart, Some(restart_policy()));
        assert_eq!(spec.update, Some(update_config()));
        assert_eq!(spec.rollback, Some(update_config()));
    }

    #[test]
    fn what_the_user_said_stays() {
        let given = proto::UpdateConfig {
            parallelism: 7,
            ..Default::default()
        };
        let spec = proto::ServiceSpec {
            update: Some(given),
            ..Default::default()
        };
        let update = interpolate_service(&spec).update.unwrap();
        assert_eq!(update.parallelism, 7);
        assert_eq!(update.monitor, Some(wire_duration(UPDATE_MONITOR)));
    }

    #[test]
    fn a_negative_duration_is_none() {
        let wire = prost_types::Duration {
            seconds: -1,
            nanos: 0,
        };
        assert_eq!(duration_from_wire(&wire), None);
        let wire = wire_duration(Duration::from_millis(1500));
        assert_eq!(duration_from_wire(&wire), Some(Duration::from_millis(1500)));
    }
}
