//! Secrets and configs: from the CLI into a task's files, and nowhere else.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::Write as _;
use std::process::Stdio;

use skep_testkit::{Daemon, Docker, eventually};

fn swarm() -> Daemon {
    let daemon = Daemon::start();
    daemon.ok("swarm init");
    daemon
}

/// Makes a secret or config from standard input.
#[track_caller]
fn create(docker: &Docker, line: &str, data: &[u8]) -> String {
    let mut child = docker
        .command(line.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(data).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What a one-shot service prints.
#[track_caller]
fn printed_by(daemon: &Daemon, service: &str) -> String {
    eventually(&format!("{service} has printed its last word"), || {
        let log = daemon.ok(&format!("service logs --raw {service}"));
        let why = || daemon.ok(&format!("service ps --no-trunc {service}"));
        if log.contains("done") {
            Ok(log)
        } else {
            Err(format!("{log}\n{}", why()))
        }
    })
}

#[test]
fn secrets_and_configs_are_files_with_owner_and_mode() {
    let daemon = swarm();
    let docker = daemon.docker();
    create(docker, "secret create password -", b"hunter2");
    create(docker, "config create site -", b"listen 80");
    let script = "cat /run/secrets/password; echo; cat /run/secrets/other; echo; cat /etc/app/site.conf; echo; cat /site; echo; \
                  stat -c '%a %u %g %n' /run/secrets/other /etc/app/site.conf /run/secrets/password; \
                  grep -c ' /run/secrets/password .*tmpfs' /proc/self/mountinfo; \
                  echo x 2>/dev/null >/run/secrets/password || echo read-only; echo done; sleep 1000";
    docker
        .run([
            "service",
            "create",
            "--detach",
            "--name",
            "s",
            "--secret",
            "password",
            "--secret",
            "source=password,target=other,uid=33,gid=34,mode=0400",
            "--config",
            "source=site,target=/etc/app/site.conf,uid=35,mode=0640",
            "--config",
            "site",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
    let printed = printed_by(&daemon, "s");
    for line in [
        "hunter2",
        "listen 80",
        "400 33 34 /run/secrets/other",
        "640 35 0 /etc/app/site.conf",
        "444 0 0 /run/secrets/password",
        "read-only",
    ] {
        assert!(printed.lines().any(|l| l == line), "{line}: {printed}");
    }
    assert_eq!(printed.matches("hunter2").count(), 2, "{printed}");
    assert_eq!(printed.matches("listen 80").count(), 2, "{printed}");

    let task = docker.run(["service", "ps", "-q", "s"]).ok();
    let container = daemon.ok("ps -q");
    for place in [
        daemon.ok(&format!("inspect {task}")),
        daemon.ok(&format!("inspect {container}")),
        daemon.ok("service inspect s"),
        daemon.ok("secret inspect password"),
        daemon.log(),
    ] {
        assert!(
            !place.contains("hunter2") && !place.contains("aHVudGVyMg"),
            "{place}"
        );
    }
    let found = daemon
        .machine()
        .command("grep")
        .args(["-rlI", "--exclude-dir=swarm", "--exclude=*.log", "hunter2"])
        .arg(daemon.data_root().join("containers"))
        .output()
        .unwrap();
    assert!(found.stdout.is_empty(), "{found:?}");
}

#[test]
fn what_is_used_is_not_removed_and_updates_exchange_it() {
    let daemon = swarm();
    let docker = daemon.docker();
    create(docker, "secret create one -", b"first");
    create(docker, "secret create two --label a=b -", b"second");
    create(docker, "config create c -", b"third");
    docker
        .run([
            "service",
            "create",
            "--detach",
            "--name",
            "s",
            "--secret",
            "one",
            "--config",
            "c",
            "busybox",
            "sh",
            "-c",
            "cat /run/secrets/*; echo; echo done; sleep 1000",
        ])
        .ok();
    assert!(printed_by(&daemon, "s").contains("first"));
    let error = daemon.sh("secret rm one").fails_with(1);
    assert!(
        error.contains("secret 'one' is in use by the following service: s"),
        "{error}"
    );
    let error = daemon.sh("config rm c").fails_with(1);
    assert!(
        error.contains("config 'c' is in use by the following service: s"),
        "{error}"
    );
    daemon.ok("service update --secret-rm one --secret-add source=two,target=one --config-rm c s");
    eventually("the new task has the new secret", || {
        let log = daemon.ok("service logs --raw s");
        if log.contains("second") {
            Ok(())
        } else {
            Err(log)
        }
    });
    daemon.ok("secret rm one");
    daemon.ok("config rm c");
    assert_eq!(
        docker.run(["secret", "ls", "--format", "{{.Name}}"]).ok(),
        "two"
    );
}

#[test]
fn templates_in_secrets_and_configs_are_filled_in_for_each_task() {
    let daemon = swarm();
    let docker = daemon.docker();
    create(docker, "secret create key -", b"k1");
    let text = r#"{{ .Service.Name }}-{{ .Task.Slot }} {{ env "MODE" | printf "%q" }} {{ secret "key" }}
{{- if eq .Task.Slot "1" }} primary{{ else }} replica{{ end }} {{ index .Service.Labels "tier" }}"#;
    create(
        docker,
        "config create --template-driver golang conf -",
        text.as_bytes(),
    );
    create(docker, "config create plain -", b"{{ .Service.Name }}");
    docker
        .run([
            "service",
            "create",
            "--detach",
            "--name",
            "t",
            "--label",
            "tier=front",
            "--env",
            "MODE=fast",
            "--env",
            "ME={{.Task.Name}}",
            "--hostname",
            "h-{{.Task.Slot}}",
            "--secret",
            "key",
            "--config",
            "conf",
            "--config",
            "plain",
            "--replicas",
            "2",
            "busybox",
            "sh",
            "-c",
            "cat /conf; echo; cat /plain; echo; hostname; echo $ME; echo done; sleep 1000",
        ])
        .ok();
    eventually("both tasks have printed", || {
        let log = daemon.ok("service logs --raw t");
        for text in [
            "t-1 \"fast\" k1 primary front",
            "t-2 \"fast\" k1 replica front",
            "{{ .Service.Name }}",
            "h-1",
            "h-2",
            "t.1.",
        ] {
            if !log.contains(text) {
                let tasks = daemon.ok("service ps --no-trunc t");
                return Err(format!("{text} is missing: {log}\n{tasks}"));
            }
        }
        Ok(())
    });
    create(
        docker,
        "config create --template-driver golang bad -",
        b"{{ .Nope }}",
    );
    daemon
        .ok("service create --detach --name b --restart-condition none --config bad busybox true");
    eventually("the bad template is said", || {
        let tasks = daemon.ok("service ps --no-trunc b");
        if tasks.contains("failed to expand templated config") {
            Ok(())
        } else {
            Err(tasks)
        }
    });
}

#[test]
fn a_task_with_secrets_is_adopted_and_replaced_after_the_daemon_was_killed() {
    let mut daemon = swarm();
    create(daemon.docker(), "secret create s -", b"still here");
    daemon
        .docker()
        .run([
            "service",
            "create",
            "--detach",
            "--name",
            "s",
            "--secret",
            "s",
            "--restart-delay",
            "100ms",
            "busybox",
            "sh",
            "-c",
            "cat /run/secrets/s; echo done; sleep 1000",
        ])
        .ok();
    printed_by(&daemon, "s");
    let before = daemon.ok("ps -q");
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.ok("ps -q"), before);
    assert_eq!(
        daemon
            .docker()
            .run(["exec", &before, "cat", "/run/secrets/s"])
            .ok(),
        "still here"
    );
    daemon.ok(&format!("rm -f {before}"));
    eventually("its successor has the secret too", || {
        let running = daemon.ok("ps -q");
        let read = daemon
            .docker()
            .run(["exec", &running, "cat", "/run/secrets/s"]);
        if running != before && read.stdout == "still here" {
            Ok(())
        } else {
            Err(format!("{running}: {read}"))
        }
    });
}

#[test]
fn what_can_not_be_a_secret_is_refused() {
    let daemon = swarm();
    let docker = daemon.docker();
    create(docker, "secret create s -", b"x");
    let file = daemon.scratch().join("big");
    let with = |size: usize, line: &[&str]| {
        std::fs::write(&file, vec![b'x'; size]).unwrap();
        let path = file.display().to_string();
        docker.run(line.iter().copied().chain([path.as_str()]))
    };
    let error = with(512_000, &["secret", "create", "big"]).fails_with(1);
    assert!(
        error.contains("secret data must be larger than 0 and less than 512000 bytes"),
        "{error}"
    );
    with(511_999, &["secret", "create", "just"]).ok();
    let error = with(1_024_000, &["config", "create", "big"]).fails_with(1);
    assert!(
        error.contains("config data must be larger than 0 and less than 1024000 bytes"),
        "{error}"
    );
    let error = with(1, &["secret", "create", "s"]).fails_with(1);
    assert!(error.contains("secret s already exists"), "{error}");
    let error = with(1, &["secret", "create", "bad name"]).fails_with(1);
    assert!(
        error.contains("invalid name, only 64 [a-zA-Z0-9-_.] characters allowed"),
        "{error}"
    );
    let error = daemon
        .sh("service create --detach --secret nope busybox true")
        .fails_with(1);
    assert!(error.contains("secret not found: nope"), "{error}");
    let error = daemon
        .sh("service create --detach --secret source=s,target=a --secret source=just,target=a busybox true")
        .fails_with(1);
    assert!(
        error.contains("have a conflicting target: 'a'") || error.contains("duplicate"),
        "{error}"
    );
}
