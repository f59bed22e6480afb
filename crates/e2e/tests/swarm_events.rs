//! `docker events` of scope swarm, on a manager.

use skep_testkit::{Daemon, eventually};

fn seen(daemon: &Daemon, filters: &str) -> String {
    daemon.ok(&format!(
        "events --since 1h --until 0s --filter scope=swarm {filters}"
    ))
}

fn told(daemon: &Daemon, filters: &str, words: &[&str]) {
    eventually("the event", || {
        let events = seen(daemon, filters);
        let found = events
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)));
        if found {
            Ok(())
        } else {
            Err(format!("{words:?} not in {events}"))
        }
    });
}

#[test]
fn a_manager_tells_what_becomes_of_services_nodes_and_secrets() {
    let daemon = Daemon::start();
    daemon.ok("swarm init --advertise-addr 10.231.0.2");
    let node = daemon.ok("node ls -q");
    told(&daemon, "--filter type=node", &["node create", &node]);
    daemon.ok("service create -d --name web --replicas 1 busybox sleep 1000");
    daemon.ok("service scale -d web=2");
    told(
        &daemon,
        "--filter service=web",
        &["service create", "name=web"],
    );
    told(
        &daemon,
        "--filter service=web --filter event=update",
        &["replicas.new=2", "replicas.old=1"],
    );
    daemon.ok(&format!("node update --availability drain {node}"));
    told(
        &daemon,
        "--filter type=node",
        &["availability.new=drain", "availability.old=active"],
    );
    daemon.ok("service rm web");
    told(&daemon, "--filter service=web", &["service remove"]);
    assert_eq!(
        daemon.ok("events --since 1h --until 0s --filter scope=local --filter type=service"),
        ""
    );
}
