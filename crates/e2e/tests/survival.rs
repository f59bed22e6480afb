//! The daemon dies; containers, logs and the swarm do not.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use serde_json::Value;
use skep_testkit::{Daemon, eventually};

fn state(daemon: &Daemon, container: &str) -> Value {
    let text = daemon
        .docker()
        .run(["inspect", "-f", "{{json .State}}", container])
        .ok();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn containers_outlive_a_killed_daemon() {
    let mut daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "-d",
            "--name",
            "cc",
            "busybox",
            "sh",
            "-c",
            "i=0; while true; do i=$((i+1)); echo $i; usleep 2000; done",
        ])
        .ok();
    let before = state(&daemon, "cc");
    daemon.kill();
    daemon.start_again();
    let after = state(&daemon, "cc");
    assert_eq!(after["Running"], true);
    assert_eq!(
        (&after["Pid"], &after["StartedAt"]),
        (&before["Pid"], &before["StartedAt"])
    );
    assert_eq!(daemon.ok("exec cc echo reachable"), "reachable");
    daemon.ok("stop -t 0 cc");
    let log = daemon.sh("logs cc").stdout;
    let numbers: Vec<u64> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 10, "{log}");
    assert!(
        numbers.iter().copied().eq(1..=numbers.len() as u64),
        "the log has a hole"
    );
}

#[test]
fn exits_while_the_daemon_was_away_are_recorded() {
    let mut daemon = Daemon::start();
    let fifo = daemon.scratch().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o666.into(),
        0,
    )
    .unwrap();
    let bind = format!("{}:/fifo", fifo.display());
    daemon
        .docker()
        .run([
            "run",
            "-d",
            "--name",
            "cc",
            "-v",
            &bind,
            "busybox",
            "sh",
            "-c",
            "read x < /fifo; exit 42",
        ])
        .ok();
    let pid = state(&daemon, "cc")["Pid"].as_i64().unwrap();
    daemon.kill();
    std::fs::write(&fifo, "go\n").unwrap();
    eventually("the container ended", || {
        if std::path::Path::new(&format!("/proc/{pid}")).exists() {
            Err("still there".into())
        } else {
            Ok(())
        }
    });
    daemon.start_again();
    let after = state(&daemon, "cc");
    assert_eq!(
        (&after["Status"], &after["ExitCode"]),
        (&"exited".into(), &42.into())
    );
    assert!(after["FinishedAt"].as_str().unwrap() > after["StartedAt"].as_str().unwrap());
}

#[test]
fn a_swarm_outlives_a_killed_daemon() {
    let mut daemon = Daemon::start();
    daemon.ok("swarm init --advertise-addr 10.231.0.2");
    daemon.ok("service create --detach --name s --replicas 3 busybox sleep 1000");
    let running = |daemon: &Daemon| {
        eventually("three replicas run", || {
            let seen = daemon
                .docker()
                .run(["service", "ls", "--format", "{{.Replicas}}"])
                .ok();
            if seen == "3/3" { Ok(()) } else { Err(seen) }
        });
        daemon.ok("ps -q --no-trunc")
    };
    let before = running(&daemon);
    let node = daemon
        .docker()
        .run(["info", "-f", "{{.Swarm.NodeID}}"])
        .ok();
    daemon.kill();
    daemon.start_again();
    let after = running(&daemon);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        sorted(&before),
        sorted(&after),
        "the same containers run on"
    );
    assert_eq!(
        daemon
            .docker()
            .run(["info", "-f", "{{.Swarm.NodeID}}"])
            .ok(),
        node
    );
    assert_eq!(
        daemon
            .docker()
            .run(["service", "ps", "-q", "s"])
            .ok()
            .lines()
            .count(),
        3,
        "no new tasks"
    );
}

#[test]
fn sigterm_stops_containers_unless_live_restore_is_on() {
    let mut daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "-d",
            "--name",
            "cc",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 0' TERM; while true; do usleep 1000; done",
        ])
        .ok();
    assert!(daemon.stop().success());
    daemon.start_again();
    assert_eq!(state(&daemon, "cc")["Status"], "exited");
    drop(daemon);

    let mut daemon = Daemon::builder()
        .flag("--live-restore")
        .image("busybox")
        .start()
        .unwrap();
    daemon.ok("run -d --name cc busybox sleep 1000");
    let pid = state(&daemon, "cc")["Pid"].clone();
    assert!(daemon.stop().success());
    daemon.start_again();
    assert_eq!(state(&daemon, "cc")["Pid"], pid);
}
