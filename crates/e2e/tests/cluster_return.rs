//! Nodes that come back: after they were removed, moved, or away for longer than their certificate,
//! and nodes whose clock is wrong.

use std::time::Duration;

use skep_testkit::{Lab, eventually_within};

/// A removed manager waits for its new role before it asks again.
const BOUND: Duration = Duration::from_secs(60);
const HOUR: i64 = 3600;
const REMOVED: &str = "This node was removed from the swarm and its certificate is refused. Use \"docker swarm leave --force\" on this node, then join the swarm again with a token.";
const TIMEOUT: &str = "Error response from daemon: Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node.";

#[track_caller]
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

#[track_caller]
fn eventually_done(lab: &Lab, on: &str, line: &str) {
    eventually_within(BOUND, &format!("{line} works on {on}"), || {
        let outcome = lab.sh(on, line);
        if outcome.code == 0 {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
}

fn nodes(lab: &Lab, on: &str) -> String {
    lab.ok(on, "node ls --format {{.Hostname}}:{{.Status}}")
}

fn state(lab: &Lab, on: &str) -> String {
    lab.ok(on, "info --format {{.Swarm.LocalNodeState}}")
}

fn token(lab: &Lab, role: &str) -> String {
    lab.ok("m1", &format!("swarm join-token -q {role}"))
}

#[test]
fn a_removed_worker_is_refused_by_every_manager_until_it_joins_anew() {
    let lab = Lab::of(3, 1);
    lab.kill("w1");
    lab.ok("m1", "node rm --force w1");
    for manager in ["m1", "m2", "m3"] {
        // It knows only this one.
        let known = format!(r#"[{{"addr":"{}:2377"}}]"#, lab.node(manager).address);
        let file = lab.swarm_file("w1", "state.json");
        std::fs::write(file, known).expect("the node's file can be written");
        lab.start("w1");
        eventually_says(&lab, "w1", "info --format {{.Swarm.Error}}", REMOVED);
        assert!(!nodes(&lab, manager).contains("w1"));
        lab.kill("w1");
    }
    assert!(lab.node("w1").log().contains("was removed from the swarm"));
    lab.start("w1");
    lab.ok("w1", "swarm leave --force");
    let token = token(&lab, "worker");
    lab.ok("w1", &format!("swarm join --token {token} m1:2377"));
    assert!(nodes(&lab, "m1").contains("w1:Ready"));
    assert_eq!(lab.ok("w1", "info --format {{.Swarm.Error}}"), "");
}

#[test]
fn a_removed_manager_is_refused_and_says_what_to_do() {
    let lab = Lab::of(3, 0);
    lab.kill("m3");
    lab.ok("m1", "node demote m3");
    eventually_done(&lab, "m1", "node rm --force m3");
    lab.start("m3");
    eventually_says(&lab, "m3", "info --format {{.Swarm.Error}}", REMOVED);
    for manager in ["m1", "m2"] {
        assert!(!nodes(&lab, manager).contains("m3"));
    }
    lab.ok("m3", "swarm leave --force");
    assert_eq!(state(&lab, "m3"), "inactive");
}

#[test]
fn a_join_that_hears_nothing_goes_on_in_the_background_but_not_after_a_restart() {
    let lab = Lab::builder()
        .managers(1)
        .single("late")
        .single("gone")
        .start()
        .expect("the lab starts");
    let token = token(&lab, "worker");
    let join = format!("swarm join --token {token} m1:2377");
    lab.cut(&["m1"]);
    std::thread::scope(|scope| {
        for name in ["late", "gone"] {
            let (lab, join) = (&lab, &join);
            scope.spawn(move || {
                let error = lab.sh(name, join).fails_with(1);
                assert_eq!(error.trim(), TIMEOUT);
                assert_eq!(state(lab, name), "pending");
            });
        }
    });
    lab.kill("gone");
    lab.start("gone");
    assert_eq!(state(&lab, "gone"), "inactive");
    lab.heal(&["m1"]);
    eventually_says(
        &lab,
        "late",
        "info --format {{.Swarm.LocalNodeState}}",
        "active",
    );
    lab.ok("gone", &join);
    let seen = nodes(&lab, "m1");
    assert!(
        seen.contains("late:Ready") && seen.contains("gone:Ready"),
        "{seen}"
    );
}

/// Gives a node that is down the address `10.231.0.<last>`.
fn readdress(lab: &Lab, node: &str, last: u8) -> String {
    let new = format!("10.231.0.{last}");
    let old = &lab.node(node).address;
    for line in [
        format!("addr del {old}/24 dev eth0"),
        format!("addr add {new}/24 dev eth0"),
        "route replace default via 10.231.0.1".to_owned(),
    ] {
        let done = lab.node(node).command("ip").args(line.split(' ')).status();
        assert!(done.is_ok_and(|done| done.success()), "ip {line}");
    }
    new
}

#[test]
fn a_node_that_moved_comes_back_and_the_others_learn_its_address() {
    let lab = Lab::builder()
        .managers(1)
        .single("m2")
        .single("m3")
        .single("w")
        .start()
        .expect("the lab starts");
    for (node, role) in [("m2", "manager"), ("m3", "manager"), ("w", "worker")] {
        let token = token(&lab, role);
        // Without an address that it is bound to.
        lab.ok(node, &format!("swarm join --token {token} m1:2377"));
    }
    lab.kill("m3");
    let manager = readdress(&lab, "m3", 40);
    lab.start("m3");
    let listening = format!("{manager}:2377");
    for on in ["m1", "m2", "m3"] {
        let line = "node inspect m3 --format {{.ManagerStatus.Addr}}";
        eventually_says(&lab, on, line, &listening);
    }
    eventually_says(
        &lab,
        "w",
        "info --format {{.Swarm.RemoteManagers}}",
        &listening,
    );
    eventually_says(&lab, "m3", "info --format {{.Swarm.NodeAddr}}", &manager);
    eventually_says(
        &lab,
        "m1",
        "node inspect m3 --format {{.Status.Addr}}={{.Status.State}}={{.ManagerStatus.Reachability}}",
        &format!("{manager}=ready=reachable"),
    );

    lab.kill("w");
    let worker = readdress(&lab, "w", 50);
    lab.start("w");
    eventually_says(
        &lab,
        "m2",
        "node inspect w --format {{.Status.Addr}}={{.Status.State}}",
        &format!("{worker}=ready"),
    );
    eventually_says(&lab, "w", "info --format {{.Swarm.NodeAddr}}", &worker);
}

#[test]
fn a_clock_that_is_an_hour_wrong_keeps_no_node_out() {
    let lab = Lab::builder()
        .managers(1)
        .single("ahead")
        .single("behind")
        .image("busybox")
        .start()
        .expect("the lab starts");
    let token = token(&lab, "worker");
    for (node, seconds) in [("ahead", HOUR), ("behind", -HOUR)] {
        lab.kill(node);
        lab.start_with_clock(node, seconds);
        lab.ok(node, &format!("swarm join --token {token} m1:2377"));
    }
    lab.ok(
        "m1",
        "service create --detach --name s --mode global busybox sleep 1000",
    );
    eventually_says(&lab, "m1", "service ls --format {{.Replicas}}", "3/3");
    let seen = nodes(&lab, "m1");
    assert!(
        seen.contains("ahead:Ready") && seen.contains("behind:Ready"),
        "{seen}"
    );
}

#[test]
fn a_swarm_that_slept_past_its_certificates_renews_them_alone() {
    let lab = Lab::of(1, 1);
    lab.ok("m1", "swarm update --cert-expiry 1h");
    // They still have those of ninety days.
    lab.ok("m1", "swarm ca --rotate --quiet");
    let file = lab.swarm_file("w1", "certificates/swarm-node.crt");
    let certificate = || std::fs::read_to_string(&file).expect("the node has a certificate");
    let before = certificate();
    for node in ["m1", "w1"] {
        lab.kill(node);
        lab.start_with_clock(node, 26 * HOUR);
    }
    eventually_within(BOUND, "the worker renews its certificate", || {
        if certificate() == before {
            Err("it has the old one".to_owned())
        } else {
            Ok(())
        }
    });
    eventually_says(
        &lab,
        "m1",
        "node ls --format {{.Hostname}}:{{.Status}}",
        "w1:Ready",
    );
    lab.ok("m1", "config create works /etc/hostname");
}
