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

/// What the device was told.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// All that may be in the kernel.
    told: Neighbours,
    /// All of it is in the kernel.
    applied: bool,
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
    pub(crate) fn set_endpoints(&self, update: feed::EndpointUpdate) -> Result<(), NetworkError> {
        let _in_order = self.feeding.lock();
        if update.reset {
            // Everything is set anew: whoever begins anew may do so because something failed.
            let mut known = self.neighbours.lock();
            known.values_mut().for_each(|known| known.applied = false);
        }
        let changed: BTreeSet<String> = {
            let mut state = self.state.lock();
            let mut changed: BTreeSet<String> = BTreeSet::new();
            if update.reset {
                changed.extend(state.feed.keys().cloned());
                state.feed.clear();
                state.told = true;
            }
            for network in update.networks {
                state.awaited.remove(&network.id);
                changed.insert(network.id.clone());
                state.feed.insert(network.id.clone(), network);
            }
            for id in update.gone {
                state.feed.remove(&id);
                changed.insert(id);
            }
            changed
        };
        let mut outcome = Ok(());
        for id in &changed {
            outcome = outcome.and(self.sync_neighbours(id));
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
            outcome = outcome.and(self.sync_services(&id));
        }
        outcome = outcome.and(self.sync_mesh());
        self.drop_unused_overlays();
        outcome
    }

    /// The node is in no swarm any more: nothing of its networks stays.
    pub(crate) fn leave_swarm(&self) -> Result<(), NetworkError> {
        let _in_order = self.feeding.lock();
        {
            let mut state = self.state.lock();
            state.feed.clear();
            state.awaited.clear();
            state.swarm_node = None;
            // Nothing is wanted: what is left now goes with its last container.
            state.told = true;
        }
        let taken_down = self.take_mesh_down();
        self.drop_unused_overlays();
        taken_down
    }

    /// Makes the VXLAN device know what the feed says.
    pub(crate) fn sync_neighbours(&self, network_id: &str) -> Result<(), NetworkError> {
        let path = self.overlay_path(network_id);
        if !is_namespace(&path) {
            return Ok(());
        }
        let mut known = self.neighbours.lock();
        let wanted = {
            let state = self.state.lock();
            // Who is elsewhere shows only when it is known who this is.
            let Some(node) = &state.swarm_node else {
                return Ok(());
            };
            let network = state.feed.get(network_id);
            network
                .map(|network| wanted(network, &node.id))
                .unwrap_or_default()
        };
        let known = known.entry(network_id.to_owned()).or_default();
        known.follow(wanted, |before, told, wanted| {
            apply(&path, before, told, wanted)
        })
    }
}

impl Known {
    /// `apply` is given what to replace, what need not be set again, and what is to be.
    fn follow<E>(
        &mut self,
        wanted: Neighbours,
        apply: impl FnOnce(&Neighbours, &Neighbours, &Neighbours) -> Result<(), E>,
    ) -> Result<(), E> {
        let none = Neighbours::default();
        let in_place = if self.applied { &self.told } else { &none };
        if self.told == wanted && *in_place == wanted {
            self.applied = true;
            return Ok(());
        }
        let outcome = apply(&self.told, in_place, &wanted);
        self.applied = outcome.is_ok();
        if outcome.is_ok() {
            self.told = wanted;
        } else {
            // Some of both may be there: it is set again, and removed when it is not wanted.
            self.told.forwarding.extend(wanted.forwarding);
            self.told.neighbours.extend(wanted.neighbours);
        }
        outcome
    }
}

fn apply(
    path: &std::path::Path,
    before: &Neighbours,
    in_place: &Neighbours,
    wanted: &Neighbours,
) -> Result<(), NetworkError> {
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
        .difference(&in_place.forwarding)
        .copied()
        .collect();
    let come: Vec<_> = wanted
        .neighbours
        .difference(&in_place.neighbours)
        .copied()
        .collect();
    Ok(route.set_neighbours(link, &new, &come)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(host: [u8; 4]) -> Neighbours {
        let mac = [2, 0x42, 10, 0, 1, 5];
        let host = host.into();
        Neighbours {
            forwarding: [Forwarding { mac, host }].into(),
            ..Neighbours::default()
        }
    }

    #[test]
    fn what_failed_is_set_again_and_what_may_be_half_there_is_removed() {
        let (one, two) = (behind([192, 0, 2, 1]), behind([192, 0, 2, 2]));
        let mut known = Known::default();
        let failed = known.follow(one.clone(), |_, _, _| Err("refused"));
        assert_eq!(failed, Err("refused"));
        let again = known.follow(one.clone(), |before, in_place, wanted| {
            assert_eq!(
                (before, in_place, wanted),
                (&one, &Neighbours::default(), &one)
            );
            Err("refused")
        });
        assert_eq!(again, Err("refused"));
        let other = known.follow(two.clone(), |before, _, _| {
            assert!(before.forwarding.is_superset(&one.forwarding));
            Ok::<_, &str>(())
        });
        assert_eq!(other, Ok(()));
        let settled = known.follow(two, |_, _, _| Err("nothing is to do"));
        assert_eq!(settled, Ok(()));
    }
}
