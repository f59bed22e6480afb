//! Walk C: three machines, up to `node ls`, and a machine that is switched off.

use std::collections::BTreeSet;
use std::time::Duration;

use skep_testkit::{Lab, eventually_within};

const BOUND: Duration = Duration::from_secs(40);

fn machines() -> Lab {
    Lab::builder()
        .single("manager")
        .single("worker1")
        .single("worker2")
        .image("busybox")
        .start()
        .expect("the lab starts")
}

/// The command that `swarm init` prints, typed on another machine.
fn join(lab: &Lab, node: &str, said: &str) {
    let line = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("docker swarm join "))
        .expect("the join command is printed");
    assert_eq!(
        lab.ok(node, &format!("swarm join {line}")),
        "This node joined a swarm as a worker."
    );
}

fn running_on(lab: &Lab, service: &str) -> Vec<String> {
    let line = format!(
        "service ps {service} --filter desired-state=running --format {{{{.Node}}}}:{{{{.CurrentState}}}}"
    );
    let seen = lab.ok("manager", &line);
    seen.lines()
        .filter_map(|line| line.split_once(":Running"))
        .map(|(node, _)| node.to_owned())
        .collect()
}

#[test]
fn walk_c_three_machines_become_one_and_one_is_switched_off() {
    let lab = machines();
    let said = lab.ok("manager", "swarm init");
    assert!(said.contains("10.231.0.2:2377"), "{said}");
    join(&lab, "worker1", &said);
    join(&lab, "worker2", &said);
    eventually_within(BOUND, "all three are ready", || {
        let seen = lab.ok(
            "manager",
            "node ls --format {{.Hostname}}:{{.Status}}:{{.Availability}}:{{.ManagerStatus}}",
        );
        let rows: BTreeSet<&str> = seen.lines().collect();
        let wanted = BTreeSet::from([
            "manager:Ready:Active:Leader",
            "worker1:Ready:Active:",
            "worker2:Ready:Active:",
        ]);
        if rows == wanted { Ok(()) } else { Err(seen) }
    });
    let error = lab.sh("worker1", "node ls").fails_with(1);
    assert!(
        error.contains("This node is not a swarm manager"),
        "{error}"
    );

    lab.ok(
        "manager",
        "service create --detach --name spread --replicas 3 busybox sleep 1000",
    );
    eventually_within(BOUND, "one runs on each machine", || {
        let nodes = running_on(&lab, "spread");
        let distinct: BTreeSet<&String> = nodes.iter().collect();
        if nodes.len() == 3 && distinct.len() == 3 {
            Ok(())
        } else {
            Err(format!("{nodes:?}"))
        }
    });

    lab.off("worker2");
    eventually_within(BOUND, "its replica runs elsewhere", || {
        let nodes = running_on(&lab, "spread");
        if nodes.len() == 3 && !nodes.contains(&"worker2".to_owned()) {
            Ok(())
        } else {
            Err(format!("{nodes:?}\n{}", lab.ok("manager", "node ls")))
        }
    });
    let nodes = lab.ok("manager", "node ls --format {{.Hostname}}:{{.Status}}");
    assert!(nodes.contains("worker2:Down"), "{nodes}");

    lab.start("worker2");
    eventually_within(BOUND, "it comes back by itself", || {
        let seen = lab.ok("manager", "node ls --format {{.Hostname}}:{{.Status}}");
        if seen.contains("worker2:Ready") {
            Ok(())
        } else {
            Err(seen)
        }
    });
    eventually_within(BOUND, "and runs nothing that it should not", || {
        let left = lab.ok("worker2", "ps -q");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
