//! Walk A: a swarm of one, command for command.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use serde_json::Value;
use skep_testkit::{Daemon, eventually, eventually_within};
use std::time::Duration;

fn swarm() -> Daemon {
    Daemon::builder()
        .image("busybox")
        .image("timecheck")
        .start()
        .unwrap()
}

fn converged(daemon: &Daemon, service: &str, replicas: &str) {
    eventually_within(
        Duration::from_secs(30),
        &format!("{service} has {replicas}"),
        || {
            let seen = daemon
                .docker()
                .run([
                    "service",
                    "ls",
                    "--filter",
                    &format!("name={service}"),
                    "--format",
                    "{{.Replicas}}",
                ])
                .ok();
            if seen == replicas {
                Ok(())
            } else {
                Err(format!(
                    "{seen}\n{}",
                    daemon.ok(&format!("service ps --no-trunc {service}"))
                ))
            }
        },
    );
}

#[test]
fn walk_a_a_swarm_of_one() {
    let daemon = swarm();
    let said = daemon.ok("swarm init");
    let node = daemon
        .docker()
        .run(["info", "-f", "{{.Swarm.NodeID}}"])
        .ok();
    assert!(
        said.starts_with(&format!(
            "Swarm initialized: current node ({node}) is now a manager."
        )),
        "{said}"
    );
    assert!(
        said.contains("docker swarm join --token SWMTKN-1-"),
        "{said}"
    );
    assert!(said.contains("10.231.0.2:2377"), "{said}");
    let worker = daemon.ok("swarm join-token -q worker");
    let manager = daemon.ok("swarm join-token -q manager");
    assert_eq!(worker.len(), manager.len());
    assert_ne!(worker, manager);
    let nodes = daemon.ok("node ls");
    let row = nodes.lines().nth(1).unwrap();
    assert!(row.starts_with(&format!("{node} *")), "{nodes}");
    for word in ["Ready", "Active", "Leader"] {
        assert!(row.contains(word), "{nodes}");
    }
    assert!(daemon.ok("info").contains("Swarm: active"));

    daemon.ok("service create --name timecheck --replicas 1 skep/timecheck:1.0");
    converged(&daemon, "timecheck", "1/1");
    let tasks = daemon.ok("service ps timecheck");
    assert!(
        tasks.contains("timecheck.1") && tasks.contains("Running"),
        "{tasks}"
    );
    let name = daemon
        .docker()
        .run(["container", "ls", "--format", "{{.Names}}"])
        .ok();
    let (prefix, id) = name.rsplit_once('.').unwrap();
    assert_eq!((prefix, id.len()), ("timecheck.1", 25));

    let container = daemon.ok("container ls --last 1 -q");
    daemon.ok(&format!("container rm -f {container}"));
    eventually_within(Duration::from_secs(30), "the replacement runs", || {
        let tasks = daemon
            .docker()
            .run(["service", "ps", "timecheck", "--no-trunc"])
            .ok();
        let lines: Vec<&str> = tasks.lines().collect();
        let healed = lines.len() == 3
            && lines[1].contains("timecheck.1")
            && lines[1].contains("Running")
            && lines[2].contains("\\_ timecheck.1")
            && lines[2].contains("Shutdown")
            && lines[2].contains("Failed")
            && lines[2].contains("\"task: non-zero exit (137)\"");
        if healed
            && lines[1]
                .split_whitespace()
                .filter(|word| *word == "Running")
                .count()
                == 2
        {
            Ok(())
        } else {
            Err(tasks)
        }
    });

    eventually("the log of the new task shows", || {
        let log = daemon.ok("service logs --since 10s timecheck");
        let line = log.lines().last().unwrap_or_default();
        let fits =
            line.starts_with("timecheck.1.") && line.contains('@') && line.contains("    | ");
        if fits { Ok(()) } else { Err(log) }
    });
    let format = "{{.Spec.TaskTemplate.ContainerSpec.Image}}";
    assert!(
        daemon
            .docker()
            .run(["service", "inspect", "timecheck", "-f", format])
            .ok()
            .starts_with("skep/timecheck:1.0")
    );

    let updated = daemon.ok("service update --image skep/timecheck:2.0 timecheck");
    assert!(
        updated.contains("verify: Service timecheck converged"),
        "{updated}"
    );
    let history = daemon.ok("service ps timecheck");
    assert!(
        history.contains("skep/timecheck:2.0") && history.contains("skep/timecheck:1.0"),
        "{history}"
    );

    let rolled = daemon.ok("service update --rollback timecheck");
    for line in [
        "rollback: manually requested rollback",
        "verify: Service timecheck converged",
    ] {
        assert!(rolled.contains(line), "{rolled}");
    }
    assert!(
        daemon
            .docker()
            .run(["service", "inspect", "timecheck", "-f", format])
            .ok()
            .starts_with("skep/timecheck:1.0")
    );
    let pretty = daemon.ok("service inspect --pretty timecheck");
    assert!(
        pretty.contains("State:\t\trollback_completed") || pretty.contains("rollback_completed"),
        "{pretty}"
    );

    daemon.ok("service rm timecheck");
    eventually("its containers are gone", || {
        let left = daemon.ok("ps -aq");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    let last = daemon.sh("swarm leave").fails_with(1);
    assert!(last.contains("--force"), "{last}");
    assert_eq!(daemon.ok("swarm leave --force"), "Node left the swarm.");
    assert!(daemon.ok("info").contains("Swarm: inactive"));
}

#[test]
fn scale_and_follow_the_log() {
    let daemon = swarm();
    daemon.ok("swarm init");
    daemon.ok("service create --detach --name s --replicas 2 skep/timecheck:1.0");
    converged(&daemon, "s", "2/2");
    daemon.ok("service scale s=4");
    converged(&daemon, "s", "4/4");
    daemon.ok("service scale s=1");
    eventually("surplus containers are gone", || {
        let left = daemon.ok("ps -q");
        if left.lines().count() == 1 {
            Ok(())
        } else {
            Err(left)
        }
    });
    let spec: Value = serde_json::from_str(&daemon.ok("service inspect s")).unwrap();
    assert_eq!(spec[0]["Spec"]["Mode"]["Replicated"]["Replicas"], 1);
    let tail = daemon.ok("service logs --tail 1 --raw s");
    assert_eq!(tail.lines().count(), 4.min(tail.lines().count()), "{tail}");
    assert!(!tail.is_empty());
}

#[test]
fn fifty_replicas_spread_over_their_slots() {
    let daemon = Daemon::start();
    daemon.ok("swarm init");
    daemon.ok("service create --detach --name many --replicas 50 busybox sleep 1000");
    converged(&daemon, "many", "50/50");
    let slots = daemon
        .docker()
        .run(["service", "ps", "--format", "{{.Name}}", "many"])
        .ok();
    let distinct: std::collections::BTreeSet<&str> = slots.lines().collect();
    assert_eq!(distinct.len(), 50);
    daemon.ok("service rm many");
    eventually_within(Duration::from_secs(40), "all are gone", || {
        let left = daemon.ok("ps -aq");
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{} left", left.lines().count()))
        }
    });
}

#[test]
fn a_missing_image_is_said_on_the_task() {
    let daemon = Daemon::start();
    daemon.ok("swarm init");
    let said = daemon.sh("service create --detach --name s no/such:image");
    assert!(
        said.stderr
            .contains("could not be accessed on a registry to record"),
        "{said}"
    );
    eventually("the task is rejected", || {
        let tasks = daemon.ok("service ps --no-trunc s");
        if tasks.contains("Rejected") && tasks.contains("No such image: no/such:image") {
            Ok(())
        } else {
            Err(tasks)
        }
    });
}

#[test]
fn bad_requests_get_dockers_words() {
    let daemon = Daemon::start();
    let error = daemon.sh("service ls").fails_with(1);
    assert!(
        error.contains("This node is not a swarm manager"),
        "{error}"
    );
    daemon.ok("swarm init");
    let error = daemon.sh("swarm init").fails_with(1);
    assert!(
        error.contains("This node is already part of a swarm"),
        "{error}"
    );
    let error = daemon
        .sh("service create --detach --name bad_$ busybox")
        .fails_with(1);
    assert!(
        error.contains("name must be valid as a DNS name component"),
        "{error}"
    );
    daemon.ok("service create --detach --name s busybox sleep 1000");
    let error = daemon
        .sh("service create --detach --name s busybox sleep 1000")
        .fails_with(1);
    assert!(
        error.contains("name conflicts with an existing object"),
        "{error}"
    );
    let error = daemon.sh("service inspect nope").fails_with(1);
    assert!(error.contains("no such service: nope"), "{error}");
    let error = daemon.sh("service rm nope").fails_with(1);
    assert!(error.contains("service nope not found"), "{error}");
}

#[test]
fn two_addresses_ask_for_a_choice() {
    let daemon = Daemon::start();
    assert!(
        daemon
            .machine()
            .command("ip")
            .args(["address", "add", "10.232.0.2/24", "dev", "eth0"])
            .status()
            .unwrap()
            .success()
    );
    let error = daemon.sh("swarm init").fails_with(1);
    assert!(
        error.contains("could not choose an IP address to advertise")
            && error.contains("--advertise-addr"),
        "{error}"
    );
    daemon.ok("swarm init --advertise-addr 10.232.0.2");
}
