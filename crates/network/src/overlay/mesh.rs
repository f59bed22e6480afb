//! The routing mesh on this node: published ports lead into the ingress network's namespace, which
//! leads them on to the tasks. The client's address stays what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use skep_netlink::nft::{Batch, Family, NftSocket};
use skep_netlink::{Namespace, NetlinkError, NewRoute, RouteSocket, VethPair, sysctl};

use super::device::{BRIDGE, index};
use super::mesh_rules::{self, MeshPort};
use super::services::backends;
use super::{GATEWAY_BRIDGE, OverlayNetwork, SwarmNode};
use crate::attach::is_namespace;
use crate::firewall::PortRule;
use crate::inner::Inner;
use crate::ports::HeldPort;
use crate::publish::Publication;
use crate::state::State;
use crate::{NetworkError, PortRequest, Protocol, bridge, cleaner};

/// The pair of interfaces between the host and the ingress network's namespace.
pub(super) const HOST_SIDE: &str = "skep_mesh";
const MESH_SIDE: &str = "mesh0";
const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
pub(super) const MESH_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 2);
const PAIR_LENGTH: u8 = 30;

/// A published port.
type MeshKey = (Protocol, u16);

/// What is in place of the mesh.
#[derive(Debug, Default)]
pub(crate) struct Mesh {
    /// The ports that answer, with the sockets that hold them.
    held: BTreeMap<MeshKey, Vec<Publication>>,
    /// Ports that could not be had, so that each is told once.
    refused: BTreeSet<MeshKey>,
    /// What the rules in the namespace say; `None`: not known.
    inside: Option<BTreeMap<MeshKey, MeshPort>>,
    /// The ports that the host's rules lead there; `None`: not known.
    outside: Option<BTreeSet<MeshKey>>,
    ready: bool,
}

impl Inner {
    /// This node's part in the swarm changed.
    pub(crate) fn set_swarm_node(&self, node: SwarmNode) -> Result<(), NetworkError> {
        let _in_order = self.feeding.lock();
        let is_ready = self.mesh.lock().ready;
        if is_ready && self.state.lock().swarm_node.as_ref() == Some(&node) {
            return Ok(());
        }
        self.ensure_gateway_bridge()?;
        let told: Vec<String> = {
            let mut state = self.state.lock();
            state.swarm_node = Some(node.clone());
            state.feed.keys().cloned().collect()
        };
        // The feed may have come before it was known who this is.
        for id in told {
            self.sync_neighbours(&id)?;
        }
        if let Some((network, address)) = &node.ingress {
            self.make_overlay(network)?;
            self.connect_mesh(&network.id, *address, network.subnet.length())?;
            let mut mesh = self.mesh.lock();
            // It may be another namespace than before.
            mesh.inside = None;
            mesh.ready = true;
        } else {
            self.take_mesh_down()?;
        }
        self.drop_unused_overlays();
        self.sync_mesh()
    }

    fn ensure_gateway_bridge(&self) -> Result<(), NetworkError> {
        if self.state.lock().resolve(GATEWAY_BRIDGE).is_ok() {
            return Ok(());
        }
        let options = [
            ("com.docker.network.bridge.name", GATEWAY_BRIDGE),
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
        ];
        let request = bollard_stubs::models::NetworkCreateRequest {
            name: GATEWAY_BRIDGE.to_owned(),
            options: Some(
                options
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            ),
            ..Default::default()
        };
        self.create(request).map(drop)
    }

    /// The pair between host and namespace, addresses, routes and settings.
    fn connect_mesh(
        &self,
        network_id: &str,
        address: Ipv4Addr,
        length: u8,
    ) -> Result<(), NetworkError> {
        let namespace = Namespace::open(&self.overlay_path(network_id))?;
        bridge::enable_forwarding(&self.host, false)?;
        self.host.with_route(|route| -> Result<(), NetworkError> {
            let intact = route.link(HOST_SIDE)?.is_some()
                && RouteSocket::open_in(&namespace)?.link(MESH_SIDE)?.is_some();
            if !intact {
                if route.link(HOST_SIDE)?.is_some() {
                    route.delete_link(HOST_SIDE)?;
                }
                route.create_veth(&VethPair {
                    name: HOST_SIDE,
                    mtu: 1500,
                    master: None,
                    peer_name: MESH_SIDE,
                    peer_namespace: &namespace,
                    peer_mac: None,
                })?;
            }
            let link = index(route, HOST_SIDE)?;
            add_address(route, link, HOST_ADDRESS, PAIR_LENGTH)?;
            Ok(route.set_up(link, true)?)
        })?;
        self.host.call(|| {
            // 127.0.0.1:<published port> leads into the mesh; the rules guard what that opens.
            sysctl::set(&format!("net/ipv4/conf/{HOST_SIDE}/route_localnet"), "1")?;
            sysctl::set(&format!("net/ipv4/conf/{HOST_SIDE}/rp_filter"), "0")
        })??;
        namespace.run(|| route_within(address, length))??;
        Ok(())
    }

