//! Many containers at once, as a test suite of somebody else's would make them, and nothing left of
//! them afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use skep_testkit::{Daemon, eventually};

const WORKERS: usize = 8;
const BOUND: Duration = Duration::from_secs(20);
/// Each worker stops at this many rounds, or at the bound on a slow machine.
const ROUNDS: usize = 25;

fn entries(path: &Path) -> Vec<String> {
    std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn descriptors(daemon: &Daemon) -> usize {
    entries(Path::new(&format!("/proc/{}/fd", daemon.pid()))).len()
}

/// What one worker of a test suite does over and over: start, look, signal, remove.
fn work(daemon: &Daemon, worker: usize) -> usize {
    let started = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS && started.elapsed() < BOUND {
        let name = format!("soak-{worker}-{rounds}");
        match rounds % 4 {
            0 => {
                assert_eq!(
                    daemon.ok(&format!("run --rm --name {name} busybox echo hi")),
                    "hi"
                );
            }
            1 => {
                daemon.ok(&format!("run -d --name {name} -v /data busybox sleep 1000"));
                daemon.ok(&format!("exec {name} true"));
                daemon.ok(&format!("rm -f -v {name}"));
            }
            2 => {
                daemon.ok(&format!("create --name {name} busybox false"));
                daemon.sh(&format!("start -a {name}")).fails_with(1);
                daemon.ok(&format!("rm {name}"));
            }
            _ => {
                daemon.ok(&format!(
                    "run -d --name {name} --stop-timeout 0 busybox sleep 1000"
                ));
                daemon.ok(&format!("stop {name}"));
                daemon.ok(&format!("start {name}"));
                daemon.ok(&format!("kill {name}"));
                daemon.ok(&format!("wait {name}"));
                daemon.ok(&format!("rm {name}"));
            }
        }
        rounds += 1;
    }
    rounds
}

#[test]
fn hundreds_of_containers_in_parallel_leave_nothing_behind() {
    let mut daemon = Daemon::start();
    // The first containers open what stays open: pools, caches, the default network.
    daemon.ok("run --rm busybox true");
    let before = descriptors(&daemon);
    let shared = &daemon;
    let rounds: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || work(shared, worker)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("no command failed"))
            .sum()
    });
    assert!(rounds >= WORKERS, "each worker got somewhere");
    assert_eq!(daemon.ok("ps -aq"), "");
    assert_eq!(daemon.ok("volume ls -q"), "");
    eventually("the daemon holds no more files than before", || {
        let now = descriptors(&daemon);
        // Idle connections of the API end in their own time; one per round would show.
        if now <= before + 8 {
            Ok(())
        } else {
            Err(format!("{before} before, {now} now after {rounds} rounds"))
        }
    });
    for directory in ["data/containers", "run/shims", "run/netns", "data/volumes"] {
        let left: Vec<_> = entries(&daemon.scratch().join(directory))
            .into_iter()
            .filter(|name| name.starts_with(|c: char| c.is_ascii_hexdigit()) && name.len() >= 12)
            .collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
    assert_eq!(daemon.stop_and_list_leftovers(), Vec::<String>::new());
}
