//! Containers from creation to their end. Needs root.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy takes only test functions for tests"
)]

mod support;

use std::time::Duration;

use skep_runtime::{ExitStatus, Reconnected, RuntimeError, StdStream, StdioConfig};
use support::{Bench, all, bytes, eventually, runtime_in, text, until};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn the_exit_code_and_both_streams_arrive() {
    let bench = Bench::new();
    let shim = bench.sh("one", "echo out; echo err >&2; exit 7").await;
    let attached = shim.attach(all()).await.unwrap();
    shim.start().await.unwrap();
    let frames = bytes(attached.output).await;
    assert!(
        frames.contains(&(StdStream::Stdout, b"out\n".to_vec())),
        "{frames:?}"
    );
    assert!(
        frames.contains(&(StdStream::Stderr, b"err\n".to_vec())),
        "{frames:?}"
    );
    let status = shim.wait().await.unwrap();
    assert_eq!((status.code, status.oom_killed), (7, false));
    assert_eq!(
        shim.wait().await.unwrap(),
        status,
        "asked again, the same answer"
    );
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn signals_end_it_with_128_and_their_number() {
    let bench = Bench::new();
    let killed = bench.sh("killed", "sleep 1000").await;
    killed.start().await.unwrap();
    killed.kill(9).await.unwrap();
    assert_eq!(killed.wait().await.unwrap().code, 137);
    killed.kill(9).await.expect("the dead may be killed again");
    killed.delete().await.unwrap();

    let polite = bench
        .sh(
            "polite",
            "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done",
        )
        .await;
    let mut attached = polite.attach(all()).await.unwrap();
    polite.start().await.unwrap();
    until(&mut attached.output, "ready").await;
    polite.kill(15).await.unwrap();
    assert_eq!(text(attached.output).await, "bye\n");
    assert_eq!(polite.wait().await.unwrap().code, 3);
    polite.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn a_container_that_never_started_can_be_deleted() {
    let bench = Bench::new();
    let shim = bench.sh("idle", "echo never").await;
    shim.delete().await.unwrap();
    bench.assert_clean();
    let again = bench.sh("idle", "exit 0").await;
    again.start().await.unwrap();
    assert_eq!(
        again.wait().await.unwrap().code,
        0,
        "an id may be used again"
    );
    again.delete().await.unwrap();
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_dockers_127() {
    let bench = Bench::new();
    let cases = [
        (
            "nope",
            127,
            r#"exec: "nope": executable file not found in $PATH"#,
        ),
        (
            "/nope",
            127,
            r#"exec: "/nope": stat /nope: no such file or directory"#,
        ),
        (
            "/etc/plain",
            126,
            r#"exec: "/etc/plain": permission denied"#,
        ),
        ("/etc", 126, r#"exec: "/etc": is a directory"#),
    ];
    for (program, expected, reason) in cases {
        let error = bench
            .create("bad", bench.wish("bad", &[program]))
            .await
            .unwrap_err();
        let RuntimeError::Start { code, message } = error else {
            panic!("{error:?}")
        };
        assert_eq!(code, expected);
        assert_eq!(
            message,
            format!(
                "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: {reason}: unknown"
            )
        );
        bench.assert_clean();
    }
}

#[tokio::test]
async fn a_working_directory_that_does_not_exist_is_named() {
    let bench = Bench::new();
    let mut wish = bench.wish("lost", &["true"]);
    wish.spec = wish.spec.cwd("/no/such");
    let message = bench.create("lost", wish).await.unwrap_err().to_string();
    let reason =
        r#"chdir to cwd ("/no/such") set in config.json failed: no such file or directory"#;
    assert!(message.contains(reason), "{message}");
    bench.assert_clean();
}

#[tokio::test]
async fn a_mount_that_fails_says_why() {
    let bench = Bench::new();
    let mut wish = bench.wish("mount", &["true"]);
    wish.spec = wish.spec.mount(skep_runtime::spec::mount(
        "/data",
        "bind",
        "/no/such/source",
        &["rbind"],
    ));
    let message = bench.create("mount", wish).await.unwrap_err().to_string();
    assert!(message.contains("/no/such/source"), "{message}");
    bench.assert_clean();
}

#[tokio::test]
async fn input_is_echoed_and_its_end_ends_the_program() {
    let bench = Bench::new();
    let mut wish = bench.wish("cat", &["cat"]);
    wish.stdio = StdioConfig {
        tty: false,
        open_stdin: true,
        stdin_once: true,
    };
    let shim = bench.create("cat", wish).await.unwrap();
    let mut attached = shim.attach(all()).await.unwrap();
    shim.start().await.unwrap();
    attached.input.write_all(b"hello\n").await.unwrap();
    until(&mut attached.output, "hello\n").await;
    let big = vec![b'x'; 1 << 20];
    let mut input = attached.input;
    let writing = tokio::spawn(async move {
        input.write_all(&big).await.unwrap();
        input.shutdown().await.unwrap();
    });
    assert_eq!(
        text(attached.output).await.len(),
        1 << 20,
        "nothing is lost in either direction"
    );
    writing.await.unwrap();
    assert_eq!(shim.wait().await.unwrap().code, 0);
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn input_that_is_not_once_stays_open_for_the_next_client() {
    let bench = Bench::new();
    let mut wish = bench.wish("open", &["cat"]);
    wish.stdio = StdioConfig {
        tty: false,
        open_stdin: true,
        stdin_once: false,
    };
    let shim = bench.create("open", wish).await.unwrap();
    shim.start().await.unwrap();
    for word in ["first\n", "second\n"] {
        let mut attached = shim.attach(all()).await.unwrap();
        attached.input.write_all(word.as_bytes()).await.unwrap();
        until(&mut attached.output, word).await;
    }
    shim.close_stdin().await.unwrap();
    assert_eq!(shim.wait().await.unwrap().code, 0);
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn a_terminal_has_a_size_and_changes_it() {
    let bench = Bench::new();
    let script = "test -t 0 && test -t 1 && stty size; tty; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done";
    let mut wish = bench.wish("tty", &["sh", "-c", script]);
    wish.stdio = StdioConfig {
        tty: true,
        open_stdin: true,
        stdin_once: true,
    };
    wish.spec = wish.spec.console_size(31, 101);
    let shim = bench.create("tty", wish).await.unwrap();
    let mut attached = shim.attach(all()).await.unwrap();
    shim.start().await.unwrap();
    let seen = until(&mut attached.output, "ready").await;
    assert!(
        seen.contains("31 101\r\n") && seen.contains("/dev/pts/0"),
        "{seen:?}"
    );
    shim.resize(50, 132).await.unwrap();
    assert!(text(attached.output).await.contains("50 132\r\n"));
    assert_eq!(shim.wait().await.unwrap().code, 0);
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_nothing_and_others_that_vanish_do_no_harm() {
    let bench = Bench::new();
    let shim = bench.sh("much", "seq 1 200000").await;
    let slow = shim.attach(all()).await.unwrap();
    let vanishing = shim.attach(all()).await.unwrap();
    shim.start().await.unwrap();
    drop(vanishing);
    let lines: Vec<String> = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(text(slow.output).await, lines.concat());
    assert_eq!(shim.wait().await.unwrap().code, 0);
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn running_out_of_memory_is_told() {
    let bench = Bench::new();
    let mut wish = bench.wish(
        "hungry",
        &[
            "sh",
            "-c",
            "tail -c 200000000 /dev/zero | tail; tail /dev/zero",
        ],
    );
    wish.spec = wish.spec.with(|spec| {
        let limited = serde_json::json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
        let linux = spec.linux_mut().as_mut().unwrap();
        linux.set_resources(Some(serde_json::from_value(limited).unwrap()));
    });
    let shim = bench.create("hungry", wish).await.unwrap();
    let watcher = {
        let shim = shim.clone();
        tokio::spawn(async move { shim.wait_oom(0).await })
    };
    shim.start().await.unwrap();
    let status = shim.wait().await.unwrap();
    assert!(status.oom_killed, "{status:?}");
    assert!(status.code == 137 || status.code == 0, "{status:?}");
    assert!(
        watcher
            .await
            .unwrap()
            .unwrap()
            .is_none_or(|kills| kills > 0)
    );
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn a_paused_container_stands_still_and_dies_when_killed() {
    let bench = Bench::new();
    let shim = bench
        .sh("frozen", "while :; do echo tick; sleep 0.01; done")
        .await;
    let mut attached = shim.attach(all()).await.unwrap();
    shim.start().await.unwrap();
    until(&mut attached.output, "tick").await;
    shim.pause().await.unwrap();
    let freezer = shim.cgroup().directory("freezer").unwrap().to_owned();
    let file = |name: &str| std::fs::read_to_string(freezer.join(name)).unwrap_or_default();
    assert!(file("freezer.state") == "FROZEN\n" || file("cgroup.events").contains("frozen 1"));
    shim.resume().await.unwrap();
    until(&mut attached.output, "tick\ntick").await;
    shim.pause().await.unwrap();
    shim.kill(9).await.unwrap();
    assert_eq!(shim.wait().await.unwrap().code, 137);
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn limits_can_be_read_and_changed() {
    let bench = Bench::new();
    let shim = bench.sh("limits", "sleep 1000").await;
    shim.start().await.unwrap();
    let resources = serde_json::json!({
        "memory": { "limit": 64 << 20, "swap": 128 << 20 },
        "cpu": { "shares": 512, "quota": 50000, "period": 100_000 },
        "pids": { "limit": 33 },
    });
    shim.update(&serde_json::from_value(resources).unwrap())
        .await
        .unwrap();
    let stats = shim.stats().unwrap();
    assert_eq!(stats.memory.limit, Some(64 << 20));
    assert_eq!(stats.pids.limit, Some(33));
    assert!(
        stats.memory.usage > 0 && stats.cpu.total > 0 && stats.pids.current >= 1,
        "{stats:?}"
    );
    let smaller = serde_json::json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20 } });
    shim.update(&serde_json::from_value(smaller).unwrap())
        .await
        .unwrap();
    assert_eq!(shim.stats().unwrap().memory.limit, Some(32 << 20));
    assert!(shim.pids().unwrap().contains(&shim.pid()));
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn the_daemon_goes_and_finds_its_containers_again() {
    let bench = Bench::new();
    let shim = bench
        .sh(
            "lasting",
            "while ! test -e /tmp/go; do sleep 0.01; done; echo went on; exit 5",
        )
        .await;
    shim.start().await.unwrap();
    drop(shim);
    let second = runtime_in(bench.path());
    let found = second
        .reconnect("lasting", &bench.bundle("lasting"))
        .await
        .unwrap();
    let Reconnected::Running(shim) = found else {
        panic!("{found:?}")
    };
    let attached = shim.attach(all()).await.unwrap();
    std::fs::write(bench.rootfs().join("tmp/go"), "").unwrap();
    assert_eq!(text(attached.output).await, "went on\n");
    assert_eq!(shim.wait().await.unwrap().code, 5);
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn an_exit_while_nobody_looks_is_on_disk_and_nothing_else_is_left() {
    let bench = Bench::new();
    let shim = bench.sh("alone", "echo last words; exit 9").await;
    shim.start().await.unwrap();
    drop(shim);
    eventually("the shim has ended by itself", || bench.shims().is_empty()).await;
    bench.assert_clean();
    let found = bench
        .runtime
        .reconnect("alone", &bench.bundle("alone"))
        .await
        .unwrap();
    let Reconnected::Exited(ExitStatus { code, .. }) = found else {
        panic!("{found:?}")
    };
    assert_eq!(code, 9);
    let log = std::fs::read_to_string(bench.log_path("alone")).unwrap();
    assert!(
        log.starts_with(r#"{"log":"last words\n","stream":"stdout","time":""#),
        "{log}"
    );
    let never = bench
        .runtime
        .reconnect("never", &bench.bundle("never"))
        .await
        .unwrap();
    assert!(matches!(never, Reconnected::Gone));
}

#[tokio::test]
async fn when_the_shim_itself_is_killed_the_container_is_ended_and_cleaned_up() {
    let bench = Bench::new();
    let shim = bench.sh("orphan", "sleep 1000").await;
    shim.start().await.unwrap();
    let pid = shim.pid();
    let waiting = {
        let shim = shim.clone();
        tokio::spawn(async move { shim.wait().await })
    };
    for shim in bench.shims() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::SIGKILL)
            .unwrap();
    }
    let status = tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(status.code, 137);
    eventually("the orphan is dead", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    })
    .await;
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_containers_are_made_at_once() {
    let bench = std::sync::Arc::new(Bench::new());
    let mut running = tokio::task::JoinSet::new();
    for number in 0..50 {
        let bench = bench.clone();
        running.spawn(async move {
            let id = format!("many{number}");
            let wish = bench.wish(&id, &["sh", "-c", &format!("echo {number}; exit {number}")]);
            let (code, text) = bench.run(&id, wish).await;
            assert_eq!((code, text), (number, format!("{number}\n")));
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    bench.assert_clean();
}
