//! Containers from their creation to their end, as root, with real processes.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failure in a test is a panic"
)]

mod support;

use bollard_stubs::models as m;
use futures::StreamExt as _;
use skep_engine::{
    ErrorKind, Filters, ListOptions, LogOptions, RemoveOptions, StopOptions, WaitCondition,
};
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_and_its_output_and_code_arrive() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let (code, output) = output_of(&engine, script("echo out; echo err >&2; exit 7")).await;
    assert_eq!((code, output.as_str()), (7, "out\nerr\n"));
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_remove_leaves_nothing() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let mut request = command(&["true"]);
    request.host_config.auto_remove = Some(true);
    let id = create(&engine, "gone", request).await;
    let removed = engine
        .wait_container(&id, WaitCondition::Removed)
        .await
        .unwrap();
    engine.start_container(&id).await.unwrap();
    assert_eq!(soon(removed).await.unwrap().status_code, 0);
    assert_eq!(
        engine
            .inspect_container(&id, false)
            .await
            .unwrap_err()
            .message,
        format!("No such container: {id}")
    );
    assert_eq!(
        std::fs::read_dir(lab.directory.path().join("data/containers"))
            .unwrap()
            .count(),
        0
    );
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&format!("c-{id}")), "{mounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_what_cannot_start_has_dockers_codes() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    for (word, code) in [("nothere", 127), ("/bin/plain", 126)] {
        let id = create(&engine, &format!("bad{code}"), command(&[word])).await;
        let error = engine.start_container(&id).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidParameter, "{error}");
        let state = engine
            .inspect_container(&id, false)
            .await
            .unwrap()
            .state
            .unwrap();
        assert_eq!(state.exit_code, Some(code), "{error}");
        assert_eq!(state.status, Some(m::ContainerStateStatusEnum::CREATED));
        assert_eq!(state.error.as_deref(), Some(error.message.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_the_containers_own() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let mut request = script(
        "id; hostname; pwd; echo $FOO $HOME; cat /etc/hostname; grep Cap /proc/self/status | head -n 2",
    );
    request.config.user = Some("app".to_owned());
    request.config.hostname = Some("box".to_owned());
    request.config.working_dir = Some("/made/here".to_owned());
    request.config.env = strings(&["FOO=bar"]);
    let (code, output) = output_of(&engine, request).await;
    assert_eq!(code, 0, "{output}");
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(
        lines[0],
        "uid=1000(app) gid=1000(app) groups=29(audio),1000(app)"
    );
    assert_eq!(&lines[1..5], ["box", "/made/here", "bar /data", "box"]);
    assert_eq!(lines[5], "CapInh:\t0000000000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_kill_restart_and_rename_leave_the_right_states() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let id = run(
        &engine,
        "web",
        script("trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"),
    )
    .await;
    // Before the trap is set, the first process does not hear the signal.
    output_has(&engine, "web", "ready").await;
    let start = std::time::Instant::now();
    engine
        .stop_container("web", StopOptions::default())
        .await
        .unwrap();
    assert!(
        start.elapsed().as_secs() < 8,
        "the stop signal was not enough"
    );
    let state = engine
        .inspect_container(&id, false)
        .await
        .unwrap()
        .state
        .unwrap();
    assert_eq!((state.exit_code, state.running), (Some(3), Some(false)));
    assert_eq!(
        engine
            .stop_container("web", StopOptions::default())
            .await
            .unwrap_err()
            .kind,
        ErrorKind::NotModified
    );

    engine.start_container(&id[..8]).await.unwrap();
    assert_eq!(
        engine.start_container(&id).await.unwrap_err().kind,
        ErrorKind::NotModified
    );
    engine.kill_container("web", None).await.unwrap();
    assert_eq!(wait(&engine, "web").await, 137);
    let error = engine.kill_container("web", None).await.unwrap_err();
    assert_eq!(error.message, format!("container {id} is not running"));

    engine
        .restart_container("web", StopOptions::default())
        .await
        .unwrap();
    engine.rename_container("web", "www").await.unwrap();
    let error = engine
        .remove_container("www", RemoveOptions::default())
        .await
        .unwrap_err();
    assert_eq!(
        error.message,
        "cannot remove container \"www\": container is running: stop the container before removing or force remove"
    );
    engine
        .restart_container(
            "www",
            StopOptions {
                timeout: Some(0),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    let list = engine
        .list_containers(ListOptions::default())
        .await
        .unwrap();
    assert_eq!(list[0].names, strings(&["/www"]));
    engine
        .remove_container(
            "www",
            RemoveOptions {
                force: true,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    assert!(
        engine
            .list_containers(ListOptions {
                all: true,
                ..Default::default()
            })
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_policy_counts_and_gives_up() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let mut request = script("exit 4");
    request.host_config.restart_policy = Some(m::RestartPolicy {
        name: Some(m::RestartPolicyNameEnum::ON_FAILURE),
        maximum_retry_count: Some(2),
    });
    let id = run(&engine, "again", request).await;
    assert_eq!(wait(&engine, &id).await, 4);
    let container = engine.inspect_container(&id, false).await.unwrap();
    assert_eq!(container.restart_count, Some(2));
    let mut events = engine
        .events()
        .subscribe(
            Some(skep_engine::UnixNanos(1)),
            Some(skep_engine::UnixNanos::now()),
            Filters::from_json(r#"{"event":["die"]}"#).unwrap(),
        )
        .unwrap();
    let mut deaths = 0;
    while events.next().await.is_some() {
        deaths += 1;
    }
    assert_eq!(deaths, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_to_the_last_line() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let id = run(
        &engine,
        "talker",
        script("for i in $(seq 1 200); do echo line $i; done; sleep 0.3; echo last"),
    )
    .await;
    let all = log_of(
        &engine,
        &id,
        LogOptions {
            follow: true,
            ..Default::default()
        },
    )
    .await;
    assert_eq!(all.lines().count(), 201);
    assert!(all.ends_with("line 200\nlast\n"));
    let tail = log_of(
        &engine,
        &id,
        LogOptions {
            tail: Some(2),
            ..Default::default()
        },
    )
    .await;
    assert_eq!(tail, "line 200\nlast\n");
}

/// The daemon of the test below: this test binary again, in a process that can be killed.
#[tokio::test(flavor = "multi_thread")]
async fn role_of_a_daemon_that_will_be_killed() {
    let Ok(directory) = std::env::var("SKEP_TEST_DAEMON") else {
        return;
    };
    let config = support::config_in(
        std::path::Path::new(&directory),
        &std::env::var("SKEP_TEST_CGROUP").unwrap(),
    );
    let engine = skep_engine::Engine::start(config).await.unwrap();
    run(
        &engine,
        "stays",
        script("echo before; while :; do sleep 0.1; [ -e /go ] && echo after && rm /go; done"),
    )
    .await;
    run(
        &engine,
        "ends",
        script("while [ ! -e /end ]; do sleep 0.1; done; exit 9"),
    )
    .await;
    std::fs::write(std::path::Path::new(&directory).join("ready"), "").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_killed_finds_its_containers_again() {
    let lab = Lab::new();
    drop_engine(lab.engine_with_busybox().await).await;
    let mut daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "role_of_a_daemon_that_will_be_killed",
            "--nocapture",
        ])
        .env("SKEP_TEST_DAEMON", lab.directory.path())
        .env("SKEP_TEST_CGROUP", lab.cgroup_parent())
        .spawn()
        .unwrap();
    let ready = lab.directory.path().join("ready");
    eventually(|| ready.exists() || daemon.try_wait().unwrap().is_some());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(ready.exists(), "the daemon did not come up");

    // Its containers live on; one ends while no daemon runs.
    let record = |name: &str| {
        let containers = std::fs::read_dir(lab.directory.path().join("data/containers")).unwrap();
        let records = containers
            .map(|dir| std::fs::read_to_string(dir.unwrap().path().join("config.json")).unwrap());
        let records = records.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
        records
            .into_iter()
            .find(|record| record["name"] == name)
            .unwrap()
    };
    let pid = record("stays")["state"]["pid"].as_i64().unwrap();
    let ending = record("ends")["state"]["pid"].as_i64().unwrap();
    std::fs::write(format!("/proc/{ending}/root/end"), "").unwrap();
    let gone = std::path::PathBuf::from(format!("/proc/{ending}"));
    eventually(|| !gone.exists());

    let engine = lab.engine().await;
    let state = engine
        .inspect_container("ends", false)
        .await
        .unwrap()
        .state
        .unwrap();
    assert_eq!((state.exit_code, state.running), (Some(9), Some(false)));
    let state = engine
        .inspect_container("stays", false)
        .await
        .unwrap()
        .state
        .unwrap();
    assert_eq!((state.pid, state.running), (Some(pid), Some(true)));
    std::fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
    eventually_async(|| async {
        log_of(&engine, "stays", LogOptions::default()).await == "before\nafter\n"
    })
    .await;
    engine
        .stop_container(
            "stays",
            StopOptions {
                timeout: Some(0),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(wait(&engine, "stays").await, 137);
}
