//! Talking to running containers: exec, attach, files, volumes, statistics; and tasks of a swarm.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failure in a test is a panic"
)]

mod support;

use std::sync::Arc;

use bollard_stubs::models as m;
use bytes::Bytes;
use futures::StreamExt as _;
use skep_agent::{Controller, ControllerError, Dependencies, Executor};
use skep_engine::executor::TaskExecutor;
use skep_engine::{
    AttachOptions, ErrorKind, ExecStart, Filters, LogOptions, PutArchiveOptions, RemoveOptions,
    StopOptions,
};
use skep_proto as proto;
use support::*;
use tokio::io::AsyncWriteExt as _;

const FOREVER: &str = "while :; do sleep 0.1; done";

async fn exec(engine: &Arc<skep_engine::Engine>, id: &str, config: m::ExecConfig) -> (i64, String) {
    let config = m::ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..config
    };
    let exec = engine.create_exec(id, config).await.unwrap();
    let attach = engine
        .start_exec(&exec, ExecStart::default())
        .await
        .unwrap()
        .unwrap();
    let output = soon(collect(attach)).await;
    eventually_async(|| async {
        engine
            .inspect_exec(&exec)
            .await
            .unwrap()
            .exit_code
            .is_some()
    })
    .await;
    (
        engine.inspect_exec(&exec).await.unwrap().exit_code.unwrap(),
        output,
    )
}

