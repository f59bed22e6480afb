//! The swarm's networks on this node.
//!
//! ```text
//!   container          overlay's namespace               host
//!   eth0 ─── veth ─── br0 ─── vxlan0 ═══ VXLAN packets ═══ underlay
//!   nft: virtual address -> a backend                     (the device's own namespace)
//!
//!   ingress: the namespace is a router as well: mesh0 ─── skep_mesh on the host
//! ```
//!
//! One namespace per network, made when the first container needs it. Who is where comes from the
//! managers' endpoint feed: forwarding entries, neighbours, virtual addresses and names follow it,
//! nothing is learned and nobody is asked.

mod device;
mod feed;
mod mesh;
mod mesh_rules;
mod services;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skep_netlink::{Namespace, RouteSocket};

use crate::attach::is_namespace;
use crate::definition::{Driver, NetworkDefinition, Subnet};
use crate::inner::Inner;
use crate::state::{ActiveNetwork, State};
use crate::{NetworkError, Prefix, cleaner, defaults};

pub(crate) use device::find_bridge;
pub(crate) use feed::Known;
pub(crate) use mesh::Mesh;
pub(crate) use services::{VirtualAddresses, addresses_of, name_of};

/// The network beside the swarm's own, through which containers reach the outside.
pub const GATEWAY_BRIDGE: &str = "docker_gwbridge";

/// A swarm's network as its tasks' attachments describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayNetwork {
    pub id: String,
    pub name: String,
    /// RFC 3339.
    pub created: String,
    pub subnet: Prefix,
    pub gateway: Ipv4Addr,
    pub vni: u32,
    /// The UDP port that VXLAN packets go to.
    pub port: u16,
    pub mtu: u32,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// What an overlay is beside any network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OverlayDefinition {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) ingress: bool,
}

/// This node as the swarm knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwarmNode {
    pub id: String,
    /// The mesh's network, and this node's own address on it.
    pub ingress: Option<(OverlayNetwork, Ipv4Addr)>,
}

impl Inner {
    /// Makes the network ready for a task's container, and keeps it until that is on it.
    pub(crate) fn ensure_overlay(&self, network: &OverlayNetwork) -> Result<(), NetworkError> {
        {
            let mut state = self.state.lock();
            if !state.feed.contains_key(&network.id) {
                state.awaited.insert(network.id.clone());
            }
        }
        self.make_overlay(network)
    }

    /// Makes the network's namespace and devices, unless they are there.
    fn make_overlay(&self, network: &OverlayNetwork) -> Result<(), NetworkError> {
        let _one_at_a_time = self.overlays.lock();
        let path = self.overlay_path(&network.id);
        let known = {
            let state = self.state.lock();
            let known = state.networks.get(&network.id);
            known.is_some_and(|known| known.bridge.is_some())
        };
        if known && is_namespace(&path) {
            return Ok(());
        }
        let mut definition = definition(network);
        let ingress = self.state.lock().swarm_node.clone();
        // One port for all of a swarm's networks, which the node's own object tells.
        if let Some(((mesh, _), overlay)) = ingress
            .and_then(|node| node.ingress)
            .zip(definition.overlay.as_mut())
        {
            overlay.port = mesh.port;
        }
        let bridge = device::create(&self.host, &path, &definition)?;
        self.neighbours.lock().remove(&network.id);
        self.state.lock().networks.insert(
            network.id.clone(),
            ActiveNetwork::new(definition, Some(bridge)),
        );
        self.save_definitions()?;
        if let Err(error) = self.sync_neighbours(&network.id) {
            // The next reset of the feed sets them again.
            tracing::warn!(network.id = %network.id, %error, "neighbours are not right");
        }
        Ok(())
    }

    /// Takes the network away if nobody here needs it.
    fn drop_overlay(&self, id: &str) -> Result<(), NetworkError> {
        let _one_at_a_time = self.overlays.lock();
        {
            let mut state = self.state.lock();
            // It may have come into use since it was found to be unused.
            if !is_unused(&state, id) {
                return Ok(());
            }
            state.networks.remove(id);
        }
        self.neighbours.lock().remove(id);
        let path = self.overlay_path(id);
        if is_namespace(&path) {
            // The kernel takes a namespace down in its own time, and until then nobody else can
            // have its devices' VXLAN number.
            let mut route = RouteSocket::open_in(&Namespace::open(&path)?)?;
            cleaner::delete(&mut route, device::VXLAN)?;
        }
        Namespace::delete_at(&path)?;
        self.save_definitions()
    }

    /// Overlays that nothing here needs.
    pub(crate) fn drop_unused_overlays(&self) {
        let unused: Vec<String> = {
            let state = self.state.lock();
            let ids = state.networks.keys().filter(|id| is_unused(&state, id));
            ids.cloned().collect()
        };
        for id in unused {
            if let Err(error) = self.drop_overlay(&id) {
                tracing::warn!(network.id = %id, %error, "could not take an overlay away");
            }
        }
    }

    pub(crate) fn overlay_path(&self, id: &str) -> PathBuf {
        self.store.overlay_path(id)
    }
}

/// Whether this is an overlay that the feed does not speak of, that no container is on or about to
/// be on, and that is not the mesh. Pure.
fn is_unused(state: &State, id: &str) -> bool {
    let is_overlay = state
        .networks
        .get(id)
        .is_some_and(|network| network.definition.driver == Driver::Overlay);
    let has_container = || {
        let mut sandboxes = state.sandboxes.values();
        sandboxes.any(|sandbox| sandbox.endpoint(id).is_some())
    };
    let is_mesh = state.mesh_network().is_some_and(|mesh| mesh.id == id);
    let needed = is_mesh || state.feed.contains_key(id) || state.awaited.contains(id);
    state.told && is_overlay && !needed && !has_container()
}

fn definition(network: &OverlayNetwork) -> NetworkDefinition {
    let plain = defaults::plain(&network.name, Driver::Overlay);
    NetworkDefinition {
        id: network.id.clone(),
        created: network.created.clone(),
        ipv4: Some(Subnet {
            subnet: network.subnet,
            range: None,
            gateway: network.gateway.into(),
            router: None,
            auxiliary: BTreeMap::new(),
        }),
        internal: network.internal,
        attachable: network.attachable,
        mtu: network.mtu,
        options: network.options.clone(),
        labels: network.labels.clone(),
        predefined: false,
        overlay: Some(OverlayDefinition {
            vni: network.vni,
            port: network.port,
            ingress: network.ingress,
        }),
        ..plain
    }
}

#[cfg(test)]
mod tests;
