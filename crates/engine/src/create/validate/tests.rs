use super::*;

fn daemon() -> EngineConfig {
    EngineConfig::new("/tmp/a", "/tmp/b", "/proc/self/exe")
}

fn refusal(host: m::HostConfig) -> String {
    let mut host = host;
    check_host_config(&mut host, &daemon(), &HostFacts::for_tests())
        .unwrap_err()
        .message
}

#[test]
fn memory_has_a_floor() {
    let text = "Minimum memory limit allowed is 6MB";
    assert_eq!(
        refusal(m::HostConfig {
            memory: Some(1024),
            ..Default::default()
        }),
        text
    );
    assert_eq!(
        refusal(m::HostConfig {
            memory: Some(-1),
            ..Default::default()
        }),
        text
    );
}

#[test]
fn cpus_are_those_of_the_machine() {
    assert_eq!(
        refusal(m::HostConfig {
            nano_cpus: Some(64_000_000_000),
            ..Default::default()
        }),
        "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"
    );
    assert_eq!(
        refusal(m::HostConfig {
            nano_cpus: Some(1),
            cpu_period: Some(5),
            ..Default::default()
        }),
        "Conflicting options: Nano CPUs and CPU Period cannot both be set"
    );
}

#[test]
fn a_removed_container_cannot_restart() {
    assert_eq!(
        refusal(m::HostConfig {
            auto_remove: Some(true),
            restart_policy: Some(m::RestartPolicy {
                name: Some(m::RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None
            }),
            ..Default::default()
        }),
        "can't create 'AutoRemove' container with restart policy"
    );
}

#[test]
fn restart_policies_count_failures_only() {
    let policy = |name, count| m::RestartPolicy {
        name: Some(name),
        maximum_retry_count: Some(count),
    };
    assert_eq!(
        check_restart_policy(&policy(m::RestartPolicyNameEnum::ALWAYS, 3))
            .unwrap_err()
            .message,
        "invalid restart policy: maximum retry count can only be used with 'on-failure'"
    );
    assert_eq!(
        check_restart_policy(&policy(m::RestartPolicyNameEnum::ON_FAILURE, -3))
            .unwrap_err()
            .message,
        "invalid restart policy: maximum retry count cannot be negative"
    );
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    assert_eq!(
        refusal(m::HostConfig {
            runtime: Some("kata".to_owned()),
            ..Default::default()
        }),
        "unknown or invalid runtime name: kata"
    );
    assert!(
        refusal(m::HostConfig {
            log_config: Some(m::HostConfigLogConfig {
                typ: Some("splunk".to_owned()),
                config: None
            }),
            ..Default::default()
        })
        .contains("splunk")
    );
    assert!(
        refusal(m::HostConfig {
            storage_opt: Some([("size".to_owned(), "10G".to_owned())].into()),
            ..Default::default()
        })
        .contains("'pquota'")
    );
    assert_eq!(
        refusal(m::HostConfig {
            pid_mode: Some("container:".to_owned()),
            ..Default::default()
        }),
        "invalid PID mode: container:"
    );
    assert_eq!(
        refusal(m::HostConfig {
            extra_hosts: Some(vec!["db:nowhere".to_owned()]),
            ..Default::default()
        }),
        "invalid IP address in add-host: \"nowhere\""
    );
    assert_eq!(
        refusal(m::HostConfig {
            cap_add: Some(vec!["FLY".to_owned()]),
            ..Default::default()
        }),
        "invalid CapAdd: unknown capability: \"CAP_FLY\""
    );
}

#[test]
fn the_containers_own_part_is_checked() {
    let mut config = m::ContainerConfig {
        working_dir: Some("rel".to_owned()),
        ..Default::default()
    };
    assert_eq!(
        check_config(&mut config).unwrap_err().message,
        "the working directory 'rel' is invalid, it needs to be an absolute path"
    );
    let mut config = m::ContainerConfig {
        working_dir: Some("/a/../b/".to_owned()),
        ..Default::default()
    };
    check_config(&mut config).unwrap();
    assert_eq!(config.working_dir.as_deref(), Some("/b"));
    let mut config = m::ContainerConfig {
        env: Some(vec!["=x".to_owned()]),
        ..Default::default()
    };
    assert_eq!(
        check_config(&mut config).unwrap_err().message,
        "invalid environment variable: =x"
    );
}
