//! Namespaces and cables.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use skep_netlink::{Namespace, NetlinkError, NewRoute, RouteSocket, VethPair};

use crate::{LabError, LabFiles, LabSpec, Node};

const BRIDGE: &str = "br0";
const PREFIX: u8 = 24;
const MTU: u32 = 1500;
/// The node's end of its cable.
const NIC: &str = "eth0";

/// The lab's network, seen from the namespace where all cables end.
#[derive(Debug)]
pub struct Fabric {
    namespace: Namespace,
    routes: RouteSocket,
}

/// How a node's cable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cable {
    /// In the bridge of all.
    Plugged,
    /// In no bridge, or in one with fewer nodes.
    Cut,
    /// Dead at the other end: the machine is off.
    Off,
    Gone,
}

impl Fabric {
    /// The namespace that plays everything beside the nodes.
    pub const OUTSIDE: &str = "outside";
    /// An address of it that nodes reach only through their default route.
    pub const OUTSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    /// Makes the bridge in a namespace of its own.
    pub fn create(files: &LabFiles) -> Result<Self, LabError> {
        let (namespace, routes) = Namespace::create_at(
            &files.namespace(Self::OUTSIDE),
            || -> Result<_, NetlinkError> {
                let mut routes = RouteSocket::open()?;
                let lo = bring_up(&mut routes, "lo")?;
                routes.add_address(lo, IpAddr::V4(Self::OUTSIDE_ADDRESS), 32)?;
                routes.create_bridge(BRIDGE, MTU, None)?;
                let bridge = bring_up(&mut routes, BRIDGE)?;
                routes.add_address(bridge, IpAddr::V4(LabSpec::gateway()), PREFIX)?;
                Ok(routes)
            },
        )?;
        Ok(Self { namespace, routes })
    }

    /// Finds it again.
    pub fn open(files: &LabFiles) -> Result<Self, LabError> {
        Self::open_at(&files.namespace(Self::OUTSIDE))
    }

