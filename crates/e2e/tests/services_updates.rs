//! Updates and rollbacks: their order, their limits, and what the service says about them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeSet;

use serde_json::Value;
use skep_testkit::{Daemon, eventually};

fn swarm() -> Daemon {
    let daemon = Daemon::start();
    daemon.ok("swarm init");
    daemon
}

#[track_caller]
fn create(daemon: &Daemon, flags: &str, script: &str) {
    let mut line = vec![
        "service",
        "create",
        "--detach",
        "--name",
        "s",
        "--restart-delay",
        "200ms",
        "--stop-grace-period",
        "0s",
    ];
    line.extend(flags.split_whitespace());
    line.extend(["busybox", "sh", "-c", script]);
    daemon.docker().run(line).ok();
}

#[track_caller]
fn running(daemon: &Daemon, count: usize) {
    eventually(&format!("{count} run"), || {
        let format = "{{.CurrentState}}";
        let tasks = daemon
            .docker()
            .run(["service", "ps", "--format", format, "s"])
            .ok();
        let seen = tasks
            .lines()
            .filter(|line| line.starts_with("Running"))
            .count();
        if seen == count {
            Ok(())
        } else {
            Err(daemon.ok("service ps --no-trunc s"))
        }
    });
}

#[track_caller]
fn status(daemon: &Daemon) -> Value {
    let text = daemon.ok("service inspect s");
    serde_json::from_str::<Value>(&text).unwrap()[0]["UpdateStatus"].clone()
}

#[track_caller]
fn reaches(daemon: &Daemon, state: &str) -> String {
    eventually(&format!("the update is {state}"), || {
        let status = status(daemon);
        if status["State"] == state {
            Ok(status["Message"].as_str().unwrap_or_default().to_owned())
        } else {
            Err(format!("{status} {}", daemon.ok("service ps --no-trunc s")))
        }
    })
}

/// The full ids of the running tasks.
fn tasks(daemon: &Daemon) -> BTreeSet<String> {
    let arguments = [
        "service",
        "ps",
        "-q",
        "--no-trunc",
        "--filter",
        "desired-state=running",
        "s",
    ];
    daemon
        .docker()
        .run(arguments)
        .ok()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn only_what_really_changed_is_replaced() {
    let daemon = swarm();
    create(
        &daemon,
        "--replicas 2 --update-monitor 100ms --update-parallelism 0",
        "sleep 1000",
    );
    running(&daemon, 2);
    let before = tasks(&daemon);
    daemon.ok("service update --detach --label-add a=b --update-delay 1ms --constraint-add node.role==manager s");
    daemon.ok("service scale --detach s=3");
    running(&daemon, 3);
    assert!(tasks(&daemon).is_superset(&before));
    daemon.ok("service update --detach --force s");
    assert_eq!(reaches(&daemon, "completed"), "update completed");
    assert!(tasks(&daemon).is_disjoint(&before));
}

#[test]
fn a_failing_update_pauses_and_the_next_one_goes_on() {
    let daemon = swarm();
    create(&daemon, "--replicas 2 --update-monitor 5s", "sleep 1000");
    running(&daemon, 2);
    daemon.ok("service update --detach --args false s");
    let message = reaches(&daemon, "paused");
    assert!(
        message.starts_with("update paused due to failure or early termination of task "),
        "{message}"
    );
    let pretty = daemon.ok("service inspect --pretty s");
    assert!(
        pretty.contains("State:\t\tpaused") && pretty.contains("update paused due to failure"),
        "{pretty}"
    );
    daemon
        .docker()
        .run([
            "service",
            "update",
            "--detach",
            "--update-monitor",
            "100ms",
            "--args",
            "sleep 2000",
            "s",
        ])
        .ok();
    assert_eq!(reaches(&daemon, "completed"), "update completed");
    running(&daemon, 2);
}

#[test]
fn a_failing_update_rolls_itself_back() {
    let daemon = swarm();
    create(
        &daemon,
        "--replicas 2 --update-failure-action rollback --update-monitor 5s --rollback-monitor 100ms --rollback-parallelism 0 --update-order start-first",
        "sleep 1000",
    );
    running(&daemon, 2);
    let before = tasks(&daemon);
    daemon.ok("service update --detach --args false s");
    assert_eq!(reaches(&daemon, "rollback_completed"), "rollback completed");
    running(&daemon, 2);
    assert!(
        !tasks(&daemon).is_disjoint(&before),
        "started first, so the old ones went on"
    );
    let spec = daemon.ok("service inspect s");
    assert!(spec.contains("sleep 1000"), "{spec}");
}

#[test]
fn with_start_first_there_is_never_a_task_too_few() {
    let daemon = swarm();
    create(
        &daemon,
        "--replicas 2 --update-order start-first --update-monitor 100ms",
        "sleep 1000",
    );
    running(&daemon, 2);
    daemon.ok("service update --detach --force s");
    eventually("the update is complete and two ran all the while", || {
        let seen = daemon.ok("ps -q").lines().count();
        assert!(seen >= 2, "{seen} run");
        let status = status(&daemon);
        if status["State"] == "completed" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    running(&daemon, 2);
}

#[test]
fn a_failure_ratio_forgives_some_and_continue_forgives_all() {
    let daemon = swarm();
    create(
        &daemon,
        "--replicas 2 --update-failure-action continue --update-monitor 100ms --update-parallelism 2",
        "sleep 1000",
    );
    running(&daemon, 2);
    daemon.ok("service update --detach --args false s");
    assert_eq!(reaches(&daemon, "completed"), "update completed");
    daemon.ok("service update --detach --rollback s");
    let message = reaches(&daemon, "rollback_completed");
    assert_eq!(message, "rollback completed");
    running(&daemon, 2);
    let error = daemon
        .sh("service update --rollback --args x s")
        .fails_with(1);
    assert!(
        error.contains("other flags may not be combined with --rollback"),
        "{error}"
    );
}
