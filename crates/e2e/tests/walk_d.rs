//! Walk D: a lab of five, joined by name; without its registry.

use std::time::Duration;

use skep_testkit::{Lab, eventually_within};

const BOUND: Duration = Duration::from_secs(40);

fn replicas(lab: &Lab, wanted: &str) {
    eventually_within(BOUND, &format!("echo has {wanted}"), || {
        let seen = lab.ok("manager", "service ls --format {{.Replicas}}");
        if seen == wanted {
            Ok(())
        } else {
            Err(format!(
                "{seen}\n{}",
                lab.ok("manager", "service ps --no-trunc echo")
            ))
        }
    });
}

#[test]
fn walk_d_workers_join_by_name_and_a_service_scales_over_them() {
    let workers = ["worker01", "worker02", "worker03"];
    let mut lab = Lab::builder().single("manager").image("whoami");
    for worker in workers {
        lab = lab.single(worker);
    }
    let lab = lab.start().expect("the lab starts");
    lab.ok("manager", "swarm init");
    let token = lab.ok("manager", "swarm join-token -q worker");
    for worker in workers {
        lab.ok(worker, &format!("swarm join --token {token} manager:2377"));
    }
    eventually_within(BOUND, "all four are ready", || {
        let seen = lab.ok("manager", "node ls --format {{.Status}}");
        if seen.lines().filter(|status| *status == "Ready").count() == 4 {
            Ok(())
        } else {
            Err(lab.ok("manager", "node ls"))
        }
    });

    let created = lab.sh(
        "manager",
        "service create --detach --replicas 1 --name echo skep/whoami:1.0",
    );
    assert_eq!(created.code, 0, "{created}");
    assert!(
        created
            .stderr
            .contains("could not be accessed on a registry to record")
            && created.stderr.contains("possibly leading to different"),
        "{created}"
    );
    replicas(&lab, "1/1");
    lab.ok("manager", "service scale --detach echo=6");
    replicas(&lab, "6/6");
    // Six over four machines: none stays idle.
    for node in lab.nodes() {
        assert_ne!(node.ok("ps -q"), "", "{}", node.name);
    }
    lab.ok("manager", "service rm echo");
    eventually_within(BOUND, "no container is left", || {
        let left: Vec<String> = lab.nodes().iter().map(|node| node.ok("ps -aq")).collect();
        if left.iter().all(String::is_empty) {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}

#[test]
fn a_node_without_the_image_rejects_the_task_and_says_which() {
    let lab = Lab::builder().managers(1).start().expect("the lab starts");
    lab.ok(
        "m1",
        "service create --detach --name echo registry:5000/me/echo:latest",
    );
    eventually_within(BOUND, "the task is rejected", || {
        let tasks = lab.ok("m1", "service ps --no-trunc echo");
        if tasks.contains("Rejected")
            && tasks.contains("No such image: registry:5000/me/echo:latest")
        {
            Ok(())
        } else {
            Err(tasks)
        }
    });
}
