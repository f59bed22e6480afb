//! The flags of `service create` and `service update`, seen from inside the task and from outside.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use serde_json::Value;
use skep_testkit::{Daemon, Outcome, eventually};

fn swarm() -> Daemon {
    let daemon = Daemon::start();
    daemon.ok("swarm init");
    daemon
}

#[track_caller]
fn service(daemon: &Daemon, args: &[&str]) -> Outcome {
    let begin = ["service", "create", "--detach"];
    daemon.docker().run(begin.iter().chain(args))
}

#[track_caller]
fn update(daemon: &Daemon, args: &[&str]) -> Outcome {
    let begin = ["service", "update", "--detach"];
    daemon.docker().run(begin.iter().chain(args))
}

#[track_caller]
fn spec(daemon: &Daemon, service: &str) -> Value {
    let text = daemon.ok(&format!("service inspect {service}"));
    serde_json::from_str::<Value>(&text).unwrap()[0]["Spec"].clone()
}

/// The only running container, once its service's tasks are all of the current spec.
#[track_caller]
fn container(daemon: &Daemon, service: &str) -> Value {
    let id = eventually(&format!("{service} runs"), || {
        let task = daemon
            .docker()
            .run([
                "service",
                "ps",
                "-q",
                "--no-trunc",
                "--filter",
                "desired-state=running",
                service,
            ])
            .ok();
        let format = "{{.Status.State}} {{.Status.ContainerStatus.ContainerID}}";
        let seen = daemon
            .docker()
            .run(["inspect", "--type=task", "-f", format, &task])
            .stdout;
        match seen.trim().split_once(' ') {
            Some(("running", id)) if !task.contains('\n') => Ok(id.to_owned()),
            _ => Err(daemon.ok(&format!("service ps --no-trunc {service}"))),
        }
    });
    let text = daemon.ok(&format!("inspect {id}"));
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

#[track_caller]
fn inside(daemon: &Daemon, container: &Value, script: &str) -> String {
    let id = container["Id"].as_str().unwrap();
    daemon.docker().run(["exec", id, "sh", "-c", script]).ok()
}

#[test]
fn what_the_flags_say_holds_inside_the_task() {
    let daemon = swarm();
    let file = daemon.scratch().join("env");
    std::fs::write(&file, "FROM_FILE=yes\n# no\n").unwrap();
    service(&daemon, &[
        "--name", "all", "--env", "A=1", "--env-file", file.to_str().unwrap(), "--host", "db:10.9.9.9",
        "--dns", "10.1.1.1", "--dns-search", "example.org", "--dns-option", "ndots:3", "--user", "1000:1001",
        "--group", "50", "--workdir", "/tmp", "--read-only", "--stop-signal", "SIGINT", "--stop-grace-period", "3s",
        "--tty", "--init", "--ulimit", "nofile=100:200", "--sysctl", "net.ipv4.ip_default_ttl=77", "--cap-add", "NET_ADMIN",
        "--cap-drop", "CHOWN", "--limit-pids", "64", "--limit-memory", "128m", "--limit-cpu", "0.5", "--reserve-memory",
        "32m", "--oom-score-adj", "300", "--hostname", "box-{{.Task.Slot}}", "--label", "l=1",
        "--container-label", "cl=2", "--entrypoint", "sh -c", "--log-driver", "json-file", "--log-opt", "max-size=1m",
        "--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m,tmpfs-mode=1770",
        "--mount", "type=volume,source=data-{{.Task.Slot}},target=/data,volume-label=who={{.Service.Name}}",
        "--mount", "type=bind,source=/proc,target=/hostproc,readonly",
        "busybox", "sleep 1000",
    ]).ok();
    let container = container(&daemon, "all");
    for (script, text) in [
        ("echo $A $FROM_FILE", "1 yes"),
        ("grep db /etc/hosts", "10.9.9.9\tdb"),
        ("cat /etc/resolv.conf", "nameserver 10.1.1.1"),
        ("cat /etc/resolv.conf", "search example.org"),
        ("cat /etc/resolv.conf", "options ndots:3"),
        ("id", "uid=1000 gid=1001 groups=50,1001"),
        ("pwd", "/tmp"),
        ("touch /x 2>&1 || true", "Read-only file system"),
        ("cat /proc/1/comm", "docker-init"),
        ("ulimit -n; ulimit -Hn", "100\n200"),
        ("cat /proc/sys/net/ipv4/ip_default_ttl", "77"),
        ("hostname", "box-1"),
        ("cat /proc/1/oom_score_adj", "300"),
        ("stat -c %a /scratch; df /scratch | tail -1", "1770"),
        ("grep -c . /hostproc/version", "1"),
    ] {
        let printed = inside(&daemon, &container, script);
        assert!(
            printed.replace("\r\n", "\n").contains(text),
            "{script}: {printed}"
        );
    }
    for (path, wanted) in [
        ("/HostConfig/PidsLimit", serde_json::json!(64)),
        ("/HostConfig/Memory", serde_json::json!(128 << 20)),
        ("/HostConfig/MemoryReservation", serde_json::json!(32 << 20)),
        ("/HostConfig/MemorySwap", serde_json::json!(256 << 20)),
        ("/HostConfig/NanoCpus", serde_json::json!(500_000_000)),
        ("/HostConfig/CapAdd", serde_json::json!(["CAP_NET_ADMIN"])),
        ("/HostConfig/CapDrop", serde_json::json!(["CAP_CHOWN"])),
        (
            "/HostConfig/LogConfig/Config/max-size",
            serde_json::json!("1m"),
        ),
        ("/Config/StopSignal", serde_json::json!("SIGINT")),
        ("/Config/StopTimeout", serde_json::json!(3)),
        ("/Config/Tty", serde_json::json!(true)),
        ("/Config/Labels/cl", serde_json::json!("2")),
        ("/Config/Labels/l", Value::Null),
        (
            "/Config/Labels/com.docker.swarm.service.name",
            serde_json::json!("all"),
        ),
        ("/Path", serde_json::json!("sh")),
    ] {
        let seen = container.pointer(path).cloned().unwrap_or_default();
        assert_eq!(seen, wanted, "{path}");
    }
    let labels = daemon
        .docker()
        .run(["volume", "inspect", "-f", "{{json .Labels}}", "data-1"])
        .ok();
    assert_eq!(labels, r#"{"who":"all"}"#);
}

#[test]
fn each_add_and_rm_changes_its_part_and_nothing_else() {
    let daemon = swarm();
    service(
        &daemon,
        &["--name", "s", "--env", "A=1", "busybox", "sleep", "1000"],
    )
    .ok();
    container(&daemon, "s");
    update(
        &daemon,
        &[
            "--env-add",
            "B=2",
            "--env-rm",
            "A",
            "--host-add",
            "x:10.0.0.1",
            "--dns-add",
            "10.1.1.1",
            "--dns-search-add",
            "a.b",
            "--dns-option-add",
            "ndots:2",
            "--group-add",
            "60",
            "--constraint-add",
            "node.role==manager",
            "--label-add",
            "l=1",
            "--container-label-add",
            "c=1",
            "--mount-add",
            "type=tmpfs,target=/t",
            "--cap-add",
            "SYS_TIME",
            "--ulimit-add",
            "nproc=50:60",
            "--sysctl-add",
            "net.ipv4.ip_default_ttl=70",
            "--placement-pref-add",
            "spread=node.labels.z",
            "--publish-add",
            "mode=host,target=80,published=18080",
            "--limit-memory",
            "64m",
            "--replicas-max-per-node",
            "2",
            "--args",
            "sleep 2000",
            "--hostname",
            "h",
            "--user",
            "nobody",
            "--workdir",
            "/etc",
            "--stop-grace-period",
            "1s",
            "--stop-signal",
            "SIGTERM",
            "--read-only",
            "--init",
            "--tty",
            "--oom-score-adj",
            "10",
            "--limit-pids",
            "70",
            "--restart-delay",
            "1s",
            "--restart-max-attempts",
            "3",
            "--restart-window",
            "5s",
            "--restart-condition",
            "on-failure",
            "--update-delay",
            "1s",
            "--update-order",
            "start-first",
            "--rollback-order",
            "start-first",
            "--log-driver",
            "none",
            "--health-cmd",
            "true",
            "--health-interval",
            "1s",
            "--health-retries",
            "2",
            "--health-timeout",
            "1s",
            "--health-start-period",
            "1s",
            "s",
        ],
    )
    .ok();
    let after = container(&daemon, "s");
    assert_eq!(
        inside(&daemon, &after, "echo $A $B; hostname; id -un; pwd").replace("\r\n", "\n"),
        "2\nh\nnobody\n/etc"
    );
    let seen = spec(&daemon, "s");
    let template = &seen["TaskTemplate"];
    for (path, wanted) in [
        (
            "/Placement/Constraints",
            serde_json::json!(["node.role==manager"]),
        ),
        ("/Placement/MaxReplicas", serde_json::json!(2)),
        (
            "/Placement/Preferences/0/Spread/SpreadDescriptor",
            serde_json::json!("node.labels.z"),
        ),
        ("/RestartPolicy/Condition", serde_json::json!("on-failure")),
        ("/RestartPolicy/MaxAttempts", serde_json::json!(3)),
        ("/ContainerSpec/Hosts", serde_json::json!(["10.0.0.1 x"])),
        (
            "/ContainerSpec/CapabilityAdd",
            serde_json::json!(["CAP_SYS_TIME"]),
        ),
        (
            "/ContainerSpec/Healthcheck/Test",
            serde_json::json!(["CMD-SHELL", "true"]),
        ),
        ("/LogDriver/Name", serde_json::json!("none")),
        ("/Resources/Limits/Pids", serde_json::json!(70)),
    ] {
        assert_eq!(
            template.pointer(path).cloned().unwrap_or_default(),
            wanted,
            "{path} {template}"
        );
    }
    assert_eq!(
        seen.pointer("/UpdateConfig/Order"),
        Some(&serde_json::json!("start-first"))
    );
    assert_eq!(
        seen.pointer("/EndpointSpec/Ports/0/PublishMode"),
        Some(&serde_json::json!("host"))
    );

    update(
        &daemon,
        &[
            "--env-rm",
            "B",
            "--host-rm",
            "x:10.0.0.1",
            "--dns-rm",
            "10.1.1.1",
            "--dns-search-rm",
            "a.b",
            "--dns-option-rm",
            "ndots:2",
            "--group-rm",
            "60",
            "--constraint-rm",
            "node.role==manager",
            "--label-rm",
            "l",
            "--container-label-rm",
            "c",
            "--mount-rm",
            "/t",
            "--cap-drop",
            "SYS_TIME",
            "--ulimit-rm",
            "nproc",
            "--sysctl-rm",
            "net.ipv4.ip_default_ttl",
            "--placement-pref-rm",
            "spread=node.labels.z",
            "--publish-rm",
            "mode=host,target=80,published=18080",
            "--no-healthcheck",
            "--limit-memory",
            "0",
            "s",
        ],
    )
    .ok();
    container(&daemon, "s");
    let seen = spec(&daemon, "s");
    let text = seen.to_string();
    for gone in [
        "10.0.0.1", "10.1.1.1", "a.b", "ndots", "\"60\"", "manager", "/t\"", "nproc", "ttl",
        "labels.z", "18080",
    ] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    assert_eq!(
        seen.pointer("/TaskTemplate/ContainerSpec/Healthcheck/Test"),
        Some(&serde_json::json!(["NONE"]))
    );
}

#[test]
fn bad_input_gets_dockers_words() {
    let daemon = swarm();
    for (args, text) in [
        (
            vec!["--constraint", "node.role=manager"],
            "constraint expected one operator from ==, !=",
        ),
        (vec!["--constraint", "node.*==x"], "key 'node.*' is invalid"),
        (
            vec![
                "--publish",
                "mode=host,target=80,published=8080",
                "--publish",
                "mode=host,target=81,published=8080",
            ],
            "duplicate published ports provided",
        ),
        (vec!["--limit-cpu", "0.0001"], "Must be at least 0.001"),
        (vec!["--limit-memory", "1m"], "Must be at least 4MiB"),
        (
            vec!["--mode", "global", "--replicas", "2"],
            "replicas can only be used with replicated or replicated-job mode",
        ),
        (vec!["--mode", "nonsense"], "Unknown mode: nonsense"),
        (
            vec!["--mode", "replicated-job", "--update-delay", "1s"],
            "update",
        ),
        (
            vec!["--max-concurrent", "2"],
            "max-concurrent can only be used with replicated-job mode",
        ),
        (
            vec!["--name", "under_score."],
            "name must be valid as a DNS name component",
        ),
        (
            vec![
                "--mount",
                "type=tmpfs,target=/a",
                "--mount",
                "type=tmpfs,target=/a",
            ],
            "duplicate mount point",
        ),
        (
            vec!["--health-cmd", "true", "--no-healthcheck"],
            "--no-healthcheck conflicts with --health-* options",
        ),
        (vec!["--restart-condition", "sometimes"], "invalid"),
        (
            vec!["--update-max-failure-ratio", "1.5"],
            "update-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (
            vec!["--endpoint-mode", "dnsrr", "--publish", "80:80"],
            "port published with ingress mode can't be used with dnsrr mode",
        ),
        (
            vec!["--label", "skep.placement.strategy=best"],
            "invalid value \"best\" of service label skep.placement.strategy",
        ),
    ] {
        let mut line = vec!["service", "create", "--detach"];
        line.extend(args);
        line.extend(["busybox", "true"]);
        let outcome = daemon.docker().run(&line);
        assert!(
            outcome.code != 0 && outcome.stderr.contains(text),
            "{text}: {outcome}"
        );
    }
    assert_eq!(daemon.ok("service ls -q"), "");
    service(&daemon, &["--name", "s", "busybox", "sleep", "1000"]).ok();
    let old = daemon
        .docker()
        .run([
            "service",
            "inspect",
            "-f",
            "{{.Version.Index}} {{.ID}}",
            "s",
        ])
        .ok();
    let (version, id) = old.split_once(' ').unwrap();
    update(&daemon, &["--label-add", "a=b", "s"]).ok();
    let body = r#"{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}},"Mode":{"Replicated":{"Replicas":1}}}"#;
    let answer = daemon
        .machine()
        .command("curl")
        .args(["-s", "--unix-socket"])
        .arg(daemon.socket())
        .args(["-H", "Content-Type: application/json", "-d", body])
        .arg(format!(
            "http://d/v1.47/services/{id}/update?version={version}"
        ))
        .output()
        .unwrap();
    let answer = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.contains("update out of sequence"), "{answer}");
}

#[test]
fn the_node_decides_what_services_may_ask_beyond_swarm() {
    let daemon = swarm();
    service(
        &daemon,
        &[
            "--name",
            "p",
            "--label",
            "skep.pid=host",
            "busybox",
            "sleep",
            "1000",
        ],
    )
    .ok();
    eventually("the refusal is on the task", || {
        let tasks = daemon.ok("service ps --no-trunc p");
        let text = "service label skep.pid is not allowed on this node";
        if tasks.contains(text) && tasks.contains("Rejected") {
            Ok(())
        } else {
            Err(tasks)
        }
    });
    drop(daemon);

    let config =
        tempfile_with(r#"{"swarm-allow": ["device", "shm-size", "pid", "ipc", "privileged"]}"#);
    let daemon = Daemon::builder()
        .image("busybox")
        .flag("--config-file")
        .flag(config.to_str().unwrap())
        .start()
        .unwrap();
    daemon.ok("swarm init");
    service(
        &daemon,
        &[
            "--name",
            "s",
            "--label",
            "skep.shm-size=1m",
            "--label",
            "skep.device=/dev/null:/dev/other:r",
            "--label",
            "skep.pid=host",
            "busybox",
            "sleep",
            "1000",
        ],
    )
    .ok();
    let first = container(&daemon, "s");
    let printed = inside(
        &daemon,
        &first,
        "df -k /dev/shm | tail -1; ls -l /dev/other; ps | wc -l",
    );
    assert!(
        printed.contains("1024") && printed.contains("/dev/other"),
        "{printed}"
    );
    assert_eq!(first["HostConfig"]["PidMode"], "host");
    update(
        &daemon,
        &[
            "--label-rm",
            "skep.pid",
            "--label-add",
            "skep.privileged=true",
            "s",
        ],
    )
    .ok();
    eventually("the task is a new one", || {
        let now = container(&daemon, "s");
        if now["Id"] == first["Id"] || now["HostConfig"]["Privileged"] != true {
            return Err(now["HostConfig"].to_string());
        }
        Ok(())
    });
    std::fs::remove_file(config).unwrap();
}

fn tempfile_with(text: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("skep-orch-{}.json", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn generic_resources_are_handed_out_and_run_out() {
    let daemon = Daemon::builder()
        .image("busybox")
        .flag("--node-generic-resource")
        .flag("gpu=one,gpu=two")
        .start()
        .unwrap();
    daemon.ok("swarm init");
    service(
        &daemon,
        &[
            "--name",
            "g",
            "--replicas",
            "3",
            "--generic-resource",
            "gpu=1",
            "busybox",
            "sh",
            "-c",
            "env; sleep 1000",
        ],
    )
    .ok();
    eventually("two run and one waits", || {
        let tasks = daemon.ok("service ps --no-trunc g");
        let running = tasks.matches("Running ").count();
        let waits = tasks.contains("no suitable node (insufficient resources on 1 node)");
        let log = daemon.ok("service logs --raw g");
        let told =
            log.contains("DOCKER_RESOURCE_GPU=one") && log.contains("DOCKER_RESOURCE_GPU=two");
        if running >= 2 && waits && told {
            Ok(())
        } else {
            Err(format!("{tasks}\n{log}"))
        }
    });
}