    fn open_at(path: &Path) -> Result<Self, LabError> {
        let namespace = Namespace::open(path)?;
        let routes = RouteSocket::open_in(&namespace)?;
        Ok(Self { namespace, routes })
    }

    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Makes a node's namespace and plugs its cable in.
    pub fn add_node(&mut self, files: &LabFiles, node: &Node) -> Result<(), LabError> {
        let (namespace, mut inner) =
            Namespace::create_at(&files.namespace(&node.name), RouteSocket::open)?;
        let bridge = self.index(BRIDGE)?;
        self.routes.create_veth(&VethPair {
            name: &node.name,
            mtu: MTU,
            master: Some(bridge),
            peer_name: NIC,
            peer_namespace: &namespace,
            peer_mac: None,
        })?;
        bring_up(&mut inner, "lo")?;
        let nic = index(&mut inner, NIC)?;
        inner.add_address(nic, IpAddr::V4(node.address), PREFIX)?;
        inner.set_up(nic, true)?;
        inner.replace_route(&NewRoute {
            destination: (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            gateway: Some(IpAddr::V4(LabSpec::gateway())),
            link: nic,
        })?;
        Ok(())
    }

    /// Puts these nodes' cables into a bridge of their own: they reach each other and nobody else.
    pub(crate) fn cut(&mut self, nodes: &[&str]) -> Result<(), LabError> {
        let links = self.routes.links()?;
        let taken = |name: &str| links.iter().any(|link| link.name == name);
        let name = (1..u16::MAX)
            .map(|number| format!("br{number}"))
            .find(|name| !taken(name))
            .expect("a lab has fewer bridges than nodes, and fewer nodes than numbers");
        self.routes.create_bridge(&name, MTU, None)?;
        let bridge = bring_up(&mut self.routes, &name)?;
        for node in nodes {
            let port = self.port(node)?;
            self.routes.set_master(port, Some(bridge))?;
        }
        self.remove_empty_bridges()
    }

    /// Puts a node's cable back into the bridge of all.
    pub(crate) fn heal(&mut self, node: &str) -> Result<(), LabError> {
        let bridge = self.index(BRIDGE)?;
        let port = self.port(node)?;
        self.routes.set_master(port, Some(bridge))?;
        self.remove_empty_bridges()
    }

    /// Powers a node's socket in the bridge: its own end sees the carrier come and go.
    pub(crate) fn power(&mut self, node: &str, on: bool) -> Result<(), LabError> {
        let port = self.index(node)?;
        Ok(self.routes.set_up(port, on)?)
    }

    pub(crate) fn cable(&mut self, node: &str) -> Result<Cable, LabError> {
        let bridge = self.index(BRIDGE)?;
        let Some(near) = self.routes.link(node)? else {
            return Ok(Cable::Gone);
        };
        let port = self.routes.link(&far_name(node))?.unwrap_or(near.clone());
        Ok(match port.master {
            _ if !near.up => Cable::Off,
            Some(master) if master == bridge => Cable::Plugged,
            _ => Cable::Cut,
        })
    }

    /// Makes room for a wire between a node's cable and the bridge. Returns the names of the two
    /// interfaces between which the wire has to carry frames.
    pub(crate) fn open_cable(&mut self, node: &str) -> Result<(String, String), LabError> {
        let (far, inner) = (far_name(node), inner_name(node));
        let near = self.routes.link(node)?.ok_or_else(|| missing(node))?;
        if self.routes.link(&far)?.is_none() {
            self.routes.create_veth(&VethPair {
                name: &far,
                mtu: MTU,
                master: near.master,
                peer_name: &inner,
                peer_namespace: &self.namespace,
                peer_mac: None,
            })?;
            self.routes.set_master(near.index, None)?;
            bring_up(&mut self.routes, &inner)?;
        }
        Ok((node.to_owned(), inner))
    }

    /// Undoes [`Fabric::open_cable`], in whatever bridge the node is.
    pub(crate) fn close_cable(&mut self, node: &str) -> Result<(), LabError> {
        let Some(far) = self.routes.link(&far_name(node))? else {
            return Ok(());
        };
        self.routes.delete_link(&far.name)?;
        let near = self.index(node)?;
        Ok(self.routes.set_master(near, far.master)?)
    }

    /// The interface that is in a bridge for this node.
    fn port(&mut self, node: &str) -> Result<u32, LabError> {
        match self.routes.link(&far_name(node))? {
            Some(far) => Ok(far.index),
            None => self.index(node),
        }
    }

    fn index(&mut self, name: &str) -> Result<u32, LabError> {
        Ok(index(&mut self.routes, name)?)
    }

    fn remove_empty_bridges(&mut self) -> Result<(), LabError> {
        let links = self.routes.links()?;
        for bridge in &links {
            let used = links.iter().any(|link| link.master == Some(bridge.index));
            if bridge.kind == "bridge" && bridge.name != BRIDGE && !used {
                self.routes.delete_link(&bridge.name)?;
            }
        }
        Ok(())
    }
}

/// The wire's end in the bridge.
fn far_name(node: &str) -> String {
    format!("{node}-w")
}

/// The other end of that pair, which the wire reads and writes.
fn inner_name(node: &str) -> String {
    format!("{node}-x")
}

fn missing(name: &str) -> NetlinkError {
    NetlinkError::Io {
        operation: format!("looking for interface {name}"),
        source: std::io::ErrorKind::NotFound.into(),
    }
}

fn index(routes: &mut RouteSocket, name: &str) -> Result<u32, NetlinkError> {
    routes
        .link(name)?
        .map(|link| link.index)
        .ok_or_else(|| missing(name))
}

fn bring_up(routes: &mut RouteSocket, name: &str) -> Result<u32, NetlinkError> {
    let index = index(routes, name)?;
    routes.set_up(index, true)?;
    Ok(index)
}
