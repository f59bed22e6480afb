//! Volumes of the local driver with mount options.

use std::path::Path;

use skep_testkit::{Daemon, eventually};

fn is_mounted(path: &str) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
    table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(path))
}

fn mountpoint(daemon: &Daemon, volume: &str) -> String {
    daemon.ok(&format!("volume inspect -f {{{{.Mountpoint}}}} {volume}"))
}

#[test]
fn a_volume_in_memory_is_mounted_by_its_first_user_and_unmounted_after_its_last() {
    let mut daemon = Daemon::start();
    daemon.ok("volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m,uid=1000 mem");
    let path = mountpoint(&daemon, "mem");
    assert!(!is_mounted(&path), "nobody uses it yet");
    daemon.ok("run -d --name one -v mem:/data busybox sleep 1000");
    daemon.ok("run -d --name two -v mem:/data busybox sleep 1000");
    daemon.ok("exec one touch /data/shared");
    daemon.ok("exec two ls /data/shared");
    assert_eq!(daemon.ok("exec one stat -c %u /data"), "1000");
    assert!(
        daemon
            .sh("exec one dd if=/dev/zero of=/data/big bs=1M count=2")
            .stderr
            .contains("No space left")
    );
    daemon.ok("rm -f one");
    daemon.ok("exec two ls /data/shared");

    daemon.kill();
    daemon.start_again();
    daemon.ok("run --rm -v mem:/data busybox ls /data/shared");
    assert!(
        is_mounted(&path),
        "the container of the daemon before uses it"
    );
    let refused = daemon.sh("volume rm mem").fails_with(1);
    assert!(refused.contains("volume is in use"), "{refused}");
    daemon.ok("rm -f two");
    assert!(!is_mounted(&path));
    assert_eq!(daemon.ok("run --rm -v mem:/data busybox ls /data"), "");
    daemon.ok("volume rm mem");
    assert_eq!(daemon.stop_and_list_leftovers(), Vec::<String>::new());
}

#[test]
fn a_volume_may_be_a_directory_of_the_hosts() {
    let daemon = Daemon::start();
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir(&shared).expect("it can be made");
    std::fs::write(shared.join("file"), "from the host").expect("it can be written");
    daemon.ok(&format!(
        "volume create --opt type=none --opt o=bind,ro --opt device={} there",
        shared.display()
    ));
    assert_eq!(
        daemon.ok("run --rm -v there:/data busybox cat /data/file"),
        "from the host"
    );
    let refused = daemon.sh("run --rm -v there:/data busybox touch /data/new");
    assert!(refused.stderr.contains("Read-only"), "{refused}");

    // A stopped container's volume is there for docker cp.
    daemon.ok("create --name still -v there:/data busybox true");
    let copy = daemon.scratch().join("copy");
    daemon.ok(&format!("cp still:/data/file {}", copy.display()));
    assert_eq!(
        std::fs::read_to_string(&copy).expect("it was copied"),
        "from the host"
    );
    daemon.ok("rm still");
    daemon.ok("volume rm there");
    assert!(
        shared.join("file").exists(),
        "what was mounted is not the volume's to delete"
    );
}

#[test]
fn options_that_can_not_work_are_refused_in_dockers_words() {
    let daemon = Daemon::start();
    let refused = |line: &str| daemon.sh(line).fails_with(1);
    assert!(
        refused("volume create --opt colour=red paint")
            .contains("create paint: invalid option: \"colour\"")
    );
    assert!(
        refused("volume create --opt type=nfs paint")
            .contains("missing required option: \"device\"")
    );
    daemon.ok("volume create --opt type=none --opt o=bind --opt device=/no/such/place gone");
    // The CLI takes any missing file for a missing program.
    let failed = daemon
        .sh("run --rm -v gone:/data busybox true")
        .fails_with(127);
    assert!(
        failed.contains("failed to mount local volume: mount /no/such/place:")
            && failed.contains("no such file or directory"),
        "{failed}"
    );
    assert!(!Path::new(&mountpoint(&daemon, "gone")).join("x").exists());
    let refused = daemon
        .sh("create --storage-opt size=10G busybox true")
        .fails_with(1);
    assert!(
        refused.contains(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        ),
        "{refused}"
    );
}

#[test]
fn a_service_mounts_a_volume_with_options_of_its_own() {
    let daemon = Daemon::start();
    daemon.ok("swarm init --advertise-addr 10.231.0.2");
    daemon.ok(
        "service create -d --name cache --mount type=volume,source=mem,target=/data,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=2m busybox sleep 1000",
    );
    eventually("the task mounts it", || {
        let id = daemon.ok("ps -q --filter name=cache");
        if id.is_empty() {
            return Err("no container yet".to_owned());
        }
        let shown = daemon.sh(&format!("exec {id} df -k /data"));
        if shown.stdout.contains("2048") {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    });
}
