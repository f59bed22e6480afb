//! A cluster that is hurt: killed leaders, lost quorums, partitions, nodes that may not return.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use skep_testkit::{Lab, eventually, eventually_within};

const BOUND: Duration = Duration::from_secs(40);

fn node_field(lab: &Lab, on: &str, format: &str) -> String {
    lab.node(on)
        .docker()
        .run(["node", "ls", "--format", format])
        .ok()
}

fn leader(lab: &Lab, on: &str) -> Option<String> {
    let seen =
        lab.node(on)
            .docker()
            .run(["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    seen.stdout
        .lines()
        .find_map(|line| line.strip_suffix(" Leader").map(str::to_owned))
}

fn eventually_led_by_another(lab: &Lab, on: &str, old: &str) -> String {
    eventually_within(BOUND, "another leads", || match leader(lab, on) {
        Some(name) if name != old => Ok(name),
        other => Err(format!("{other:?}")),
    })
}

fn eventually_says(lab: &Lab, on: &str, line: &str, wanted: &str) {
    eventually_within(BOUND, &format!("{line} says {wanted} on {on}"), || {
        let seen = lab.sh(on, line);
        if seen.stdout.contains(wanted) {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
}

#[test]
fn a_killed_leader_is_replaced_and_no_acknowledged_write_is_lost() {
    let lab = Lab::of(3, 0);
    let mut acknowledged = Vec::new();
    for number in 0..10 {
        lab.ok("m1", &format!("config create c{number} /etc/hostname"));
        acknowledged.push(format!("c{number}"));
    }
    let old = leader(&lab, "m2").expect("somebody leads");
    let others: Vec<&str> = ["m1", "m2", "m3"]
        .into_iter()
        .filter(|n| *n != old)
        .collect();
    lab.kill(&old);
    let killed = Instant::now();
    let made = eventually_within(BOUND, "a write is accepted again", || {
        let outcome = lab.sh(others[0], "config create after /etc/hostname");
        if outcome.code == 0 {
            Ok(killed.elapsed())
        } else {
            Err(outcome.to_string())
        }
    });
    eprintln!("{made:?} from the leader's death to the next accepted write");
    acknowledged.push("after".to_owned());
    for node in others {
        eventually_led_by_another(&lab, node, &old);
        let seen = lab.ok(node, "config ls --format {{.Name}}");
        for name in &acknowledged {
            assert!(
                seen.lines().any(|line| line == name),
                "{name} on {node}: {seen}"
            );
        }
    }
    lab.start(&old);
    eventually_says(&lab, &old, "config ls --format {{.Name}}", "after");
}

#[test]
fn without_a_quorum_reads_and_containers_go_on_and_a_new_cluster_recovers() {
    let lab = Lab::of(3, 0);
    lab.ok(
        "m1",
        "service create --detach --name keep --replicas 3 busybox sleep 1000",
    );
    eventually_says(&lab, "m1", "service ls --format {{.Replicas}}", "3/3");
    lab.kill("m2");
    lab.kill("m3");
    eventually_within(BOUND, "writes say that nobody leads", || {
        let outcome = lab.sh("m1", "config create lost /etc/hostname");
        if outcome.code != 0 && outcome.stderr.contains("The swarm does not have a leader") {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    assert_ne!(lab.ok("m1", "ps -q"), "", "running tasks go on");

    lab.ok(
        "m1",
        "swarm init --force-new-cluster --advertise-addr 10.231.0.2",
    );
    eventually_says(&lab, "m1", "service ls --format {{.Name}}", "keep");
    eventually_within(BOUND, "it leads alone", || match leader(&lab, "m1") {
        Some(name) if name == "m1" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    lab.ok("m1", "config create works-again /etc/hostname");
    eventually_says(&lab, "m1", "service ls --format {{.Replicas}}", "3/3");
}

#[test]
fn a_partitioned_leader_steps_down_and_follows_when_healed() {
    let lab = Lab::of(3, 0);
    let old = leader(&lab, "m1").expect("somebody leads");
    let other = if old == "m1" { "m2" } else { "m1" };
    lab.cut(&[&old]);
    eventually_led_by_another(&lab, other, &old);
    lab.ok(other, "config create behind-its-back /etc/hostname");
    lab.heal(&[&old]);
    eventually_says(
        &lab,
        &old,
        "config ls --format {{.Name}}",
        "behind-its-back",
    );
}

#[test]
fn a_flapping_worker_ends_with_what_it_should_run() {
    let lab = Lab::of(1, 2);
    lab.ok(
        "m1",
        "service create --detach --name s --replicas 6 busybox sleep 1000",
    );
    eventually_says(&lab, "m1", "service ls --format {{.Replicas}}", "6/6");
    for _ in 0..5 {
        lab.cut(&["w1"]);
        lab.heal(&["w1"]);
    }
    lab.cut(&["w1"]);
    eventually_says(
        &lab,
        "m1",
        "node ls --format {{.Hostname}}:{{.Status}}",
        "w1:Down",
    );
    lab.heal(&["w1"]);
    eventually_says(
        &lab,
        "m1",
        "node ls --format {{.Hostname}}:{{.Status}}",
        "w1:Ready",
    );
    eventually_within(BOUND, "six containers run, not more", || {
        let count = ["m1", "w1", "w2"].map(|node| lab.ok(node, "ps -q").lines().count());
        if count.iter().sum::<usize>() == 6 {
            Ok(())
        } else {
            Err(format!("{count:?}"))
        }
    });
}

#[test]
fn workers_run_on_without_any_manager() {
    let lab = Lab::of(1, 1);
    lab.ok(
        "m1",
        "service create --detach --name s --constraint node.role==worker busybox sleep 1000",
    );
    eventually_says(&lab, "m1", "service ls --format {{.Replicas}}", "1/1");
    let running = lab.ok("w1", "ps -q");
    lab.kill("m1");
    assert_eq!(lab.ok("w1", "ps -q"), running);
    lab.start("m1");
    eventually_says(
        &lab,
        "m1",
        "node ls --format {{.Hostname}}:{{.Status}}",
        "w1:Ready",
    );
    assert_eq!(lab.ok("w1", "ps -q"), running);
}

#[test]
fn a_node_that_is_up_is_not_removed_and_a_removed_one_does_not_return() {
    let lab = Lab::of(1, 1);
    let error = lab.sh("m1", "node rm w1").fails_with(1);
    assert!(
        error.contains("is not down and can't be removed"),
        "{error}"
    );
    lab.ok("m1", "node rm --force w1");
    eventually("it stays away", || {
        let seen = node_field(&lab, "m1", "{{.Hostname}}");
        if seen == "m1" { Ok(()) } else { Err(seen) }
    });
    lab.kill("w1");
    lab.start("w1");
    assert_eq!(node_field(&lab, "m1", "{{.Hostname}}"), "m1");
}

#[test]
fn the_last_manager_does_not_leave_or_step_down_unasked() {
    let lab = Lab::of(1, 0);
    let error = lab.sh("m1", "swarm leave").fails_with(1);
    assert!(
        error.contains("last manager") && error.contains("--force"),
        "{error}"
    );
    let error = lab.sh("m1", "node demote m1").fails_with(1);
    assert!(error.contains("last manager"), "{error}");
}

#[test]
fn a_demoted_leader_hands_over_first() {
    let lab = Lab::of(3, 0);
    let old = leader(&lab, "m1").expect("somebody leads");
    let other = if old == "m1" { "m2" } else { "m1" };
    lab.ok(other, &format!("node demote {old}"));
    eventually_led_by_another(&lab, other, &old);
    eventually_within(BOUND, "it is a worker", || {
        let error = lab.sh(&old, "node ls");
        if error.code == 1 && error.stderr.contains("This node is not a swarm manager") {
            Ok(())
        } else {
            Err(error.to_string())
        }
    });
    lab.ok(other, "config create afterwards /etc/hostname");
    lab.ok(other, &format!("node promote {old}"));
    eventually_says(&lab, &old, "config ls --format {{.Name}}", "afterwards");
}

#[test]
fn bad_joins_are_refused_in_dockers_words_and_leave_nothing_half_joined() {
    let lab = Lab::builder()
        .managers(1)
        .single("new")
        .single("other")
        .start()
        .expect("the lab starts");
    let refused = |line: &str, wanted: &str| {
        let error = lab.sh("new", line).fails_with(1);
        assert!(error.contains(wanted), "{line}: {error}");
        assert_eq!(
            lab.ok("new", "info --format {{.Swarm.LocalNodeState}}"),
            "inactive"
        );
    };
    let token = lab.ok("m1", "swarm join-token -q worker");
    refused("swarm join --token nonsense m1:2377", "invalid join token");
    let cut = &token[..token.len() - 1];
    refused(
        &format!("swarm join --token {cut} m1:2377"),
        "invalid join token",
    );
    let fields: Vec<&str> = token.split('-').collect();
    let wrong = format!("SWMTKN-1-{}-{}", fields[2], "0123456789abcdefghijklmno");
    refused(
        &format!("swarm join --token {wrong} m1:2377"),
        "A valid join token is necessary to join this cluster",
    );
    lab.ok("other", "swarm init");
    let foreign = lab.ok("other", "swarm join-token -q worker");
    refused(
        &format!("swarm join --token {foreign} m1:2377"),
        "remote CA does not match fingerprint",
    );
    let rotated = token;
    lab.ok("m1", "swarm join-token --rotate -q worker");
    refused(
        &format!("swarm join --token {rotated} m1:2377"),
        "A valid join token is necessary to join this cluster",
    );
    let token = lab.ok("m1", "swarm join-token -q worker");
    lab.ok("new", &format!("swarm join --token {token} m1:2377"));
    let error = lab
        .sh("new", &format!("swarm join --token {token} m1:2377"))
        .fails_with(1);
    assert!(
        error.contains("This node is already part of a swarm"),
        "{error}"
    );
}

#[test]
fn logs_of_tasks_on_other_nodes_are_followed_and_a_dead_node_does_not_hold_them_up() {
    let lab = Lab::builder()
        .managers(1)
        .workers(2)
        .image("timecheck")
        .start()
        .expect("the lab starts");
    lab.ok(
        "m1",
        "service create --detach --name s --mode global --constraint node.role==worker skep/timecheck:1.0",
    );
    eventually_within(BOUND, "both workers' lines are read", || {
        let log = lab.sh("m1", "service logs s");
        if log.stdout.contains("@w1 ") && log.stdout.contains("@w2 ") {
            Ok(())
        } else {
            Err(log.to_string())
        }
    });
    lab.off("w2");
    let started = Instant::now();
    let log = lab.sh("m1", "service logs --tail 1 s");
    assert!(log.stdout.contains("@w1 "), "{log}");
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn garbage_on_the_swarms_port_harms_nobody() {
    let lab = Lab::of(1, 0);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"\x16\x03\x01\xff\xff",
        b"",
    ] {
        let mut stream = lab.inside("outside", || {
            std::net::TcpStream::connect("10.231.0.2:2377").expect("the port is open")
        });
        // It may hang up in the middle: that is its right.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    lab.ok("m1", "config create works /etc/hostname");
}

#[test]
fn a_taken_port_is_said_and_leaves_no_swarm() {
    let lab = Lab::builder()
        .single("one")
        .start()
        .expect("the lab starts");
    let taken = lab.inside("one", || {
        std::net::TcpListener::bind("0.0.0.0:2377").expect("the port is free")
    });
    let error = lab.sh("one", "swarm init").fails_with(1);
    assert!(error.contains("address already in use"), "{error}");
    assert_eq!(
        lab.ok("one", "info --format {{.Swarm.LocalNodeState}}"),
        "inactive"
    );
    drop(taken);
    lab.ok("one", "swarm init");
}

#[test]
fn a_quorum_over_slow_and_lossy_cables_still_accepts_writes() {
    let lab = Lab::of(3, 0);
    for node in ["m1", "m2", "m3"] {
        lab.slow(node, Duration::from_millis(20), 0.02);
    }
    for number in 0..5 {
        eventually_within(BOUND, "a write is accepted", || {
            let outcome = lab.sh("m2", &format!("config create c{number} /etc/hostname"));
            if outcome.code == 0 || outcome.stderr.contains("already exists") {
                Ok(())
            } else {
                Err(outcome.to_string())
            }
        });
    }
    lab.heal(&["m1", "m2", "m3"]);
    eventually_says(&lab, "m3", "config ls --format {{.Name}}", "c4");
}

#[test]
fn a_followed_log_goes_on_with_the_living_when_a_node_dies() {
    let lab = Lab::builder()
        .managers(1)
        .workers(2)
        .image("timecheck")
        .start()
        .expect("the lab starts");
    lab.ok(
        "m1",
        "service create --detach --name s --mode global --constraint node.role==worker skep/timecheck:1.0",
    );
    eventually_says(&lab, "m1", "service logs s", "@w2 ");
    let mut follow = lab
        .node("m1")
        .docker()
        .command(["service", "logs", "-f", "--tail", "0", "s"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the docker CLI can be run");
    let output = follow.stdout.take().expect("its output is a pipe");
    let (said, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // The test may have seen enough.
            let _ = said.send(line);
        }
    });
    let next_of = |node: &str| {
        let until = Instant::now() + BOUND;
        while Instant::now() < until {
            match lines.recv_timeout(BOUND) {
                Ok(line) if line.contains(&format!("@{node} ")) => return,
                Ok(_) => {}
                Err(error) => panic!("no line of {node}: {error}"),
            }
        }
        panic!("no line of {node}");
    };
    next_of("w1");
    next_of("w2");
    lab.off("w2");
    // What was on its way is followed by lines that were written since.
    while lines.try_recv().is_ok() {}
    next_of("w1");
    next_of("w1");
    follow.kill().expect("it follows still");
    follow.wait().expect("it can be waited for");
}
