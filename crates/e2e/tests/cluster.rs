//! Several nodes become one swarm, each on a machine of its own, and lose some of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use skep_testkit::{Lab, LabNode, eventually_within};
use std::time::Duration;

/// An election, a session and a heartbeat that is missed, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// The first `managers` nodes are managers, the rest workers; each joined by the stock CLI.
fn joined(managers: usize, workers: usize) -> Lab {
    let lab = of(managers + workers);
    let first = &lab.nodes()[0];
    first.ok(&format!("swarm init --advertise-addr {}", first.address));
    for (i, node) in lab.nodes().iter().enumerate().skip(1) {
        let role = if i < managers { "manager" } else { "worker" };
        let token = first.ok(&format!("swarm join-token -q {role}"));
        let said = node.ok(&format!(
            "swarm join --token {token} {}:2377",
            first.address
        ));
        assert_eq!(said, format!("This node joined a swarm as a {role}."));
    }
    lab
}

/// Daemons that reach each other, none of them in a swarm yet.
fn of(count: usize) -> Lab {
    let mut lab = Lab::builder().image("busybox").not_joined();
    for name in NAMES.iter().take(count) {
        lab = lab.single(name);
    }
    lab.start().unwrap()
}

fn id(node: &LabNode) -> String {
    info(node, "{{.Swarm.NodeID}}")
}

fn info(node: &LabNode, format: &str) -> String {
    node.docker().run(["info", "-f", format]).ok()
}

