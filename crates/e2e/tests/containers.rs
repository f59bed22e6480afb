//! `docker run` and the life of a container, as a user types it.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;
use skep_testkit::{Daemon, eventually};

fn inspect(daemon: &Daemon, container: &str) -> Value {
    let text = daemon.docker().run(["inspect", container]).ok();
    let all: Value = serde_json::from_str(&text).unwrap();
    all[0].clone()
}

#[test]
fn run_shows_the_output_and_passes_the_exit_code_on() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ok("run --rm busybox echo hello"), "hello");
    let outcome = daemon.docker().run([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ]);
    assert_eq!(
        (outcome.code, outcome.stdout.trim(), outcome.stderr.trim()),
        (3, "out", "err")
    );
    assert_eq!(daemon.ok("ps -aq"), "", "--rm removed both");
}

#[test]
fn run_reads_standard_input() {
    let daemon = Daemon::start();
    let mut child = daemon
        .docker()
        .command(["run", "--rm", "-i", "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"through the pipe\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "through the pipe\n"
    );
    assert!(output.status.success());
}

#[test]
fn run_with_a_tty_gives_a_terminal_of_the_clients_size() {
    let daemon = Daemon::start();
    let docker = daemon.docker().command([
        "run",
        "--rm",
        "-it",
        "busybox",
        "sh",
        "-c",
        "tty; stty size",
    ]);
    let line = std::iter::once(docker.get_program())
        .chain(docker.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ");
    let mut script = std::process::Command::new("script");
    for (key, value) in docker.get_envs() {
        match value {
            Some(value) => script.env(key, value),
            None => script.env_remove(key),
        };
    }
    let output = script
        .args([
            "-qec",
            &format!("stty rows 33 cols 77; {line}"),
            "/dev/null",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(text.contains("/dev/pts/0"), "{text}");
    assert!(text.contains("33 77"), "{text}");
}

#[test]
fn run_honours_environment_directory_user_hostname_and_entrypoint() {
    let daemon = Daemon::start();
    assert_eq!(
        daemon
            .docker()
            .run([
                "run", "--rm", "-e", "A=b c", "busybox", "sh", "-c", "echo $A"
            ])
            .ok(),
        "b c"
    );
    assert_eq!(daemon.ok("run --rm -w /tmp/new busybox pwd"), "/tmp/new");
    assert_eq!(daemon.ok("run --rm -u 1000:1001 busybox id -u"), "1000");
    assert_eq!(daemon.ok("run --rm -u 1000:1001 busybox id -g"), "1001");
    assert_eq!(
        daemon.ok("run --rm --hostname deep busybox hostname"),
        "deep"
    );
    assert_eq!(
        daemon.ok("run --rm --entrypoint echo busybox entry point"),
        "entry point"
    );
    assert_eq!(daemon.ok("run --rm --init busybox sh -c true"), "");
    let pid_one = daemon
        .docker()
        .run(["run", "--rm", "--init", "busybox", "sh", "-c", "echo $$"])
        .ok();
    assert_ne!(pid_one, "1", "with --init the command is not process 1");
}

#[test]
fn mounts_bind_tmpfs_and_read_only_root() {
    let daemon = Daemon::start();
    let host = daemon.scratch().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "from the host").unwrap();
    let host = host.display();
    assert_eq!(
        daemon.ok(&format!("run --rm -v {host}:/in:ro busybox cat /in/file")),
        "from the host"
    );
    let refused = daemon.docker().run([
        "run",
        "--rm",
        "-v",
        &format!("{host}:/in:ro"),
        "busybox",
        "touch",
        "/in/x",
    ]);
    assert!(
        refused.stderr.contains("Read-only file system"),
        "{refused}"
    );
    assert_eq!(
        daemon.ok(&format!(
            "run --rm --mount type=bind,source={host},target=/in busybox cat /in/file"
        )),
        "from the host"
    );
    assert!(
        daemon
            .sh("run --rm --read-only busybox touch /x")
            .stderr
            .contains("Read-only file system")
    );
    assert_eq!(
        daemon.ok("run --rm --read-only --tmpfs /scratch:size=1m busybox touch /scratch/x"),
        ""
    );
    let missing =
        daemon.sh("run --rm --mount type=bind,source=/no/such/dir,target=/in busybox true");
    assert!(
        missing.clone().fails_with(125).contains(
            "invalid mount config for type \"bind\": bind source path does not exist: /no/such/dir"
        ),
        "{missing}"
    );
}

#[test]
fn volumes_keep_data_and_are_shared_with_volumes_from() {
    let daemon = Daemon::start();
    daemon.ok("volume create data");
    daemon.ok("run --name data -v data:/data busybox touch /data/kept");
    assert_eq!(
        daemon.ok("run --rm --volumes-from data busybox ls /data"),
        "kept"
    );
    assert_eq!(daemon.ok("volume ls -q"), "data");
    let in_use = daemon.sh("volume rm data").fails_with(1);
    assert!(in_use.contains("volume is in use"), "{in_use}");
    daemon.ok("rm data");
    daemon.ok("volume rm data");
}

#[test]
fn limits_reach_the_cgroup() {
    let daemon = Daemon::start();
    daemon.ok("run -d --name limited --memory 64m --cpus 0.5 --pids-limit 50 busybox sleep 1000");
    let seen = inspect(&daemon, "limited");
    assert_eq!(seen["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(seen["HostConfig"]["NanoCpus"], 500_000_000);
    assert_eq!(seen["HostConfig"]["PidsLimit"], 50);
    let read = |v1: &str, v2: &str| {
        let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
        daemon
            .docker()
            .run(["exec", "limited", "sh", "-c", &script])
            .ok()
    };
    assert_eq!(
        read("memory/memory.limit_in_bytes", "memory.max"),
        (64 << 20).to_string()
    );
    assert_eq!(read("pids/pids.max", "pids.max"), "50");
    assert!(["50000", "50000 100000"].contains(&read("cpu/cpu.cfs_quota_us", "cpu.max").as_str()));
    let oom = daemon.docker().run([
        "run",
        "--name",
        "greedy",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        "head -c 200m /dev/zero | tail > /dev/null",
    ]);
    assert_eq!(oom.code, 137, "{oom}");
    assert_eq!(inspect(&daemon, "greedy")["State"]["OOMKilled"], true);
    assert!(
        daemon
            .sh("run --rm --memory 1m busybox true")
            .fails_with(125)
            .contains("Minimum memory limit allowed is 6MB")
    );
}

#[test]
fn capabilities_are_dockers_and_can_be_changed() {
    let daemon = Daemon::start();
    let effective = |flags: &str| {
        let line = format!("run --rm {flags} busybox grep CapEff /proc/self/status");
        daemon
            .ok(&line)
            .split_whitespace()
            .last()
            .unwrap()
            .to_owned()
    };
    assert_eq!(effective(""), "00000000a80425fb", "Docker's fourteen");
    assert_eq!(effective("--cap-drop ALL"), "0000000000000000");
    assert_eq!(
        effective("--cap-drop ALL --cap-add NET_ADMIN"),
        "0000000000001000"
    );
    assert!(
        daemon
            .ok("run --rm busybox grep Seccomp: /proc/self/status")
            .ends_with('2')
    );
    assert!(
        daemon
            .ok("run --rm --privileged busybox grep Seccomp: /proc/self/status")
            .ends_with('0')
    );
    assert_eq!(
        daemon.ok("run --rm --privileged busybox mount -t tmpfs none /tmp"),
        ""
    );
    let unprivileged = daemon.sh("run --rm busybox mount -t tmpfs none /tmp");
    assert_ne!(unprivileged.code, 0);
}

#[test]
fn the_life_of_a_container() {
    let daemon = Daemon::start();
    let id = daemon.ok("create --name one busybox sleep 1000");
    assert_eq!(id.len(), 64);
    assert_eq!(
        daemon.ok("ps -a --format {{.Names}}:{{.State}}"),
        "one:created"
    );
    daemon.ok("start one");
    assert_eq!(inspect(&daemon, "one")["State"]["Status"], "running");
    daemon.ok("pause one");
    assert!(
        daemon
            .docker()
            .run(["ps", "--format", "{{.Status}}"])
            .ok()
            .ends_with("(Paused)")
    );
    daemon.ok("unpause one");
    daemon.ok("rename one two");
    daemon.ok("stop -t 0 two");
    let state = inspect(&daemon, "two")["State"].clone();
    assert_eq!(
        (&state["Status"], &state["ExitCode"]),
        (&"exited".into(), &137.into())
    );
    daemon.ok("restart -t 0 two");
    daemon.ok("kill -s TERM two");
    // busybox sleep as process 1 has no TERM handler, so the signal is ignored by the kernel.
    assert_eq!(inspect(&daemon, "two")["State"]["Status"], "running");
    let running = daemon.sh("rm two").fails_with(1);
    assert!(
        running.contains("cannot remove container") && running.contains("container is running"),
        "{running}"
    );
    daemon.ok("rm -f two");
    assert!(
        daemon
            .sh("inspect two")
            .fails_with(1)
            .contains("No such object: two")
    );
    assert!(
        daemon
            .sh("start two")
            .fails_with(1)
            .contains("No such container: two")
    );
}

#[test]
fn wait_gives_the_exit_code() {
    let daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "-d",
            "--name",
            "ww",
            "busybox",
            "sh",
            "-c",
            "read x; exit 7",
        ])
        .ok();
    // Standard input is closed: `read` ends at once.
    assert_eq!(daemon.ok("wait ww"), "7");
    assert_eq!(daemon.ok("wait ww"), "7", "also when it ended before");
}

#[test]
fn exec_runs_beside_the_command() {
    let daemon = Daemon::start();
    daemon.ok("run -d --name cc busybox sleep 1000");
    assert_eq!(daemon.ok("exec cc echo inside"), "inside");
    assert_eq!(
        daemon
            .docker()
            .run([
                "exec",
                "-e",
                "X=y",
                "-w",
                "/tmp",
                "cc",
                "sh",
                "-c",
                "echo $X $PWD"
            ])
            .ok(),
        "y /tmp"
    );
    assert_eq!(daemon.ok("exec -u 12:34 cc id -u"), "12");
    assert_eq!(
        daemon
            .docker()
            .run(["exec", "cc", "sh", "-c", "exit 9"])
            .code,
        9
    );
    let caps = daemon.ok("exec cc grep CapEff /proc/self/status");
    assert!(caps.ends_with("00000000a80425fb"), "{caps}");
    assert!(
        daemon
            .ok("exec cc grep Seccomp: /proc/self/status")
            .ends_with('2')
    );
    assert!(
        daemon
            .ok("exec cc grep NoNewPrivs /proc/self/status")
            .ends_with('0')
    );
    let missing = daemon.sh("exec cc nope");
    assert_eq!(missing.code, 127, "{missing}");
    // As with dockerd, the text comes through the stream that was opened for the command.
    assert!(
        missing
            .stdout
            .contains("exec: \"nope\": executable file not found in $PATH"),
        "{missing}"
    );
    daemon.ok("exec -d cc touch /made");
    eventually("the detached command ran", || {
        let outcome = daemon.sh("exec cc test -e /made");
        if outcome.code == 0 {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    let mut child = daemon
        .docker()
        .command(["exec", "-i", "cc", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"echo").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"echo");
    daemon.ok("stop -t 0 cc");
    let stopped = daemon.sh("exec cc true").fails_with(1);
    assert!(stopped.contains("is not running"), "{stopped}");
}

#[test]
fn ps_filters_and_formats() {
    let daemon = Daemon::start();
    daemon.ok("run -d --name aa --label tier=web busybox sleep 1000");
    daemon.ok("run --name bb --label tier=db busybox true");
    assert_eq!(daemon.ok("ps --format {{.Names}}"), "aa");
    assert_eq!(daemon.ok("ps -a --format {{.Names}}"), "bb\naa");
    assert_eq!(daemon.ok("ps -a --last 1 --format {{.Names}}"), "bb");
    assert_eq!(
        daemon.ok("ps -a --filter label=tier=web --format {{.Names}}"),
        "aa"
    );
    assert_eq!(
        daemon.ok("ps -a --filter status=exited --format {{.Names}}"),
        "bb"
    );
    assert_eq!(
        daemon.ok("ps -a --filter exited=0 --format {{.Names}}"),
        "bb"
    );
    assert_eq!(
        daemon.ok("ps -a --filter name=^/aa$ --format {{.Names}}"),
        "aa"
    );
    assert!(
        daemon
            .docker()
            .run(["ps", "-a", "--filter", "nonsense=1"])
            .fails_with(1)
            .contains("invalid filter 'nonsense'")
    );
    let table = daemon.ok("ps -a");
    assert!(table.starts_with("CONTAINER ID   IMAGE"), "{table}");
    assert!(table.contains("Exited (0)"), "{table}");
}

#[test]
fn top_lists_the_processes() {
    let daemon = Daemon::start();
    daemon.ok("run -d --name cc busybox sleep 1234");
    let table = daemon.ok("top cc");
    assert!(table.lines().next().unwrap().contains("PID"), "{table}");
    assert!(table.contains("sleep 1234"), "{table}");
}

#[test]
fn attach_joins_the_running_command() {
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
            "read x; echo got $x; exit 4",
        ])
        .ok();
    let mut child = daemon
        .docker()
        .command(["attach", "cc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(b"word\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "got word\n");
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn restart_policies_start_it_again() {
    let daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "-d",
            "--name",
            "rr",
            "--restart",
            "on-failure:2",
            "busybox",
            "sh",
            "-c",
            "exit 5",
        ])
        .ok();
    eventually("it gave up after two restarts", || {
        let seen = inspect(&daemon, "rr");
        if seen["RestartCount"] == 2 && seen["State"]["Status"] == "exited" {
            Ok(())
        } else {
            Err(seen["State"].to_string())
        }
    });
    daemon.ok("run -d --name always --restart always busybox sleep 1000");
    let first = inspect(&daemon, "always")["State"]["Pid"].as_i64().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(first as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    eventually("it runs again", || {
        let state = inspect(&daemon, "always")["State"].clone();
        if state["Running"] == true && state["Pid"] != first {
            Ok(())
        } else {
            Err(state.to_string())
        }
    });
    daemon.ok("stop -t 0 always");
    assert_eq!(
        inspect(&daemon, "always")["State"]["Status"],
        "exited",
        "a manual stop holds"
    );
}

#[test]
fn events_tell_the_story() {
    let daemon = Daemon::start();
    let since = daemon
        .docker()
        .run(["info", "--format", "{{.SystemTime}}"])
        .ok();
    daemon.ok("run --name ee busybox true");
    daemon.ok("rm ee");
    let until = daemon
        .docker()
        .run(["info", "--format", "{{.SystemTime}}"])
        .ok();
    let story = daemon
        .docker()
        .run([
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--filter",
            "type=container",
            "--format",
            "{{.Action}}",
        ])
        .ok();
    let actions: Vec<&str> = story.lines().collect();
    for action in ["create", "attach", "start", "die", "destroy"] {
        assert!(
            actions.contains(&action),
            "{action} is missing in {actions:?}"
        );
    }
    assert!(actions.iter().position(|a| *a == "start") < actions.iter().position(|a| *a == "die"));
}

#[test]
fn the_default_bridge_gives_an_address_a_gateway_and_a_way_out() {
    let daemon = Daemon::start();
    daemon.ok("run -d --name one busybox sleep 1000");
    let seen = inspect(&daemon, "one");
    let bridge = &seen["NetworkSettings"]["Networks"]["bridge"];
    assert_eq!(bridge["IPAddress"], "172.17.0.2");
    assert_eq!(bridge["Gateway"], "172.17.0.1");
    assert_eq!(bridge["IPPrefixLen"], 16);
    daemon.ok("run --rm busybox ping -c 1 -W 2 -q 172.17.0.1");
    daemon.ok("run --rm busybox ping -c 1 -W 2 -q 172.17.0.2");
    // The router knows no way back to 172.17.0.0/16, so an answer proves the NAT.
    daemon.ok(&format!(
        "run --rm busybox ping -c 1 -W 2 -q {}",
        skep_testkit::Machine::OUTSIDE
    ));
    let none = daemon.ok("run --rm --network none busybox ip -o link");
    assert_eq!(none.lines().count(), 1, "only lo: {none}");
    let host = daemon.ok("run --rm --network host busybox ip -o link");
    assert!(host.contains("docker0"), "{host}");
}

#[test]
fn labels_and_inspect_formats() {
    let daemon = Daemon::start();
    daemon.ok("run -d --name cc --label a=b busybox sleep 1000");
    assert_eq!(
        daemon
            .docker()
            .run(["inspect", "-f", "{{.Config.Labels.a}}", "cc"])
            .ok(),
        "b"
    );
    assert_eq!(
        daemon
            .docker()
            .run(["inspect", "-f", "{{json .Config.Cmd}}", "cc"])
            .ok(),
        r#"["sleep","1000"]"#
    );
    assert_eq!(
        daemon
            .docker()
            .run(["inspect", "-f", "{{.State.Running}}", "cc"])
            .ok(),
        "true"
    );
}

#[test]
fn nothing_is_left_behind() {
    let mut daemon = Daemon::start();
    for _ in 0..3 {
        daemon.ok("run --rm busybox true");
    }
    daemon.ok("run -d --restart always busybox sleep 1000");
    daemon.ok("run -d -v /data busybox sleep 1000");
    let _ = daemon.sh("run busybox no-such-command");
    assert_eq!(daemon.stop_and_list_leftovers(), Vec::<String>::new());
}
