//! A container's network namespace and the interfaces in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skep_netlink::{Namespace, NetlinkError, NewRoute, RouteSocket, SourceRoute, sysctl};

use crate::{Endpoint, PortRequest, ResolverSettings};

/// Index of `lo` in every namespace.
const LOOPBACK: u32 = 1;

/// What one container has at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) container_id: String,
    /// `None` on the host's network.
    pub(crate) namespace: Option<PathBuf>,
    pub(crate) endpoints: Vec<EndpointRecord>,
    /// Another of its names.
    #[serde(default)]
    pub(crate) hostname: String,
    /// `None`: its resolv.conf names the upstream servers directly.
    #[serde(default)]
    pub(crate) resolver: Option<ResolverSettings>,
}

/// An endpoint with what only this crate needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    pub(crate) endpoint: Endpoint,
    /// The interface on the host's side; empty on `host` and `none`.
    pub(crate) veth: String,
    /// What was asked to be published, should this endpoint become the gateway.
    pub(crate) wanted_ports: Vec<PortRequest>,
    /// No default route leads into an internal network.
    pub(crate) internal: bool,
    /// The other end is in the overlay's namespace, not on the host.
    #[serde(default)]
    pub(crate) overlay: bool,
}

impl SandboxRecord {
    pub(crate) fn new(container_id: &str, namespace: Option<PathBuf>) -> Self {
        Self {
            container_id: container_id.to_owned(),
            namespace,
            endpoints: Vec::new(),
            hostname: String::new(),
            resolver: None,
        }
    }

    pub(crate) fn endpoint(&self, network_id: &str) -> Option<&EndpointRecord> {
        self.endpoints
            .iter()
            .find(|record| record.endpoint.network_id == network_id)
    }

    /// The endpoint that the default route goes through: highest priority, then first name.
    pub(crate) fn gateway(&self, ipv4: bool) -> Option<&EndpointRecord> {
        let has_route = |record: &&EndpointRecord| {
            let endpoint = &record.endpoint;
            let routed = if ipv4 {
                endpoint.gateway.is_some()
            } else {
                endpoint.gateway6.is_some()
            };
            !record.internal && routed
        };
        self.endpoints
            .iter()
            .filter(has_route)
            .min_by_key(|record| {
                let endpoint = &record.endpoint;
                (
                    -i128::from(endpoint.gateway_priority),
                    endpoint.network_name.clone(),
                )
            })
    }

    /// The lowest free interface name with this prefix.
    pub(crate) fn free_interface(&self, prefix: &str) -> String {
        let taken = |name: &str| {
            self.endpoints
                .iter()
                .any(|one| one.endpoint.interface == name)
        };
        // One name more than there are endpoints: one of them is free.
        (0..=self.endpoints.len())
            .map(|number| format!("{prefix}{number}"))
            .find(|name| !taken(name))
            .expect("there are more names than endpoints")
    }
}

/// Makes the namespace at `path` with `lo` up.
pub(crate) fn create(path: &Path) -> Result<Namespace, NetlinkError> {
    let (namespace, ()) = Namespace::create_at(path, || {
        RouteSocket::open()?.set_up(LOOPBACK, true)?;
        // As Docker: containers may use ping and low ports without a capability.
        sysctl::set("net/ipv4/ip_unprivileged_port_start", "0")?;
        sysctl::set("net/ipv4/ping_group_range", "0 2147483647")
    })?;
    Ok(namespace)
}

/// Gives the interface its addresses and brings it up.
pub(crate) fn configure(namespace: &Namespace, endpoint: &Endpoint) -> Result<(), NetlinkError> {
    let name = endpoint.interface.as_str();
    namespace.run(|| {
        // Before the interface is up, so that no link-local address appears and is announced.
        let switch = format!("net/ipv6/conf/{name}/disable_ipv6");
        if sysctl::exists(&switch) {
            sysctl::set(&switch, if endpoint.ipv6.is_some() { "0" } else { "1" })?;
        }
        for (setting, value) in crate::options::sysctls(&endpoint.driver_options, name) {
            sysctl::set(&setting, &value)?;
        }
        let mut route = RouteSocket::open()?;
        let link = find(&mut route, name)?;
        if let Some(address) = endpoint.ipv4 {
            route.add_address(link, IpAddr::V4(address), endpoint.ipv4_prefix)?;
        }
        if let Some(address) = endpoint.ipv6 {
            route.add_address(link, IpAddr::V6(address), endpoint.ipv6_prefix)?;
        }
        route.set_up(link, true)
    })?
}

/// The routing table of answers to the mesh.
const MESH_TABLE: u32 = 4177;

/// What comes from `source` leaves by `gateway`, whatever the default route.
pub(crate) fn answer_through(
    namespace: &Namespace,
    interface: &str,
    source: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Result<(), NetlinkError> {
    namespace.run(|| {
        // Clients' packets come in where their senders are not routed to.
        sysctl::set("net/ipv4/conf/all/rp_filter", "0")?;
        sysctl::set(&format!("net/ipv4/conf/{interface}/rp_filter"), "0")?;
        let mut route = RouteSocket::open()?;
        let link = find(&mut route, interface)?;
        route.add_source_route(&SourceRoute {
            source: source.into(),
            gateway: gateway.into(),
            link,
            table: MESH_TABLE,
        })
    })?
}

/// Makes the default routes go through the right endpoints.
pub(crate) fn route_by_default(
    namespace: &Namespace,
    ipv4: Option<&Endpoint>,
    ipv6: Option<&Endpoint>,
) -> Result<(), NetlinkError> {
    let wanted = [
        (
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ipv4.and_then(|e| Some((e, IpAddr::V4(e.gateway?)))),
        ),
        (
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ipv6.and_then(|e| Some((e, IpAddr::V6(e.gateway6?)))),
        ),
    ];
    namespace.run(|| {
        let mut route = RouteSocket::open()?;
        for (destination, via) in wanted {
            match via {
                Some((endpoint, gateway)) => {
                    let link = find(&mut route, &endpoint.interface)?;
                    let new = NewRoute {
                        destination: (destination, 0),
                        gateway: Some(gateway),
                        link,
                    };
                    route.replace_route(&new)?;
                }
                // An interface that went away has taken its routes along.
                None => remove_default_routes(&mut route, destination)?,
            }
        }
        Ok(())
    })?
}

fn remove_default_routes(route: &mut RouteSocket, destination: IpAddr) -> Result<(), NetlinkError> {
    for found in route.routes()? {
        if found.destination == (destination, 0)
            && let Some(link) = found.link
        {
            let old = NewRoute {
                destination: found.destination,
                gateway: found.gateway,
                link,
            };
            route.delete_route(&old)?;
        }
    }
    Ok(())
}

fn find(route: &mut RouteSocket, name: &str) -> Result<u32, NetlinkError> {
    let link = route.link(name)?;
    link.map(|link| link.index)
        .ok_or_else(|| NetlinkError::Refused {
            operation: format!("looking for interface {name}"),
            errno: nix::errno::Errno::ENODEV,
            detail: None,
        })
}
