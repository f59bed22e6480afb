//! When an overlay may go.

use super::*;
use crate::EndpointRequest;
use crate::plan::make_endpoint;
use crate::sandbox::{EndpointRecord, SandboxRecord};

fn overlay(id: &str, ingress: bool) -> OverlayNetwork {
    OverlayNetwork {
        id: id.to_owned(),
        name: id.to_owned(),
        created: String::new(),
        subnet: "10.0.1.0/24".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 0, 1, 1),
        vni: 4097,
        port: 4789,
        mtu: 1450,
        internal: false,
        attachable: false,
        ingress,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

/// Two meshes, the later of which is the node's, and a network; the feed names none of them.
fn state() -> State {
    let mut state = State {
        told: true,
        ..State::default()
    };
    for (id, ingress) in [("lab", false), ("old", true), ("new", true)] {
        let network = ActiveNetwork::new(definition(&overlay(id, ingress)), Some(3));
        state.networks.insert(id.to_owned(), network);
    }
    state.swarm_node = Some(SwarmNode {
        id: "node".to_owned(),
        ingress: Some((overlay("new", true), Ipv4Addr::new(10, 0, 1, 9))),
    });
    state
}

fn unused(state: &State) -> Vec<&str> {
    let ids = state.networks.keys().map(String::as_str);
    ids.filter(|id| is_unused(state, id)).collect()
}

#[test]
fn only_the_nodes_present_mesh_outlives_the_feeds_word() {
    let mut state = state();
    assert_eq!(unused(&state), ["lab", "old"]);
    state.feed.insert("lab".to_owned(), Default::default());
    assert_eq!(unused(&state), ["old"]);
    state.feed.clear();
    state.swarm_node = None;
    assert_eq!(unused(&state), ["lab", "new", "old"]);
}

#[test]
fn nothing_goes_before_the_managers_have_spoken() {
    let mut state = state();
    state.told = false;
    state.swarm_node = None;
    assert!(unused(&state).is_empty());
}

#[test]
fn an_overlay_waits_for_the_container_it_was_made_for() {
    let mut state = state();
    state.awaited.insert("lab".to_owned());
    assert_eq!(unused(&state), ["old"]);
    state.awaited.clear();
    let request = EndpointRequest::default();
    let definition = &state.networks["lab"].definition;
    let endpoint = make_endpoint(
        "e1".to_owned(),
        definition,
        &request,
        String::new(),
        (None, None),
    );
    let mut sandbox = SandboxRecord::new("c1", None);
    sandbox.endpoints.push(EndpointRecord {
        endpoint,
        veth: String::new(),
        wanted_ports: Vec::new(),
        internal: false,
        overlay: true,
    });
    state.sandboxes.insert("c1".to_owned(), sandbox);
    assert_eq!(unused(&state), ["old"]);
}
