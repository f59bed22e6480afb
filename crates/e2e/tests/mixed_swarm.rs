//! skep and Debian's dockerd in one swarm, through the real binaries.

use std::time::Duration;

use skep_testkit::{Lab, eventually_within};

const BOUND: Duration = Duration::from_secs(60);

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

fn one_of_each() -> Lab {
    Lab::builder()
        .single("skep")
        .dockerd("debian")
        .image("busybox")
        .image("timecheck")
        .start()
        .expect("the lab starts")
}

/// Makes `manager` the manager, joins `worker`, and lets it run, report, log, drain and leave.
fn works(manager: &str, worker: &str) {
    let lab = one_of_each();
    lab.ok(
        manager,
        &format!("swarm init --advertise-addr {}", lab.node(manager).address),
    );
    let token = lab.ok(manager, "swarm join-token -q worker");
    lab.ok(
        worker,
        &format!("swarm join --token {token} {manager}:2377"),
    );
    let nodes = "node ls --format {{.Hostname}}:{{.Status}}";
    eventually_says(&lab, manager, nodes, &format!("{worker}:Ready"));
    lab.ok(
        manager,
        &format!(
            "service create --detach --no-resolve-image --name s --replicas 2 --constraint node.hostname=={worker} skep/timecheck:1.0"
        ),
    );
    eventually_says(&lab, manager, "service ls --format {{.Replicas}}", "2/2");
    assert_eq!(lab.ok(worker, "ps -q").lines().count(), 2);
    eventually_says(&lab, manager, "service logs s", &format!("@{worker} "));

    lab.ok(
        manager,
        &format!("node update --availability drain {worker}"),
    );
    eventually_within(BOUND, "it is drained", || {
        let left = lab.ok(worker, "ps -q");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    lab.ok(worker, "swarm leave");
    eventually_says(&lab, manager, nodes, &format!("{worker}:Down"));
    lab.ok(manager, &format!("node rm {worker}"));
}

#[test]
fn a_stock_dockerd_works_for_a_skep_manager() {
    works("skep", "debian");
}

#[test]
fn skep_works_for_a_stock_dockerd_manager() {
    works("debian", "skep");
}
