//! Following the endpoint feed: what it says becomes forwarding entries, neighbours, virtual
//! addresses, names and the mesh.

use std::collections::BTreeSet;
use std::net::IpAddr;

use skep_netlink::{Forwarding, Namespace, Neighbour, RouteSocket};
use skep_proto::feed;

use super::device::{VXLAN, index};
use crate::attach::is_namespace;
use crate::inner::Inner;
use crate::{MacAddress, NetworkError};

/// What a VXLAN device has to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Neighbours {
    forwarding: BTreeSet<Forwarding>,
    neighbours: BTreeSet<Neighbour>,
}

/// Everybody on the network who is not on this node. Pure.
fn wanted(network: &feed::NetworkState, node_id: &str) -> Neighbours {
    let mut wanted = Neighbours::default();
    let remote = |id: &str| {
        let peer = network.peers.iter().find(|peer| peer.node_id == id)?;
        (id != node_id).then(|| peer.address.parse::<IpAddr>().ok())?
    };
    let mut add = |address: &str, host: IpAddr| {
        if let Ok(IpAddr::V4(v4)) = address.parse::<IpAddr>() {
            // Hardware addresses follow from addresses, so the feed need not tell them.
            let mac = MacAddress::for_ipv4(v4).0;
            wanted.forwarding.insert(Forwarding { mac, host });
            wanted.neighbours.insert(Neighbour {
                address: v4.into(),
                mac,
            });
        }
    };
    for endpoint in &network.endpoints {
        if let Some(host) = remote(&endpoint.node_id) {
            endpoint
                .addresses
                .iter()
                .for_each(|address| add(address, host));
        }
    }
    for peer in &network.peers {
        if let Some(host) = remote(&peer.node_id) {
            add(&peer.network_address, host);
        }
    }
    wanted
}

impl Inner {
    /// Takes over an update; returns when the kernel has it.
    pub(crate) fn set_endpoints(&self, update: feed::EndpointUpdate) {
        let _in_order = self.feeding.lock();
        let changed: BTreeSet<String> = {
            let mut state = self.state.lock();
            let mut changed: BTreeSet<String> = BTreeSet::new();
            if update.reset {
                changed.extend(state.feed.keys().cloned());
                state.feed.clear();
            }
            for network in update.networks {
                changed.insert(network.id.clone());
                state.feed.insert(network.id.clone(), network);
            }
            for id in update.gone {
                state.feed.remove(&id);
                changed.insert(id);
            }
            changed
        };
        for id in &changed {
            self.sync_neighbours(id);
        }
        let containers: Vec<String> = {
            let state = self.state.lock();
            let concerned = state
                .sandboxes
                .values()
                .filter(|sandbox| changed.iter().any(|id| sandbox.endpoint(id).is_some()));
            concerned
                .map(|sandbox| sandbox.container_id.clone())
                .collect()
        };
        for id in containers {
            self.sync_services(&id);
        }
        self.sync_mesh();
        self.drop_unused_overlays();
    }

    /// Makes the VXLAN device know what the feed says.
    pub(crate) fn sync_neighbours(&self, network_id: &str) {
        let path = self.overlay_path(network_id);
        if !is_namespace(&path) {
            return;
        }
        let wanted = {
            let state = self.state.lock();
            let node_id = state.swarm_node.as_ref().map_or("", |node| &node.id);
            let network = state.feed.get(network_id);
            network
                .map(|network| wanted(network, node_id))
                .unwrap_or_default()
        };
        let mut known = self.neighbours.lock();
        let before = known.entry(network_id.to_owned()).or_default();
        if let Err(error) = apply(&path, before, &wanted) {
            tracing::warn!(network.id = network_id, %error, "neighbours are not right");
        }
        *before = wanted;
    }
}

fn apply(
    path: &std::path::Path,
    before: &Neighbours,
    wanted: &Neighbours,
) -> Result<(), NetworkError> {
    if before == wanted {
        return Ok(());
    }
    let mut route = RouteSocket::open_in(&Namespace::open(path)?)?;
    let link = index(&mut route, VXLAN)?;
    // One whose address moved to another node is replaced, not removed.
    let moved = |one: &Forwarding| wanted.forwarding.iter().any(|other| other.mac == one.mac);
    let old: Vec<_> = before
        .forwarding
        .difference(&wanted.forwarding)
        .copied()
        .collect();
    let old: Vec<_> = old.into_iter().filter(|one| !moved(one)).collect();
    let gone: Vec<_> = before
        .neighbours
        .difference(&wanted.neighbours)
        .copied()
        .collect();
    route.delete_neighbours(link, &old, &gone)?;
    let new: Vec<_> = wanted
        .forwarding
        .difference(&before.forwarding)
        .copied()
        .collect();
    let come: Vec<_> = wanted
        .neighbours
        .difference(&before.neighbours)
        .copied()
        .collect();
    Ok(route.set_neighbours(link, &new, &come)?)
}