    /// Makes ports and rules follow the feed: a port is had, then led into the mesh, then listened on.
    pub(crate) fn sync_mesh(&self) -> Result<(), NetworkError> {
        let mut mesh = self.mesh.lock();
        let (wanted, path) = {
            let state = self.state.lock();
            // Before the managers have spoken, what an earlier daemon made goes on.
            let told = |network: &&OverlayNetwork| state.feed.contains_key(&network.id);
            let Some(network) = state.mesh_network().filter(told) else {
                return Ok(());
            };
            (wanted_ports(&state), self.overlay_path(&network.id))
        };
        if !mesh.ready || !is_namespace(&path) {
            return Ok(());
        }
        self.free_mesh_ports(&mut mesh, |port| !wanted.contains_key(port));
        let reserved = self.reserve_mesh_ports(&mut mesh, &wanted);
        if let Err(error) = self.apply_mesh_rules(&mut mesh, &path, wanted, &reserved) {
            for held in reserved.into_values().flatten() {
                self.state.lock().ports.release(&held.port);
            }
            return Err(error);
        }
        self.serve_mesh_ports(&mut mesh, reserved)
    }

    fn apply_mesh_rules(
        &self,
        mesh: &mut Mesh,
        path: &Path,
        wanted: BTreeMap<MeshKey, MeshPort>,
        reserved: &BTreeMap<MeshKey, Vec<HeldPort>>,
    ) -> Result<(), NetworkError> {
        if mesh.inside.as_ref() != Some(&wanted) {
            let batch = || NftSocket::open()?.apply(mesh_rules::inside(&wanted));
            Namespace::open(path)?.run(batch)??;
            mesh.inside = Some(wanted);
        }
        let had = mesh.held.keys().chain(reserved.keys());
        self.lead_into_mesh(&mut mesh.outside, had.copied().collect())
    }

    /// The host's rules, for the ports that are this node's to give and no others.
    fn lead_into_mesh(
        &self,
        outside: &mut Option<BTreeSet<MeshKey>>,
        wanted: BTreeSet<MeshKey>,
    ) -> Result<(), NetworkError> {
        if outside.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let ports: Vec<_> = wanted.iter().copied().collect();
        self.host
            .apply(vec![mesh_rules::host(&self.mesh_table(), &ports)])?;
        *outside = Some(wanted);
        Ok(())
    }

    fn mesh_table(&self) -> String {
        format!("{}-mesh", self.table)
    }

    /// Nothing of the mesh stays on the host.
    pub(super) fn take_mesh_down(&self) -> Result<(), NetworkError> {
        let mut mesh = self.mesh.lock();
        self.free_mesh_ports(&mut mesh, |_| true);
        *mesh = Mesh::default();
        let mut batch = Batch::new(Family::Ipv4, &self.mesh_table());
        batch.add_table().delete_table();
        let rules = self.host.apply(vec![batch]);
        let pair = self
            .host
            .with_route(|route| cleaner::delete(route, HOST_SIDE));
        Ok(rules.and(pair)?)
    }

    fn free_mesh_ports(&self, mesh: &mut Mesh, is_gone: impl Fn(&MeshKey) -> bool) {
        let gone: Vec<_> = mesh
            .held
            .keys()
            .filter(|key| is_gone(key))
            .copied()
            .collect();
        for port in gone {
            for mut publication in mesh.held.remove(&port).unwrap_or_default() {
                publication.stop(&self.runtime);
                self.state.lock().ports.release(&publication.rule.published);
            }
        }
        mesh.refused.retain(|port| !is_gone(port));
    }

    /// A socket for each published port: people look for it with netstat, and nobody else takes it.
    fn reserve_mesh_ports(
        &self,
        mesh: &mut Mesh,
        wanted: &BTreeMap<MeshKey, MeshPort>,
    ) -> BTreeMap<MeshKey, Vec<HeldPort>> {
        let any = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let mut reserved = BTreeMap::new();
        for &(protocol, port) in wanted.keys() {
            if mesh.held.contains_key(&(protocol, port)) {
                continue;
            }
            let request = PortRequest {
                container_port: port,
                protocol,
                host_ip: None,
                host_ports: (port, port),
            };
            let had = self.state.lock().ports.reserve(&self.host, &request, &any);
            match had {
                Ok(held) => {
                    reserved.insert((protocol, port), held);
                    mesh.refused.remove(&(protocol, port));
                }
                Err(error) => refuse(mesh, (protocol, port), &error),
            }
        }
        reserved
    }

