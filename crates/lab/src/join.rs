//! Making one swarm of the nodes, as a user would: init, token, join.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Api, LabError, LabFiles, Node, Role};

const PORT: u16 = 2377;
const BOUND: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Joins all managers and workers. Managers one after the other, for each changes the quorum that
/// the next one needs; workers at the same time.
pub(crate) fn join(files: &LabFiles, nodes: &[Node]) -> Result<(), LabError> {
    let of = |role| nodes.iter().filter(move |node: &&Node| node.role == role);
    let api = |node: &Node| Api::new(&node.name, &files.socket(&node.name));
    let Some(first) = of(Role::Manager).next() else {
        return Ok(());
    };
    let founder = api(first);
    founder.call("start a swarm", "POST", "/swarm/init", Some(&init(first)))?;
    let swarm = founder.call("tell its join tokens", "GET", "/swarm", None)?;
    let join = |node: &Node, role: &str| {
        let token = swarm["JoinTokens"][role].as_str().unwrap_or_default();
        let body = join_request(node, first, token);
        api(node).call("join the swarm", "POST", "/swarm/join", Some(&body))
    };
    for manager in of(Role::Manager).skip(1) {
        join(manager, "Manager")?;
    }
    std::thread::scope(|scope| {
        let joining: Vec<_> = of(Role::Worker)
            .map(|worker| scope.spawn(|| join(worker, "Worker")))
            .collect();
        for worker in joining {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok::<(), LabError>(())
    })?;
    ready(&founder, nodes)
}

fn init(node: &Node) -> Value {
    json!({
        "ListenAddr": format!("0.0.0.0:{PORT}"),
        "AdvertiseAddr": node.address.to_string(),
    })
}

fn join_request(node: &Node, manager: &Node, token: &str) -> Value {
    json!({
        "ListenAddr": format!("0.0.0.0:{PORT}"),
        "AdvertiseAddr": node.address.to_string(),
        "RemoteAddrs": [format!("{}:{PORT}", manager.address)],
        "JoinToken": token,
    })
}

/// Waits until the founder sees all of them ready.
fn ready(founder: &Api, nodes: &[Node]) -> Result<(), LabError> {
    let started = Instant::now();
    loop {
        let list = founder.call("list its nodes", "GET", "/nodes", None)?;
        let missing = missing(&list, nodes);
        if missing.is_empty() {
            return Ok(());
        }
        if started.elapsed() > BOUND {
            return Err(LabError::NotReady {
                nodes: missing.join(", "),
                seconds: BOUND.as_secs(),
            });
        }
        std::thread::sleep(PAUSE);
    }
}

fn missing(list: &Value, nodes: &[Node]) -> Vec<String> {
    let ready: BTreeSet<&str> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter(|node| {
            let manager = &node["ManagerStatus"];
            node["Status"]["State"] == "ready"
                && (manager.is_null() || manager["Reachability"] == "reachable")
                // A promoted node is listed before it is a manager.
                && (node["Spec"]["Role"] != "manager" || !manager.is_null())
        })
        .filter_map(|node| node["Description"]["Hostname"].as_str())
        .collect();
    nodes
        .iter()
        .filter(|node| node.role != Role::Single && !ready.contains(node.name.as_str()))
        .map(|node| node.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::LabSpec;

    #[test]
    fn a_node_is_missing_until_it_is_ready_and_reachable() {
        let nodes = LabSpec::new("lab", PathBuf::new()).with(2, 1).nodes;
        let node = |name: &str, role: &str, state: &str, manager: Value| {
            json!({"Description": {"Hostname": name}, "Spec": {"Role": role},
                   "Status": {"State": state}, "ManagerStatus": manager})
        };
        let list = json!([
            node(
                "m1",
                "manager",
                "ready",
                json!({"Reachability": "reachable"})
            ),
            node(
                "m2",
                "manager",
                "ready",
                json!({"Reachability": "unreachable"})
            ),
            node("w1", "worker", "unknown", Value::Null),
        ]);
        assert_eq!(missing(&list, &nodes), ["m2", "w1"]);
        let list = json!([
            node(
                "m1",
                "manager",
                "ready",
                json!({"Reachability": "reachable"})
            ),
            node("m2", "manager", "ready", Value::Null),
            node("w1", "worker", "ready", Value::Null),
        ]);
        assert_eq!(missing(&list, &nodes), ["m2"]);
    }

    #[test]
    fn nodes_of_no_swarm_are_not_waited_for() {
        let nodes = LabSpec::new("lab", PathBuf::new())
            .with_node("a", Role::Single, crate::Runtime::Skep)
            .nodes;
        assert!(missing(&json!([]), &nodes).is_empty());
    }
}