fn exec_of(words: &[&str]) -> m::ExecConfig {
    m::ExecConfig {
        cmd: strings(words),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_run_as_asked_and_report_their_codes() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let id = run(&engine, "host", script(FOREVER)).await;
    let config = m::ExecConfig {
        user: Some("app".to_owned()),
        env: strings(&["X=1"]),
        working_dir: Some("/tmp".to_owned()),
        ..exec_of(&["sh", "-c", "id -u; echo $X; pwd; exit 5"])
    };
    assert_eq!(
        exec(&engine, &id, config).await,
        (5, "1000\n1\n/tmp\n".to_owned())
    );

    let missing = engine
        .create_exec(&id, exec_of(&["nothere"]))
        .await
        .unwrap();
    let error = engine
        .start_exec(&missing, ExecStart::default())
        .await
        .err()
        .unwrap();
    assert!(error.message.contains("nothere"), "{error}");
    assert_eq!(
        engine.inspect_exec(&missing).await.unwrap().exit_code,
        Some(127)
    );

    engine.pause_container(&id).await.unwrap();
    let error = engine
        .create_exec(&id, exec_of(&["true"]))
        .await
        .unwrap_err();
    assert_eq!(
        error.message,
        format!("Container {id} is paused, unpause the container before exec")
    );
    engine.unpause_container(&id).await.unwrap();
    engine
        .stop_container(
            &id,
            StopOptions {
                timeout: Some(0),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    let error = engine
        .create_exec(&id, exec_of(&["true"]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, error.message),
        (
            ErrorKind::Conflict,
            format!("container {id} is not running")
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn input_reaches_a_container_that_was_attached_before_it_ran() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let mut request = command(&["cat"]);
    request.config.open_stdin = Some(true);
    request.config.stdin_once = Some(true);
    let id = create(&engine, "cat", request).await;
    let mut attach = engine
        .attach_container(
            &id,
            AttachOptions {
                stdin: true,
                ..all_output()
            },
        )
        .await
        .unwrap();
    let mut input = attach.input.take().unwrap();
    input.write_all(b"early\n").await.unwrap();
    engine.start_container(&id).await.unwrap();
    input.write_all(b"late\n").await.unwrap();
    input.shutdown().await.unwrap();
    assert_eq!(soon(collect(attach)).await, "early\nlate\n");
    assert_eq!(wait(&engine, &id).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_left_with_the_detach_keys_and_resized() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let mut request = command(&["sh"]);
    request.config.open_stdin = Some(true);
    request.config.tty = Some(true);
    let id = run(&engine, "tty", request).await;
    engine.resize_container(&id, 33, 101).await.unwrap();
    let mut attach = engine
        .attach_container(
            &id,
            AttachOptions {
                stdin: true,
                ..all_output()
            },
        )
        .await
        .unwrap();
    assert!(attach.tty);
    let mut input = attach.input.take().unwrap();
    input.write_all(b"stty size\n").await.unwrap();
    let mut seen = String::new();
    while !seen.contains("33 101") {
        seen.push_str(&String::from_utf8_lossy(
            &soon(attach.output.next()).await.expect("it ended").bytes,
        ));
    }
    input.write_all(&[16, 17]).await.unwrap();
    soon(async { while attach.output.next().await.is_some() {} }).await;
    assert_eq!(
        engine
            .inspect_container(&id, false)
            .await
            .unwrap()
            .state
            .unwrap()
            .running,
        Some(true)
    );
    engine
        .remove_container(
            &id,
            RemoveOptions {
                force: true,
                ..Default::default()
            },
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_filled_shared_and_removed_with_their_container() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let bind = lab.directory.path().join("bind");
    let mut request = script(
        "cat /data/seed; echo x > /anon/file; echo y > /bound/file; touch /ro/x 2>/dev/null || echo refused; \
         grep -c ' /scratch tmpfs' /proc/mounts",
    );
    request.config.volumes = strings(&["/anon"]);
    request.host_config.binds = Some(vec![
        "named:/data".to_owned(),
        format!("{}:/bound", bind.display()),
        format!("{}:/ro:ro", bind.display()),
    ]);
    request.host_config.tmpfs = Some([("/scratch".to_owned(), "size=1m".to_owned())].into());
    let id = run(&engine, "vols", request).await;
    assert_eq!(wait(&engine, &id).await, 0);
    assert_eq!(
        log_of(&engine, &id, LogOptions::default()).await,
        "from the image\nrefused\n1\n"
    );
    assert_eq!(std::fs::read_to_string(bind.join("file")).unwrap(), "y\n");
    let error = engine.remove_volume("named", false).await.unwrap_err();
    assert_eq!(
        error.message,
        format!("remove named: volume is in use - [{id}]")
    );
    let mounts = engine
        .inspect_container(&id, false)
        .await
        .unwrap()
        .mounts
        .unwrap();
    assert_eq!(mounts.len(), 4);
    engine
        .remove_container(
            &id,
            RemoveOptions {
                volumes: true,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    let left = engine
        .list_volumes(Filters::default())
        .await
        .unwrap()
        .volumes
        .unwrap();
    assert_eq!(
        left.iter()
            .map(|volume| volume.name.as_str())
            .collect::<Vec<_>>(),
        ["named"]
    );
    engine.remove_volume("named", false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_in_and_out_of_running_and_stopped_containers() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let id = run(&engine, "files", script(FOREVER)).await;
    for running in [true, false] {
        if !running {
            engine
                .stop_container(
                    &id,
                    StopOptions {
                        timeout: Some(0),
                        ..Default::default()
                    },
                )
                .await
                .unwrap();
        }
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o600);
        tar.append_data(&mut header, "sub/hello", &b"hello"[..])
            .unwrap();
        let body = futures::stream::iter([Ok(Bytes::from(tar.into_inner().unwrap()))]).boxed();
        engine
            .put_archive(&id, "/tmp", PutArchiveOptions::default(), body)
            .await
            .unwrap();
        let (stat, body) = engine.get_archive(&id, "/tmp/sub").await.unwrap();
        assert_eq!((stat.name.as_str(), stat.mode >> 31), ("sub", 1));
        let bytes: Vec<_> = soon(body.collect::<Vec<_>>())
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let mut archive = tar::Archive::new(std::io::Cursor::new(bytes.concat()));
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["sub/", "sub/hello"]);
        let error = engine.stat_archive(&id, "/nope").await.unwrap_err();
        assert_eq!(
            (error.kind, error.message),
            (
                ErrorKind::NotFound,
                format!("Could not find the file /nope in container {id}")
            )
        );
    }
    let changes = engine.changes_container(&id).await.unwrap();
    assert!(
        changes.iter().any(|change| change.path == "/tmp/sub/hello"),
        "{changes:?}"
    );
    let exported: Vec<_> = soon(
        engine
            .export_container(&id)
            .await
            .unwrap()
            .collect::<Vec<_>>(),
    )
    .await;
    assert!(
        exported
            .into_iter()
            .map(|chunk| chunk.unwrap().len())
            .sum::<usize>()
            > 100_000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_statistics_and_processes_are_those_of_the_container() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let mut request = script(FOREVER);
    request.host_config.memory = Some(64 << 20);
    let id = run(&engine, "limits", request).await;
    let mut stats = engine.stats_container(&id, false, true).await.unwrap();
    let sample = soon(stats.next()).await.unwrap().unwrap();
    assert_eq!(sample.memory_stats.unwrap().limit, Some(64 << 20));
    assert!(sample.networks.unwrap().contains_key("eth0"));
    let top = engine.top_container(&id, "").await.unwrap();
    assert!(
        top.processes
            .unwrap()
            .iter()
            .any(|row| row.last().unwrap().contains("while"))
    );
    let update = m::ContainerUpdateBody {
        memory: Some(32 << 20),
        memory_swap: Some(-1),
        ..Default::default()
    };
    engine.update_container(&id, update).await.unwrap();
    let sample = soon(
        engine
            .stats_container(&id, false, true)
            .await
            .unwrap()
            .next(),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(sample.memory_stats.unwrap().limit, Some(32 << 20));
    let info = engine.info().await.unwrap();
    assert_eq!(
        (info.containers_running, info.driver.as_deref()),
        (Some(1), Some("overlay2"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_turn_a_container_healthy_and_unhealthy() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let mut request = script(&format!("touch /tmp/ok; {FOREVER}"));
    request.config.healthcheck = Some(m::HealthConfig {
        test: strings(&["CMD-SHELL", "cat /tmp/ok && echo fine"]),
        interval: Some(50_000_000),
        retries: Some(1),
        ..Default::default()
    });
    let id = run(&engine, "health", request).await;
    let status = || async {
        engine
            .inspect_container(&id, false)
            .await
            .unwrap()
            .state
            .unwrap()
            .health
            .unwrap()
            .status
    };
    eventually_async(|| async { status().await == Some(m::HealthStatusEnum::HEALTHY) }).await;
    assert_eq!(exec(&engine, &id, exec_of(&["rm", "/tmp/ok"])).await.0, 0);
    eventually_async(|| async { status().await == Some(m::HealthStatusEnum::UNHEALTHY) }).await;
    let log = engine
        .inspect_container(&id, false)
        .await
        .unwrap()
        .state
        .unwrap()
        .health
        .unwrap()
        .log
        .unwrap();
    assert!(
        log.len() <= 5 && log.last().unwrap().exit_code == Some(1),
        "{log:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_namespaces_and_reach_each_other() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let first = run(&engine, "first", script(FOREVER)).await;
    let networks = engine
        .inspect_container(&first, false)
        .await
        .unwrap()
        .network_settings
        .unwrap()
        .networks
        .unwrap();
    let address = networks["bridge"].ip_address.clone().unwrap();
    let mut joined = script("ip addr show eth0");
    joined.host_config.network_mode = Some("container:first".to_owned());
    joined.host_config.pid_mode = Some("container:first".to_owned());
    let (code, output) = output_of(&engine, joined).await;
    assert!(code == 0 && output.contains(&address), "{output}");
    let (_, hosts) = output_of(&engine, script("cat /etc/hosts /etc/resolv.conf")).await;
    assert!(
        hosts.contains("127.0.0.1\tlocalhost") && hosts.contains("nameserver"),
        "{hosts}"
    );
    let mut alone = script("ip link | grep -c mtu");
    alone.host_config.network_mode = Some("none".to_owned());
    assert_eq!(output_of(&engine, alone).await.1, "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileges_are_dockers_defaults_or_what_was_asked() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let probe = "grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status";
    let (_, output) = output_of(&engine, script(probe)).await;
    assert_eq!(
        output,
        "CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n"
    );
    let mut request = script(probe);
    request.host_config.cap_drop = strings(&["ALL"]);
    request.host_config.security_opt = strings(&["no-new-privileges", "seccomp=unconfined"]);
    let (_, output) = output_of(&engine, request).await;
    assert_eq!(
        output,
        "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t0\n"
    );
    let mut request = script("touch /x 2>/dev/null || echo refused");
    request.host_config.readonly_rootfs = Some(true);
    assert_eq!(output_of(&engine, request).await.1, "refused\n");
}

fn task(id: &str, spec: proto::ContainerSpec) -> skep_model::Task {
    skep_model::Task {
        id: skep_model::TaskId::from(id.to_owned()),
        slot: skep_model::Slot(1),
        spec: Arc::new(proto::TaskSpec {
            runtime: Some(proto::task_spec::Runtime::Container(spec)),
            ..Default::default()
        }),
        service_annotations: Arc::new(proto::Annotations {
            name: "timecheck".to_owned(),
            ..Default::default()
        }),
        ..skep_model::Task::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_is_adopted_and_says_how_it_ended() {
    let lab = Lab::new();
    let engine = lab.engine_with_busybox().await;
    let executor = TaskExecutor::new(engine.clone());
    assert!(
        executor
            .describe()
            .await
            .unwrap()
            .resources
            .unwrap()
            .memory_bytes
            > 0
    );
    let id = "abcdefghijklmnopqrstuvwxy";
    let spec = proto::ContainerSpec {
        image: "busybox".to_owned(),
        command: vec!["sh".to_owned(), "-c".to_owned()],
        args: vec![format!("echo $WHO; {FOREVER}")],
        env: vec!["WHO={{.Service.Name}}.{{.Task.Slot}}".to_owned()],
        ..Default::default()
    };
    let make = |spec| {
        executor
            .controller(&task(id, spec), Arc::new(Dependencies::default()))
            .unwrap()
    };
    let controller: Arc<dyn Controller> = make(spec.clone());
    controller.prepare().await.unwrap();
    controller.start().await.unwrap();
    let name = format!("timecheck.1.{id}");
    assert_eq!(
        engine.inspect_container(&name, false).await.unwrap().name,
        Some(format!("/{name}"))
    );

    // An agent that starts anew finds what it had.
    let again = make(spec);
    assert_eq!(again.prepare().await, Err(ControllerError::TaskPrepared));
    assert_eq!(again.start().await, Err(ControllerError::TaskStarted));
    let mut logs = again
        .logs(proto::LogSubscriptionOptions {
            follow: true,
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(
        soon(logs.next()).await.unwrap().unwrap().data,
        b"timecheck.1\n"
    );

    let ended = tokio::spawn(async move { again.wait().await });
    eventually_async(|| async { engine.inspect_container(&name, false).await.is_ok() }).await;
    engine
        .remove_container(
            &name,
            RemoveOptions {
                force: true,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    match soon(ended).await.unwrap() {
        // The wait had begun before the removal, or found nothing any more.
        Err(error @ ControllerError::Exit { .. }) => {
            assert_eq!(error.to_string(), "task: non-zero exit (137)");
        }
        Err(ControllerError::Fatal(text)) => assert_eq!(text, format!("No such container: {name}")),
        other => panic!("{other:?}"),
    }
    controller.remove().await.unwrap();
    let missing = proto::ContainerSpec {
        image: "nothere".to_owned(),
        ..Default::default()
    };
    let error = make(missing).prepare().await.unwrap_err().to_string();
    assert!(
        error.starts_with("No such image: nothere:latest: "),
        "{error}"
    );
}
