//! What a container costs. Needs root. The bounds are wide, for debug builds on busy machines; the
//! numbers are printed.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy takes only test functions for tests"
)]

mod support;

use std::time::{Duration, Instant};

use skep_runtime::LogTarget;
use support::{Bench, exec_request};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn is_our_child(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains(&format!("PPid:\t{}\n", std::process::id()))
}

#[tokio::test]
async fn making_and_starting_takes_milliseconds() {
    let bench = Bench::new();
    let (mut creates, mut starts, mut rests) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..21 {
        let id = format!("quick{number}");
        let wish = bench.wish(&id, &["true"]);
        let begin = Instant::now();
        let shim = bench.create(&id, wish).await.unwrap();
        creates.push(begin.elapsed());
        let begin = Instant::now();
        shim.start().await.unwrap();
        starts.push(begin.elapsed());
        let begin = Instant::now();
        assert_eq!(shim.wait().await.unwrap().code, 0);
        shim.delete().await.unwrap();
        rests.push(begin.elapsed());
    }
    let (create, start, rest) = (median(creates), median(starts), median(rests));
    let shim = bench.sh("host", "sleep 1000").await;
    shim.start().await.unwrap();
    let mut execs = Vec::new();
    for number in 0..21 {
        let request = exec_request(
            &format!("e{number}"),
            bench.wish("host", &[]).spec,
            &["true"],
        );
        let begin = Instant::now();
        assert_eq!(
            shim.exec(request).await.unwrap().wait().await.unwrap().code,
            0
        );
        execs.push(begin.elapsed());
    }
    shim.delete().await.unwrap();
    println!(
        "create {create:?}, start {start:?}, exit and delete {rest:?}, exec to its exit {:?}",
        median(execs)
    );
    assert!(create + start < Duration::from_millis(500));
}

#[tokio::test]
async fn a_shim_is_small_and_leads_a_session_of_its_own() {
    let bench = Bench::new();
    let mut shims = Vec::new();
    for number in 0..10 {
        let id = format!("small{number}");
        let mut wish = bench.wish(&id, &["sleep", "1000"]);
        if number == 0 {
            wish.log = LogTarget::Discard;
        }
        let shim = bench.create(&id, wish).await.unwrap();
        shim.start().await.unwrap();
        shims.push(shim);
    }
    let own_session = nix::unistd::getsid(None).unwrap();
    let mut sizes = Vec::new();
    for pid in bench.shims() {
        let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap();
        if !is_our_child(pid) {
            // A container's process that is not yet what it is to become.
            continue;
        }
        assert!(
            session.as_raw() == pid && session != own_session,
            "killing our group must not touch it"
        );
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let field = |name: &str| -> u64 {
            let line = rollup
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        sizes.push((field("Pss:"), field("Private_Dirty:")));
    }
    println!("PSS and private dirty in kB of ten shims: {sizes:?}");
    assert_eq!(sizes.len(), 10);
    for shim in shims {
        shim.delete().await.unwrap();
    }
    bench.assert_clean();
}
