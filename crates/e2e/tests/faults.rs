//! Faults: full disks, deaths at bad moments, requests that cross each other. Nothing acknowledged is
//! lost, nothing half-made stays.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::Path;

use skep_testkit::{Daemon, eventually};

/// Fills what is left of a file system, to the last byte.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

fn eventually_prints(daemon: &Daemon, line: &[&str], wanted: &str) {
    eventually(&format!("{line:?} prints {wanted}"), || {
        let seen = daemon.docker().run(line);
        if seen.code == 0 && seen.stdout.trim_end() == wanted {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
}

#[test]
fn a_service_removed_while_its_tasks_start_leaves_no_process() {
    let mut daemon = Daemon::start();
    daemon.ok("swarm init --advertise-addr 10.231.0.2");
    for round in 0..6 {
        daemon.ok(&format!(
            "service create --detach --stop-grace-period 0s --name s{round} --replicas 3 busybox sleep 1000"
        ));
        daemon.ok(&format!("service rm s{round}"));
    }
    eventually_prints(&daemon, &["ps", "-aq"], "");
    assert_eq!(daemon.stop_and_list_leftovers(), Vec::<String>::new());
}

#[test]
fn an_image_that_does_not_fit_on_the_disk_leaves_nothing_behind() {
    let daemon = Daemon::builder()
        .data_root_of(20 << 20)
        .image("busybox")
        .start()
        .unwrap();
    let free = || rustix::fs::statvfs(daemon.data_root()).unwrap().f_bavail;
    let before = free();
    let error = daemon
        .docker()
        .run([
            "load".as_ref(),
            "-i".as_ref(),
            skep_testkit::image_tarball("redis").as_os_str(),
        ])
        .fails_with(1);
    assert!(
        error.to_lowercase().contains("no space left on device"),
        "{error}"
    );
    assert_eq!(daemon.ok("images -q").lines().count(), 1);
    eventually("the room is given back", || {
        let now = free();
        // The tables may have grown by a page or two.
        if now + 64 >= before {
            Ok(())
        } else {
            Err(format!("{now} of {before} blocks"))
        }
    });
    assert_eq!(daemon.ok("run --rm busybox echo works"), "works");
}

#[test]
fn a_full_disk_refuses_what_must_be_stored_and_works_again_with_room() {
    let daemon = Daemon::builder()
        .data_root_of(32 << 20)
        .image("busybox")
        .start()
        .unwrap();
    daemon.ok("swarm init --advertise-addr 10.231.0.2");
    daemon.ok("service create --detach --name kept busybox sleep 1000");
    eventually_prints(
        &daemon,
        &["service", "ls", "--format", "{{.Replicas}}"],
        "1/1",
    );
    let ballast = daemon.data_root().join("ballast");
    fill(&ballast);
    let error = daemon.sh("create --name unborn busybox true").fails_with(1);
    assert!(
        error.to_lowercase().contains("no space left on device"),
        "{error}"
    );
    assert_eq!(daemon.ok("ps -aq -f name=unborn"), "");
    // The log's last page may have room for a few.
    let mut acknowledged = vec!["kept".to_owned()];
    let error = (0..1000)
        .find_map(|number| {
            let name = format!("s{number}");
            let created = daemon.sh(&format!(
                "service create --detach --name {name} --replicas 0 busybox sleep 1000"
            ));
            if created.code != 0 {
                return Some(created.fails_with(1));
            }
            acknowledged.push(name);
            None
        })
        .expect("the log cannot grow for ever");
    assert!(
        error.to_lowercase().contains("no space left on device"),
        "{error}"
    );
    let error = daemon.sh("service ls").stderr;
    assert!(
        !error.contains("swarm init"),
        "no advice to begin anew: {error}"
    );
    assert_eq!(daemon.ok("ps -q").lines().count(), 1, "tasks run on");
    std::fs::remove_file(&ballast).unwrap();
    eventually("the swarm is back with all that was acknowledged", || {
        let seen = daemon
            .docker()
            .run(["service", "ls", "--format", "{{.Name}}"]);
        let missing: Vec<_> = acknowledged
            .iter()
            .filter(|name| !seen.stdout.lines().any(|line| line == *name))
            .collect();
        if seen.code == 0 && missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{seen} {missing:?}"))
        }
    });
    daemon.ok("service scale --detach kept=2");
    eventually_prints(
        &daemon,
        &[
            "service",
            "ls",
            "--filter",
            "name=kept",
            "--format",
            "{{.Replicas}}",
        ],
        "2/2",
    );
    assert_eq!(daemon.ok("run --rm busybox echo works"), "works");
}

#[test]
fn a_second_daemon_on_the_same_exec_root_is_refused() {
    let daemon = Daemon::start();
    daemon.ok("run -d --name cc busybox sleep 1000");
    let other = daemon.scratch().join("other");
    std::fs::create_dir(&other).unwrap();
    let flag = |name: &str, file: &str| format!("--{name}={}", other.join(file).display());
    let output = daemon
        .machine()
        .command(&std::env::var("SKEP_BIN").unwrap())
        .args(["daemon", "--config-file=/dev/null"])
        .arg(flag("pidfile", "pid"))
        .arg(flag("data-root", "data"))
        .arg(format!(
            "--exec-root={}",
            daemon.scratch().join("run").display()
        ))
        .arg(format!("--host=unix://{}", other.join("s").display()))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("give this one its own --exec-root"), "{text}");
    assert_eq!(daemon.ok("exec cc echo unharmed"), "unharmed");
}

#[test]
fn a_default_log_driver_that_is_not_there_is_an_error_at_start() {
    for (flag, words) in [
        ("--log-driver=nope", "nope"),
        (
            "--log-opt=nonsense=1",
            "unknown log opt 'nonsense' for json-file log driver",
        ),
    ] {
        let error = Daemon::builder().flag(flag).start().unwrap_err();
        assert!(error.to_string().contains(words), "{error:#}");
    }
}
