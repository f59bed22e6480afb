//! What people do with containers beyond running them; and what is refused, with Docker's texts.

use std::process::Stdio;

use skep_testkit::{Daemon, eventually};

/// A container that sleeps.
fn sleeper(daemon: &Daemon, name: &str, flags: &str) {
    daemon.ok(&format!(
        "run -d --name {name} {flags} busybox sleep 100000"
    ));
}

fn shell(daemon: &Daemon, flags: &str, script: &str) -> skep_testkit::Outcome {
    let flags = flags.split_whitespace();
    let line = ["run", "--rm"]
        .into_iter()
        .chain(flags)
        .chain(["busybox", "sh", "-c", script]);
    daemon.docker().run(line)
}

#[test]
fn a_client_whose_input_stays_open_ends_with_its_container() {
    let daemon = Daemon::start();
    daemon.ok("create -i --name later busybox sh -c exit");
    daemon.ok("create -i --name waiting busybox cat");
    daemon.ok("start waiting");
    for line in [
        "run --rm -i busybox true",
        "start -ai later",
        "attach waiting",
    ] {
        let mut child = daemon
            .docker()
            .command(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        if line.starts_with("attach") {
            daemon.ok("kill waiting");
        }
        eventually(line, || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        drop(input);
    }
}

#[test]
fn init_is_built_in_passes_signals_on_and_collects_orphans() {
    let daemon = Daemon::start();
    let outcome = shell(
        &daemon,
        "--init",
        "cat /proc/1/comm; test $$ != 1 && exit 6",
    );
    assert_eq!((outcome.code, outcome.stdout.trim()), (6, "docker-init"));
    assert_eq!(shell(&daemon, "--init", "kill -9 $$").code, 137);
    // The command's user may write to the container's output by its well-known path.
    assert_eq!(
        shell(&daemon, "--init -u 1000", "echo by path > /proc/1/fd/1").ok(),
        "by path"
    );
    let missing = daemon
        .sh("run --rm --init busybox no-such-program")
        .fails_with(127);
    assert!(
        missing.contains("exec no-such-program failed: No such file or directory"),
        "{missing}"
    );

    daemon
        .docker()
        .run([
            "run",
            "-d",
            "--name",
            "box",
            "--init",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 9' TERM; (sleep 0 & exec true); echo ready; while :; do sleep 0.05; done",
        ])
        .ok();
    eventually("the trap is set", || match daemon.ok("logs box").as_str() {
        "ready" => Ok(()),
        other => Err(other.to_owned()),
    });
    eventually("the orphan is collected", || {
        let processes = daemon.ok("exec box ps -o stat,args");
        if processes.lines().any(|line| line.starts_with('Z')) {
            Err(processes)
        } else {
            Ok(())
        }
    });
    daemon.ok("stop -t 20 box");
    assert_eq!(daemon.ok("wait box"), "9");
}

#[test]
fn a_configured_init_is_used_instead_of_the_built_in_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::temp_dir().join(format!("skep-init-{}", std::process::id()));
    // The image has no interpreter for it: if anything else is used, the command runs.
    std::fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let flag = format!("--init-path={}", path.display());
    let daemon = Daemon::builder()
        .flag(&flag)
        .image("busybox")
        .start()
        .unwrap();
    let outcome = daemon.sh("run --rm --init busybox true");
    std::fs::remove_file(&path).unwrap();
    assert_ne!(outcome.code, 0, "{outcome}");
}

#[test]
fn bad_input_gets_dockers_text_and_code_and_leaves_nothing() {
    let mut daemon = Daemon::start();
    let refused = [
        (
            "-u nosuch",
            125,
            "unable to find user nosuch: no matching entries in passwd file",
        ),
        (
            "-u 0:nosuch",
            125,
            "unable to find group nosuch: no matching entries in group file",
        ),
        (
            "-u 99999999999",
            125,
            "uids and gids must be in range 0-2147483647",
        ),
        (
            "-w relative",
            125,
            "the working directory 'relative' is invalid, it needs to be an absolute path",
        ),
        (
            "-v /a:b",
            125,
            "invalid mount path: 'b' mount path must be absolute",
        ),
        ("-v /:/", 125, "destination can't be '/'"),
        ("-v data:/x:zz", 125, "invalid mode: zz"),
        (
            "--mount type=bind,src=/no/such,dst=/x",
            125,
            "bind source path does not exist: /no/such",
        ),
        ("--tmpfs /x:foo", 125, r#"invalid tmpfs option ["foo"]"#),
        (
            "--device /no/such",
            127,
            r#"error gathering device information while adding custom device "/no/such": no such file or directory"#,
        ),
        ("-m 1m", 125, "Minimum memory limit allowed is 6MB"),
        ("--cpus 9999", 125, "ange of CPUs is from 0.01 to"),
        (
            "--cpuset-cpus x",
            125,
            "Invalid value x for cpuset cpus: invalid format: x",
        ),
        ("--cap-add NOPE", 125, r#"unknown capability: "CAP_NOPE""#),
        (
            "--log-opt a=b",
            125,
            "unknown log opt 'a' for json-file log driver",
        ),
        (
            "--log-driver foo",
            125,
            r#"error looking up logging plugin foo: plugin "foo" not found"#,
        ),
        (
            "--log-opt mode=fast",
            125,
            "logger: logging mode not supported: fast",
        ),
        (
            "--log-opt max-buffer-size=1m",
            125,
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        ("--network nope", 125, "network nope not found"),
        ("--pid container:nope", 125, "No such container: nope"),
        (
            "--name a/b",
            125,
            "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        ),
        ("--stop-signal FOO", 125, "nvalid signal: FOO"),
    ];
    for (flags, code, text) in refused {
        let outcome = daemon.sh(&format!("run --rm -v fresh:/fresh {flags} busybox true"));
        let said = outcome.clone().fails_with(code);
        assert!(said.contains(text), "{flags}: {said}");
        // The CLI waits for the removal, which has succeeded.
        assert!(
            !said.contains("Error waiting for container"),
            "{flags}: {said}"
        );
        assert_eq!(daemon.ok("ps -aq"), "", "{flags}");
    }
    for (program, code, text) in [
        (
            "no-such-program",
            127,
            r#"exec: "no-such-program": executable file not found in $PATH"#,
        ),
        (
            "/etc/passwd",
            126,
            r#"exec: "/etc/passwd": permission denied"#,
        ),
    ] {
        let said = daemon
            .sh(&format!("run --rm busybox {program}"))
            .fails_with(code);
        assert!(said.contains(text), "{said}");
        assert_eq!(daemon.ok("ps -aq"), "");
    }
    daemon.ok("volume rm -f fresh");
    assert_eq!(daemon.ok("volume ls -q"), "");
    assert_eq!(daemon.stop_and_list_leftovers(), Vec::<String>::new());
}

#[test]
fn users_come_from_the_image() {
    let daemon = Daemon::start();
    assert_eq!(
        shell(&daemon, "-u nobody", "id -un; id -gn; echo $HOME").ok(),
        "nobody\nnogroup\n/home"
    );
    assert_eq!(
        shell(&daemon, "-u 1234 -e HOME=", "id -u; echo $HOME").ok(),
        "1234\n/"
    );
    assert_eq!(
        shell(&daemon, "-u nobody:0 --group-add 55", "id -g; id -G").ok(),
        "0\n0 55"
    );
    assert_eq!(
        shell(&daemon, "-u 1000 -w /made/for/it", "pwd; stat -c %u .").ok(),
        "/made/for/it\n0"
    );
}

#[test]
fn volumes_of_a_container_go_with_it_unless_they_have_a_name() {
    let daemon = Daemon::start();
    daemon.ok("run --rm -v /anonymous -v named:/named busybox touch /named/file");
    assert_eq!(daemon.ok("volume ls -q"), "named");
    daemon.ok("run --name box -v /anonymous busybox true");
    assert_eq!(daemon.ok("volume ls -q").lines().count(), 2);
    daemon.ok("rm -v box");
    assert_eq!(daemon.ok("volume ls -q"), "named");
    assert_eq!(daemon.ok("run --rm -v named:/n busybox ls /n"), "file");
}

#[test]
fn ps_finds_names_by_regular_expression() {
    let daemon = Daemon::start();
    for name in ["web1", "web22", "db"] {
        daemon.ok(&format!("create --name {name} busybox"));
    }
    let names = |expression: &str| {
        let filter = format!("name={expression}");
        let found =
            daemon
                .docker()
                .run(["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        let mut found: Vec<String> = found.ok().lines().map(str::to_owned).collect();
        found.sort();
        found.join(" ")
    };
    assert_eq!(names("web"), "web1 web22");
    assert_eq!(names(r"^/web\d$"), "web1");
    assert_eq!(names("^web1$|^db$"), "db web1");
    assert_eq!(names("("), "", "what is not an expression matches nothing");
}

#[test]
fn containers_of_a_network_reach_each_other() {
    let daemon = Daemon::start();
    daemon.ok("network create --subnet 10.99.0.0/24 net");
    sleeper(&daemon, "one", "--network net --ip 10.99.0.7");
    daemon.ok("run --rm --network net busybox ping -c 1 -W 5 -q 10.99.0.7");
    let isolated = daemon.sh("run --rm busybox ping -c 1 -W 1 -q 10.99.0.7");
    assert_ne!(
        isolated.code, 0,
        "the default bridge is another network: {isolated}"
    );
    let busy = daemon.sh("network rm net").fails_with(1);
    assert!(busy.contains("has active endpoints"), "{busy}");
    daemon.ok("network connect bridge one");
    assert_eq!(
        daemon
            .ok("exec one ls /sys/class/net")
            .split_whitespace()
            .count(),
        3
    );
    daemon.ok("network disconnect net one");
    daemon.ok("network rm net");
}

#[test]
fn ipc_is_shared_with_those_who_were_told_and_nobody_else() {
    let daemon = Daemon::start();
    sleeper(&daemon, "open", "--ipc shareable");
    sleeper(&daemon, "closed", "--ipc private");
    daemon.ok("run --rm --ipc container:open busybox touch /dev/shm/from-outside");
    assert_eq!(daemon.ok("exec open ls /dev/shm"), "from-outside");
    let refused = daemon
        .sh("run --rm --ipc container:closed busybox true")
        .fails_with(125);
    assert!(
        refused.contains("non-shareable IPC (hint: use IpcMode:shareable"),
        "{refused}"
    );
}

#[test]
fn health_follows_the_check() {
    let daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "-d",
            "--name",
            "box",
            "--health-cmd",
            "test -e /ok",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
            "busybox",
            "sleep",
            "100000",
        ])
        .ok();
    let becomes = |wanted: &str| {
        eventually(wanted, || {
            match daemon.ok("inspect -f {{.State.Health.Status}} box") {
                status if status == wanted => Ok(()),
                status => Err(status),
            }
        });
    };
    becomes("unhealthy");
    daemon.ok("exec box touch /ok");
    becomes("healthy");
    assert_eq!(
        daemon.ok("ps --filter health=healthy --format {{.Names}}"),
        "box"
    );
}

#[test]
fn a_containers_changes_become_an_image() {
    let daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "--name",
            "box",
            "busybox",
            "sh",
            "-c",
            "echo x > /new; rm /bin/vi",
        ])
        .ok();
    let mut changes: Vec<_> = daemon.ok("diff box").lines().map(str::to_owned).collect();
    changes.sort();
    assert_eq!(changes, ["A /new", "C /usr", "C /usr/bin", "D /usr/bin/vi"]);
    daemon
        .docker()
        .run([
            "commit",
            "-m",
            "why",
            "-c",
            r#"CMD ["cat", "/new"]"#,
            "box",
            "made:1",
        ])
        .ok();
    assert_eq!(daemon.ok("run --rm made:1"), "x");
    assert_ne!(daemon.sh("run --rm made:1 vi").code, 0);
    let file = daemon.scratch().join("made.tar");
    let file = file.display();
    daemon.ok(&format!("save -o {file} made:1"));
    daemon.ok("rmi made:1");
    assert_eq!(
        daemon.ok(&format!("load -i {file}")),
        "Loaded image: made:1"
    );
    let loaded = daemon.sh(&format!("load -q -i {file}"));
    assert_eq!(loaded.stdout, "Loaded image: made:1\n", "a whole line");
    assert_eq!(daemon.ok("run --rm made:1"), "x");
}

#[test]
fn files_are_copied_in_and_out() {
    let daemon = Daemon::start();
    sleeper(&daemon, "box", "");
    let source = daemon.scratch().join("source");
    std::fs::create_dir_all(source.join("deep")).unwrap();
    std::fs::write(source.join("deep/file"), "content").unwrap();
    std::os::unix::fs::symlink("deep/file", source.join("link")).unwrap();
    let (from, back) = (source.display(), daemon.scratch().join("back"));
    daemon.ok(&format!("cp {from} box:/tmp"));
    assert_eq!(daemon.ok("exec box cat /tmp/source/link"), "content");
    daemon.ok(&format!("cp box:/tmp/source {}", back.display()));
    assert_eq!(
        std::fs::read_to_string(back.join("link")).unwrap(),
        "content"
    );
    for (line, text) in [
        (
            format!("cp box:/nope {from}"),
            "Could not find the file /nope in container box",
        ),
        (
            format!("cp {from}/deep/file box:/no/such/"),
            "no such directory",
        ),
        (
            format!("cp {from} box:/etc/passwd"),
            "cannot copy directory",
        ),
    ] {
        let said = daemon.sh(&line).fails_with(1);
        assert!(said.contains(text), "{said}");
    }
}

#[test]
fn limits_names_and_states_are_changed_while_it_runs() {
    let daemon = Daemon::start();
    sleeper(&daemon, "old", "");
    daemon.ok("update -m 64m --memory-swap 128m --cpus 0.5 --pids-limit 50 old");
    assert_eq!(
        daemon.ok("inspect -f {{.HostConfig.Memory}}:{{.HostConfig.NanoCpus}}:{{.HostConfig.PidsLimit}} old"),
        "67108864:500000000:50"
    );
    let small = daemon.sh("update -m 1m old").fails_with(1);
    assert!(
        small.contains("Minimum memory limit allowed is 6MB"),
        "{small}"
    );
    daemon.ok("rename old new");
    let same = daemon.sh("rename new new").fails_with(1);
    assert!(
        same.contains("Renaming a container with the same name as its current name"),
        "{same}"
    );
    let stats = daemon.ok("stats --no-stream --format {{.Name}}:{{.PIDs}}:{{.MemUsage}} new");
    assert!(
        stats.starts_with("new:1:") && stats.ends_with("/ 64MiB"),
        "{stats}"
    );

    let signal = daemon.sh("kill -s FOO new").fails_with(1);
    assert_eq!(
        signal,
        "Error response from daemon: cannot kill container: new: invalid signal: FOO"
    );
    daemon.ok("pause new");
    let exec = daemon.sh("exec new true").fails_with(1);
    assert!(
        exec.contains("Container new is paused, unpause the container before exec"),
        "{exec}"
    );
    daemon.ok("unpause new");
    let id = daemon.ok("inspect -f {{.Id}} new");
    daemon.ok("kill new");
    assert_eq!(daemon.ok("wait new"), "137");
    let again = daemon.sh("kill new").fails_with(1);
    assert_eq!(
        again,
        format!(
            "Error response from daemon: cannot kill container: new: container {id} is not running"
        )
    );
    assert!(
        daemon
            .ok("container prune -f")
            .starts_with("Deleted Containers:")
    );
    assert_eq!(daemon.ok("ps -aq"), "");
}

#[test]
fn devices_are_given_with_the_permissions_asked_for() {
    let daemon = Daemon::start();
    let outcome = shell(
        &daemon,
        "--cap-add SYSLOG --device /dev/kmsg:/dev/mine:r",
        "exec 3< /dev/mine && echo readable; echo > /dev/mine",
    );
    assert_eq!(outcome.stdout.trim(), "readable", "{outcome}");
    assert!(
        outcome.stderr.contains("Operation not permitted"),
        "{outcome}"
    );
    let script = "mount -t tmpfs x /tmp && touch /tmp/x; grep Seccomp: /proc/self/status";
    assert_eq!(shell(&daemon, "--privileged", script).ok(), "Seccomp:\t0");
    assert_ne!(shell(&daemon, "", "mount -t tmpfs x /tmp").code, 0);
}

#[test]
fn a_container_out_of_memory_says_so() {
    let daemon = Daemon::start();
    let script = r"x=$(head -c 50000000 /dev/zero | tr '\0' x); echo done";
    let outcome = daemon.docker().run([
        "run",
        "--name",
        "box",
        "-m",
        "6m",
        "--memory-swap",
        "6m",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(outcome.code, 137, "{outcome}");
    assert_eq!(
        daemon.ok("inspect -f {{.State.OOMKilled}}:{{.State.ExitCode}} box"),
        "true:137"
    );
    eventually("the event", || {
        let events =
            daemon.ok("events --since 60s --until 0s --filter event=oom --format {{.Action}}");
        if events == "oom" { Ok(()) } else { Err(events) }
    });
}