fn list(node: &LabNode, format: &str) -> Result<Vec<String>, String> {
    let outcome = node.docker().run(["node", "ls", "--format", format]);
    if outcome.code != 0 {
        return Err(outcome.stderr);
    }
    let mut lines: Vec<String> = outcome.stdout.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// How many nodes the managers see in each manager status.
#[track_caller]
fn managers_are(node: &LabNode, leaders: usize, reachable: usize, unreachable: usize) {
    eventually_within(PATIENCE, "the managers' states", || {
        let seen = list(node, "{{.ManagerStatus}}")?;
        let count = |status: &str| seen.iter().filter(|seen| *seen == status).count();
        let counts = (count("Leader"), count("Reachable"), count("Unreachable"));
        if counts == (leaders, reachable, unreachable) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
}

#[track_caller]
fn has_replicas(node: &LabNode, service: &str, replicas: &str) {
    eventually_within(PATIENCE, &format!("{service} has {replicas}"), || {
        let filter = format!("name={service}");
        let outcome = node.docker().run([
            "service",
            "ls",
            "--filter",
            &filter,
            "--format",
            "{{.Replicas}}",
        ]);
        if outcome.stdout.trim() == replicas {
            Ok(())
        } else {
            Err(format!("{outcome}"))
        }
    });
}

fn containers(node: &LabNode) -> Vec<String> {
    let mut ids: Vec<String> = node.ok("ps -q").lines().map(str::to_owned).collect();
    ids.sort();
    ids
}

#[test]
fn nodes_join_with_a_command_each_and_any_manager_takes_any_command() {
    let cluster = joined(2, 1);
    let [first, second, worker] = cluster.nodes() else {
        panic!("three nodes")
    };
    managers_are(second, 1, 1, 0);
    assert_eq!(
        list(second, "{{.Status}} {{.Availability}}").unwrap(),
        ["Ready Active"; 3]
    );
    assert_eq!(
        info(
            worker,
            "{{.Swarm.ControlAvailable}} {{.Swarm.LocalNodeState}}"
        ),
        "false active"
    );
    assert_eq!(info(worker, "{{.Swarm.NodeAddr}}"), worker.address);
    assert_eq!(info(worker, "{{len .Swarm.RemoteManagers}}"), "2");
    let refused = worker.sh("node ls");
    assert_eq!(
        refused.stderr.trim(),
        "Error response from daemon: This node is not a swarm manager. Worker nodes can't be used \
         to view or modify cluster state. Please run this command on a manager node or promote the \
         current node to a manager."
    );
    second.ok("service create -d --name web --replicas 6 busybox sleep 10000");
    has_replicas(first, "web", "6/6");
    for node in cluster.nodes() {
        assert_eq!(containers(node).len(), 2);
    }
    second
        .docker()
        .run([
            "service",
            "create",
            "-d",
            "--name",
            "talk",
            "--mode",
            "global",
            "busybox",
            "sh",
            "-c",
            "echo said; exec sleep 10000",
        ])
        .ok();
    has_replicas(second, "talk", "3/3");
    eventually_within(PATIENCE, "the logs of all nodes", || {
        let logs = second.sh("service logs talk");
        match logs.stdout.matches("| said").count() {
            3 => Ok(()),
            _ => Err(format!("{logs}")),
        }
    });
    let own = id(&cluster.nodes()[2]);
    second.ok(&format!("node update --availability drain {own}"));
    eventually_within(
        PATIENCE,
        "a drained worker has no tasks",
        || match containers(worker) {
            none if none.is_empty() => Ok(()),
            some => Err(format!("{some:?}")),
        },
    );
    has_replicas(first, "web", "6/6");
}

#[test]
fn a_dead_leader_costs_a_pause_and_comes_back_as_a_follower() {
    let cluster = joined(3, 0);
    managers_are(&cluster.nodes()[1], 1, 2, 0);
    cluster.nodes()[0].ok("service create -d --name web --replicas 3 busybox sleep 10000");
    has_replicas(&cluster.nodes()[1], "web", "3/3");
    let before: Vec<_> = cluster.nodes().iter().map(containers).collect();

    cluster.kill(NAMES[0]);
    // Acknowledged by the next leader; the client only waits.
    cluster.nodes()[1].ok("service create -d --name after --replicas 1 busybox sleep 10000");
    managers_are(&cluster.nodes()[2], 1, 1, 1);
    assert!(cluster.nodes()[2].ok("service ls").contains("after"));

    cluster.start(NAMES[0]);
    managers_are(&cluster.nodes()[0], 1, 2, 0);
    has_replicas(&cluster.nodes()[0], "web", "3/3");
    has_replicas(&cluster.nodes()[0], "after", "1/1");
    // Its container was not restarted: neither by the crash nor by the swarm.
    let still = containers(&cluster.nodes()[0]);
    assert!(
        before[0].iter().all(|id| still.contains(id)),
        "{before:?} {still:?}"
    );

    // All at once.
    for name in NAMES {
        cluster.kill(name);
    }
    for name in NAMES {
        cluster.start(name);
    }
    managers_are(&cluster.nodes()[1], 1, 2, 0);
    has_replicas(&cluster.nodes()[1], "web", "3/3");
    assert_eq!(cluster.nodes()[0].ok("service ls -q").lines().count(), 2);
}

#[test]
fn without_a_quorum_reads_and_tasks_go_on_and_a_survivor_recovers_by_force() {
    let cluster = joined(2, 1);
    managers_are(&cluster.nodes()[0], 1, 1, 0);
    cluster.nodes()[0].ok("service create -d --name web --replicas 3 busybox sleep 10000");
    has_replicas(&cluster.nodes()[0], "web", "3/3");
    let on_worker = containers(&cluster.nodes()[2]);
    cluster.kill(NAMES[1]);
    let survivor = &cluster.nodes()[0];
    managers_are(survivor, 0, 1, 1);
    let refused = survivor.sh("service create -d --name never busybox sleep 10000");
    assert_eq!(
        refused.stderr.trim(),
        "Error response from daemon: rpc error: code = Unknown desc = The swarm does not have a \
         leader. It's possible that too few managers are online. Make sure more than half of the \
         managers are online."
    );
    assert!(survivor.ok("service ls").contains("web"));
    assert_eq!(containers(&cluster.nodes()[2]), on_worker);
    let warned = survivor.sh("swarm leave").stderr;
    assert!(
        warned.contains("Removing this node leaves 0 managers out of 2. Without a Raft quorum"),
        "{warned}"
    );

    let address = &survivor.address;
    survivor.ok(&format!(
        "swarm init --force-new-cluster --advertise-addr {address}"
    ));
    managers_are(survivor, 1, 0, 0);
    // The lost manager's task is replaced; the worker keeps its own.
    has_replicas(survivor, "web", "3/3");
    let still = containers(&cluster.nodes()[2]);
    assert!(
        on_worker.iter().all(|id| still.contains(id)),
        "{on_worker:?} {still:?}"
    );
}

#[test]
fn roles_change_while_containers_run() {
    let cluster = joined(2, 1);
    let [first, second, third] = cluster.nodes() else {
        panic!("three nodes")
    };
    first.ok("service create -d --name web --replicas 3 busybox sleep 10000");
    has_replicas(first, "web", "3/3");
    let before: Vec<_> = cluster.nodes().iter().map(containers).collect();
    let refused = first.sh(&format!("node rm --force {}", id(&cluster.nodes()[1])));
    assert_eq!(
        refused.stderr.trim(),
        format!(
            "Error response from daemon: rpc error: code = FailedPrecondition desc = node {} is a \
             cluster manager and is a member of the raft cluster. It must be demoted to worker \
             before removal",
            id(&cluster.nodes()[1])
        )
    );

    first.ok(&format!("node promote {}", id(&cluster.nodes()[2])));
    managers_are(first, 1, 2, 0);
    eventually_within(PATIENCE, "the promoted node answers", || {
        let outcome = third.sh("service ls");
        if outcome.code == 0 {
            Ok(())
        } else {
            Err(format!("{outcome}"))
        }
    });
    // The leader itself: another one leads first.
    let leader = first.ok("node ls --format {{if.ManagerStatus}}{{.ID}}-{{.ManagerStatus}}{{end}}");
    let leader = leader
        .lines()
        .find_map(|line| line.strip_suffix("-Leader"))
        .unwrap();
    second.ok(&format!("node demote {leader}"));
    let demoted = (0..3)
        .find(|&node| id(&cluster.nodes()[node]) == leader)
        .unwrap();
    let others: Vec<&LabNode> = (0..3)
        .filter(|&n| n != demoted)
        .map(|n| &cluster.nodes()[n])
        .collect();
    managers_are(others[0], 1, 1, 0);
    eventually_within(PATIENCE, "the demoted node is a worker", || {
        let outcome = cluster.nodes()[demoted].sh("node ls");
        if outcome.stderr.contains("Worker nodes can't be used") {
            Ok(())
        } else {
            Err(format!("{outcome}"))
        }
    });
    let after: Vec<_> = cluster.nodes().iter().map(containers).collect();
    assert_eq!(before, after, "no container was restarted");

    // A worker leaves, and is removed when it is down; its certificate is worth nothing then.
    let worker = &cluster.nodes()[demoted];
    let refused = others[0].sh(&format!("node rm {leader}"));
    assert!(
        refused
            .stderr
            .contains(&format!("node {leader} is not down and can't be removed")),
        "{refused}"
    );
    assert_eq!(worker.ok("swarm leave"), "Node left the swarm.");
    assert!(containers(worker).is_empty());
    eventually_within(PATIENCE, "the node is down", || {
        let seen = list(others[0], "{{.ID}} {{.Status}}")?;
        if seen.contains(&format!("{leader} Down")) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    others[0].ok(&format!("node rm {leader}"));
    assert_eq!(list(others[0], "{{.ID}}").unwrap().len(), 2);
    has_replicas(others[0], "web", "3/3");
}

#[test]
fn workers_keep_their_tasks_while_all_managers_are_gone() {
    let cluster = joined(1, 1);
    cluster.nodes()[0].ok("service create -d --name web --mode global busybox sleep 10000");
    has_replicas(&cluster.nodes()[0], "web", "2/2");
    let before = containers(&cluster.nodes()[1]);
    cluster.kill(NAMES[0]);
    cluster.kill(NAMES[1]);
    cluster.start(NAMES[1]);
    assert_eq!(containers(&cluster.nodes()[1]), before);
    assert_eq!(
        info(&cluster.nodes()[1], "{{.Swarm.LocalNodeState}}"),
        "active"
    );
    // One of them ends: its manager hears of it when there is one again.
    cluster.nodes()[1].ok(&format!("kill {}", before[0]));
    cluster.start(NAMES[0]);
    has_replicas(&cluster.nodes()[0], "web", "2/2");
    eventually_within(PATIENCE, "the worker's new task", || {
        match &containers(&cluster.nodes()[1])[..] {
            [new] if *new != before[0] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn bad_tokens_and_unreachable_managers_are_told_and_leave_nothing() {
    let cluster = of(3);
    let [first, stranger, node] = cluster.nodes() else {
        panic!("three nodes")
    };
    let address = &first.address;
    first.ok(&format!("swarm init --advertise-addr {address}"));
    let token = first.ok("swarm join-token -q worker");
    let join = |token: &str, address: &str| {
        let outcome = node.sh(&format!("swarm join --token {token} {address}"));
        assert_ne!(outcome.code, 0, "{outcome}");
        assert_eq!(info(node, "{{.Swarm.LocalNodeState}}"), "inactive");
        outcome.stderr.trim().to_owned()
    };
    assert_eq!(
        join(&token[..token.len() - 3], address),
        "Error response from daemon: invalid join token"
    );
    let rotated = first.ok("swarm join-token -q --rotate worker");
    assert_ne!(rotated, token);
    assert_eq!(
        join(&token, address),
        "Error response from daemon: rpc error: code = InvalidArgument desc = A valid join token \
         is necessary to join this cluster"
    );
    stranger.ok("swarm init");
    let foreign = stranger.ok("swarm join-token -q worker");
    let said = join(&foreign, address);
    assert!(
        said.starts_with(
            "Error response from daemon: remote CA does not match fingerprint. Expected: "
        ),
        "{said}"
    );
    let said = join(&rotated, &format!("{address}:2999"));
    assert!(said.contains("connect: connection refused"), "{said}");
    let said = first
        .sh(&format!("swarm join --token {rotated} {address}"))
        .stderr;
    assert!(
        said.contains("This node is already part of a swarm."),
        "{said}"
    );

    let network = address.rsplit_once('.').unwrap().0;
    let nobody = format!("{network}.250");
    // Nobody at all there: the CLI gives up, the daemon goes on until the user leaves.
    let said = node
        .sh(&format!("swarm join --token {rotated} {nobody}"))
        .stderr;
    assert_eq!(
        said.trim(),
        "Error response from daemon: Timeout was reached before node joined. The attempt to join \
         the swarm will continue in the background. Use the \"docker info\" command to see the \
         current swarm status of your node."
    );
    assert_eq!(info(node, "{{.Swarm.LocalNodeState}}"), "pending");
    node.ok("swarm leave");
    assert_eq!(info(node, "{{.Swarm.LocalNodeState}}"), "inactive");
    node.ok(&format!("swarm join --token {rotated} {address}"));

    // A manager's port that somebody else has.
    node.ok("swarm leave");
    let manager = first.ok("swarm join-token -q manager");
    let mut squatter = node
        .command("busybox")
        .args(["nc", "-l", "-p", "2377"])
        .spawn()
        .unwrap();
    eventually_within(PATIENCE, "the port is taken", || {
        let said = node
            .sh(&format!("swarm join --token {manager} {address}"))
            .stderr;
        if said.contains("listen tcp 0.0.0.0:2377: bind: address already in use") {
            Ok(())
        } else {
            Err(said)
        }
    });
    squatter.kill().unwrap();
    squatter.wait().unwrap();
    assert_eq!(info(node, "{{.Swarm.LocalNodeState}}"), "inactive");
}
