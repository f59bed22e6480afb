//! The routing mesh on this node: published ports lead into the ingress network's namespace, which
//! leads them on to the tasks. The client's address stays what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_netlink::nft::NftSocket;
use skep_netlink::{Namespace, NetlinkError, NewRoute, RouteSocket, VethPair, sysctl};

use super::device::{BRIDGE, index};
use super::mesh_rules::{self, MeshPort};
use super::services::backends;
use super::{GATEWAY_BRIDGE, SwarmNode};
use crate::attach::is_namespace;
use crate::firewall::PortRule;
use crate::inner::Inner;
use crate::publish::Publication;
use crate::state::State;
use crate::{NetworkError, PortRequest, Protocol, bridge};

/// The pair of interfaces between the host and the ingress network's namespace.
pub(super) const HOST_SIDE: &str = "skep_mesh";
const MESH_SIDE: &str = "mesh0";
const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
pub(super) const MESH_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 2);
const PAIR_LENGTH: u8 = 30;

/// What is in place of the mesh.
#[derive(Debug, Default)]
pub(crate) struct Mesh {
    /// The ports that answer, with the sockets that hold them.
    held: BTreeMap<(Protocol, u16), Vec<Publication>>,
    /// Ports that could not be had, so that each is told once.
    refused: BTreeSet<(Protocol, u16)>,
    rules: Option<BTreeMap<(Protocol, u16), MeshPort>>,
    ready: bool,
}

impl Inner {
    /// This node's part in the swarm changed.
    pub(crate) fn set_swarm_node(&self, node: SwarmNode) -> Result<(), NetworkError> {
        let _in_order = self.feeding.lock();
        if self.state.lock().swarm_node.as_ref() == Some(&node) && self.mesh.lock().ready {
            return Ok(());
        }
        self.ensure_gateway_bridge()?;
        self.state.lock().swarm_node = Some(node.clone());
        if let Some((network, address)) = &node.ingress {
            self.ensure_overlay(network)?;
            self.connect_mesh(&network.id, *address, network.subnet.length())?;
            self.mesh.lock().ready = true;
        }
        self.sync_mesh();
        Ok(())
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

    /// Makes ports and rules follow the feed.
    pub(crate) fn sync_mesh(&self) {
        let (wanted, path) = {
            let state = self.state.lock();
            let ingress = state
                .swarm_node
                .as_ref()
                .and_then(|node| node.ingress.as_ref());
            let Some((network, _)) = ingress else {
                return;
            };
            // Before the managers have spoken, what an earlier daemon made goes on.
            if !state.feed.contains_key(&network.id) {
                return;
            }
            (wanted_ports(&state), self.overlay_path(&network.id))
        };
        let mut mesh = self.mesh.lock();
        if !mesh.ready || !is_namespace(&path) {
            return;
        }
        self.hold_mesh_ports(&mut mesh, &wanted);
        if mesh.rules.as_ref() == Some(&wanted) {
            return;
        }
        let before: BTreeSet<_> = mesh.rules.iter().flatten().map(|(port, _)| *port).collect();
        let same_ports = mesh.rules.is_some() && before.iter().eq(wanted.keys());
        let inside = Namespace::open(&path)
            .and_then(|namespace| {
                namespace.run(|| NftSocket::open()?.apply(mesh_rules::inside(&wanted)))
            })
            .and_then(|applied| applied);
        let outside = if same_ports {
            Ok(())
        } else {
            let ports: Vec<_> = wanted.keys().copied().collect();
            let table = format!("{}-mesh", self.table);
            self.host.apply(vec![mesh_rules::host(&table, &ports)])
        };
        match inside.and(outside) {
            Ok(()) => mesh.rules = Some(wanted),
            Err(error) => tracing::error!(%error, "the routing mesh's rules are not right"),
        }
    }

    /// A listening socket for each published port: people look for it with netstat, and nobody
    /// else takes it.
    fn hold_mesh_ports(&self, mesh: &mut Mesh, wanted: &BTreeMap<(Protocol, u16), MeshPort>) {
        let gone: Vec<_> = mesh
            .held
            .keys()
            .filter(|port| !wanted.contains_key(port))
            .copied()
            .collect();
        for port in gone {
            for mut publication in mesh.held.remove(&port).unwrap_or_default() {
                publication.stop(&self.runtime);
                self.state.lock().ports.release(&publication.rule.published);
            }
        }
        mesh.refused.retain(|port| wanted.contains_key(port));
        for &(protocol, port) in wanted.keys() {
            if mesh.held.contains_key(&(protocol, port)) {
                continue;
            }
            match self.hold_mesh_port(protocol, port) {
                Ok(publications) => {
                    mesh.held.insert((protocol, port), publications);
                    mesh.refused.remove(&(protocol, port));
                }
                Err(error) => {
                    if mesh.refused.insert((protocol, port)) {
                        tracing::error!(port, %protocol, %error, "a published port is not this node's to give");
                    }
                }
            }
        }
    }

    fn hold_mesh_port(
        &self,
        protocol: Protocol,
        port: u16,
    ) -> Result<Vec<Publication>, NetworkError> {
        let request = PortRequest {
            container_port: port,
            protocol,
            host_ip: None,
            host_ports: (port, port),
        };
        let any = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let held = self
            .state
            .lock()
            .ports
            .reserve(&self.host, &request, &any)?;
        let mut publications = Vec::new();
        for held in held {
            // IPv6 cannot be translated to IPv4: there the daemon copies.
            let with_proxy = held.port.host_ip.is_ipv6();
            let mut publication = Publication::recorded(PortRule {
                published: held.port.clone(),
                target: MESH_ADDRESS.into(),
            });
            publication.serve(held, with_proxy, &self.host, &self.runtime)?;
            publications.push(publication);
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

/// Which ports answer, and who answers them.
fn wanted_ports(state: &State) -> BTreeMap<(Protocol, u16), MeshPort> {
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