    /// Listens on what is led into the mesh by now.
    fn serve_mesh_ports(
        &self,
        mesh: &mut Mesh,
        reserved: BTreeMap<MeshKey, Vec<HeldPort>>,
    ) -> Result<(), NetworkError> {
        for (port, held) in reserved {
            let published: Vec<_> = held.iter().map(|held| held.port.clone()).collect();
            match self.serve_mesh_port(held) {
                Ok(publications) => {
                    mesh.held.insert(port, publications);
                }
                Err(error) => {
                    let mut state = self.state.lock();
                    for port in &published {
                        state.ports.release(port);
                    }
                    drop(state);
                    refuse(mesh, port, &error);
                }
            }
        }
        let served = mesh.held.keys().copied().collect();
        self.lead_into_mesh(&mut mesh.outside, served)
    }

    fn serve_mesh_port(&self, held: Vec<HeldPort>) -> Result<Vec<Publication>, NetworkError> {
        let mut publications: Vec<Publication> = Vec::new();
        for held in held {
            // IPv6 cannot be translated to IPv4: there the daemon copies.
            let with_proxy = held.port.host_ip.is_ipv6();
            let mut publication = Publication::recorded(PortRule {
                published: held.port.clone(),
                target: MESH_ADDRESS.into(),
            });
            let served = publication.serve(held, with_proxy, &self.host, &self.runtime);
            publications.push(publication);
            if let Err(error) = served {
                for mut publication in publications {
                    publication.stop(&self.runtime);
                }
                return Err(error);
            }
        }
        Ok(publications)
    }

    /// Lets go of the mesh's sockets; its rules go on.
    pub(crate) fn close_mesh(&self) {
        let held = std::mem::take(&mut self.mesh.lock().held);
        for mut publication in held.into_values().flatten() {
            publication.stop(&self.runtime);
        }
    }
}

/// Told once, until it is had or not wanted any more.
fn refuse(mesh: &mut Mesh, (protocol, port): MeshKey, error: &NetworkError) {
    if mesh.refused.insert((protocol, port)) {
        tracing::error!(port, %protocol, %error, "a published port is not this node's to give");
    }
}

/// Which ports answer, and who answers them.
fn wanted_ports(state: &State) -> BTreeMap<MeshKey, MeshPort> {
    let mut ports = BTreeMap::new();
    for network in state.feed.values().filter(|network| network.ingress) {
        for service in &network.services {
            let addresses = backends(network, &service.id);
            let on_mesh = |port: &&skep_proto::PortConfig| {
                port.publish_mode() == skep_proto::port_config::PublishMode::Ingress
            };
            for port in service.ports.iter().filter(on_mesh) {
                let (Ok(published), Ok(target)) = (
                    u16::try_from(port.published_port),
                    u16::try_from(port.target_port),
                ) else {
                    continue;
                };
                let protocol = match port.protocol() {
                    skep_proto::port_config::Protocol::Tcp => Protocol::Tcp,
                    skep_proto::port_config::Protocol::Udp => Protocol::Udp,
                    skep_proto::port_config::Protocol::Sctp => Protocol::Sctp,
                };
                let tasks = addresses.clone();
                ports.insert((protocol, published), MeshPort { target, tasks });
            }
        }
    }
    ports
}

/// Runs in the ingress network's namespace.
fn route_within(address: Ipv4Addr, length: u8) -> Result<(), NetworkError> {
    sysctl::set("net/ipv4/ip_forward", "1")?;
    for name in [BRIDGE, MESH_SIDE] {
        sysctl::set(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
        sysctl::set(&format!("net/ipv4/conf/{name}/send_redirects"), "0")?;
    }
    let mut route = RouteSocket::open()?;
    let bridge = index(&mut route, BRIDGE)?;
    // The node's address may have changed, with the network's subnet.
    for found in route.addresses()? {
        let other = found.link == bridge && found.address != IpAddr::V4(address);
        if other && found.address.is_ipv4() {
            route.delete_address(bridge, found.address, found.prefix)?;
        }
    }
    add_address(&mut route, bridge, address, length)?;
    // As every endpoint's: other nodes know it without being told.
    route.set_mac(bridge, crate::MacAddress::for_ipv4(address).0)?;
    let mesh = index(&mut route, MESH_SIDE)?;
    add_address(&mut route, mesh, MESH_ADDRESS, PAIR_LENGTH)?;
    route.set_up(mesh, true)?;
    route.replace_route(&NewRoute {
        destination: (Ipv4Addr::UNSPECIFIED.into(), 0),
        gateway: Some(HOST_ADDRESS.into()),
        link: mesh,
    })?;
    Ok(())
}

fn add_address(
    route: &mut RouteSocket,
    link: u32,
    address: Ipv4Addr,
    length: u8,
) -> Result<(), NetlinkError> {
    match route.add_address(link, address.into(), length) {
        Err(error) if !error.is_present() => Err(error),
        _ => Ok(()),
    }
}
