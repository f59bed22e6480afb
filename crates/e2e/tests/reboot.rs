//! After a reboot nothing is left but the data root: what should run runs again.

use std::path::Path;
use std::process::Command;

use skep_testkit::{Daemon, eventually};

/// Ends everything as a power cut does: the daemon, its shims, the containers, and all in memory.
fn power_cut(daemon: &mut Daemon) {
    let containers = daemon.ok("ps -q");
    let mut ids: Vec<i32> = containers
        .lines()
        .map(|id| daemon.ok(&format!("inspect -f {{{{.State.Pid}}}} {id}")))
        .filter_map(|pid| pid.parse().ok())
        .collect();
    daemon.kill();
    let shims = daemon.scratch().join("run/shims").display().to_string();
    ids.extend(processes_naming(&shims));
    for id in ids {
        let pid = rustix::process::Pid::from_raw(id).expect("a process has an id");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    eventually("the shims are gone", || {
        let left = processes_naming(&shims);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    let mut mounts = mounts_below(&daemon.scratch());
    mounts.reverse();
    for mount in mounts {
        let done = Command::new("umount").arg("-l").arg(&mount).status();
        assert!(done.expect("umount runs").success(), "{mount}");
    }
    std::fs::remove_dir_all(daemon.scratch().join("run")).expect("it can be removed");
}

fn processes_naming(text: &str) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").expect("/proc is there");
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id: &i32| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(text)
        })
        .collect()
}

fn mounts_below(root: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
    let below = format!("{}/", root.display());
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|path| path.starts_with(&below))
        .map(str::to_owned)
        .collect()
}

fn states(daemon: &Daemon) -> Vec<String> {
    let mut states: Vec<_> = daemon
        .ok("ps -a --format {{.Names}}:{{.State}}")
        .lines()
        .map(str::to_owned)
        .collect();
    states.sort();
    states
}

#[test]
fn restart_policies_networks_and_volumes_come_back_after_a_reboot() {
    let mut daemon = Daemon::start();
    daemon.ok("network create --subnet 10.77.0.0/24 shop");
    daemon.ok("volume create --opt type=tmpfs --opt device=tmpfs mem");
    daemon.ok("run -d --name web --restart always --network shop --ip 10.77.0.9 -v mem:/mem -v kept:/kept busybox sleep 1000");
    daemon.ok("exec web touch /kept/file /mem/file");
    daemon.ok("run -d --name once busybox sleep 1000");
    for policy in ["always", "unless-stopped"] {
        daemon.ok(&format!(
            "run -d --name stopped-{policy} --restart {policy} --stop-timeout 0 busybox sleep 1000"
        ));
        daemon.ok(&format!("stop stopped-{policy}"));
    }
    power_cut(&mut daemon);
    daemon.start_again();
    let wanted = [
        "once:exited",
        "stopped-always:running",
        "stopped-unless-stopped:exited",
        "web:running",
    ];
    eventually("what should run runs", || {
        let states = states(&daemon);
        if states == wanted {
            Ok(())
        } else {
            Err(format!("{states:?}"))
        }
    });
    assert!(
        daemon
            .ok("exec web ip -4 addr show eth0")
            .contains("10.77.0.9/24")
    );
    assert_eq!(
        daemon.ok("exec web find /kept /mem -type f"),
        "/kept/file",
        "memory is empty after a reboot"
    );
    let mut left = daemon.stop_and_list_leftovers();
    // Those of the containers that did not come back: a real power cut takes them along.
    left.retain(|left| !left.starts_with("cgroup "));
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_daemon_that_is_stopped_stops_its_containers_and_starts_them_again() {
    let mut daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "-d",
            "--name",
            "web",
            "--restart",
            "unless-stopped",
            "busybox",
            "sh",
            "-c",
            "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done",
        ])
        .ok();
    eventually("the trap is set", || {
        let logs = daemon.ok("logs web");
        if logs == "up" { Ok(()) } else { Err(logs) }
    });
    assert!(daemon.stop().success());
    daemon.start_again();
    eventually("it said good-bye and is back", || {
        let logs = daemon.ok("logs web");
        if logs == "up\nbye\nup" {
            Ok(())
        } else {
            Err(logs)
        }
    });
}
