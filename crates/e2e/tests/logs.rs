//! `docker logs`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use skep_testkit::Daemon;

#[test]
fn logs_show_both_streams_with_tail_and_timestamps() {
    let daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "--name",
            "cc",
            "busybox",
            "sh",
            "-c",
            "for i in 1 2 3; do echo line $i; done; echo oops >&2",
        ])
        .ok();
    let all = daemon.sh("logs cc");
    assert_eq!(
        (all.stdout.as_str(), all.stderr.as_str()),
        ("line 1\nline 2\nline 3\n", "oops\n")
    );
    assert_eq!(
        daemon.sh("logs --tail 2 cc").stdout,
        "line 3\n",
        "the last of the two is on stderr"
    );
    let stamped = daemon.sh("logs -t cc").stdout;
    let (time, rest) = stamped.lines().next().unwrap().split_once(' ').unwrap();
    assert_eq!(rest, "line 1");
    assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    assert_eq!(
        daemon.sh(&format!("logs --until {time} cc")).stdout,
        "line 1\n"
    );
    assert_eq!(daemon.sh("logs --since 1h cc").stdout.lines().count(), 3);
}

#[test]
fn following_ends_with_the_container() {
    let daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "-d",
            "-i",
            "--name",
            "cc",
            "busybox",
            "sh",
            "-c",
            "echo first; read x; echo last",
        ])
        .ok();
    let mut follow = daemon
        .docker()
        .command(["logs", "-f", "cc"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    daemon.ok("stop -t 0 cc");
    assert!(lines.next().is_none(), "the stream ends");
    assert!(follow.wait().unwrap().success());
}

#[test]
fn rotation_keeps_the_newest_and_logs_reads_across_files() {
    let daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "--name",
            "cc",
            "--log-opt",
            "max-size=4k",
            "--log-opt",
            "max-file=3",
            "busybox",
            "sh",
            "-c",
            "for i in $(seq 1 500); do echo line $i; done",
        ])
        .ok();
    let all = daemon.sh("logs cc").stdout;
    let seen: Vec<&str> = all.lines().collect();
    assert_eq!(*seen.last().unwrap(), "line 500");
    let first: usize = seen[0].trim_start_matches("line ").parse().unwrap();
    assert_eq!(seen.len(), 500 - first + 1, "no hole from {first} on");
    assert!(first > 1, "the oldest were dropped");
}

#[test]
fn a_container_without_a_log_says_so() {
    let daemon = Daemon::start();
    daemon.ok("run --name cc --log-driver none busybox echo x");
    let error = daemon.sh("logs cc").fails_with(1);
    assert!(
        error.contains("configured logging driver does not support reading"),
        "{error}"
    );
}
