//! The namespace of an overlay and the devices in it.

use std::path::Path;

use skep_netlink::{Namespace, NetlinkError, RouteSocket, Vxlan, sysctl};

use crate::NetworkError;
use crate::attach::is_namespace;
use crate::definition::NetworkDefinition;
use crate::host::Host;

pub(super) const BRIDGE: &str = "br0";
pub(super) const VXLAN: &str = "vxlan0";
const LOOPBACK: u32 = 1;

/// Makes what is missing, and returns the bridge's index.
pub(super) fn create(
    host: &Host,
    path: &Path,
    definition: &NetworkDefinition,
) -> Result<u32, NetworkError> {
    let namespace = if is_namespace(path) {
        Namespace::open(path)?
    } else {
        // A plain file is what a crash between creation and mount leaves.
        Namespace::delete_at(path)?;
        Namespace::create_at(path, prepare)?.0
    };
    let mut route = RouteSocket::open_in(&namespace)?;
    let bridge = if let Some(link) = route.link(BRIDGE)? {
        link.index
    } else {
        // An address of its own: else it takes the lowest of its ports', and changes it.
        let [a, b, c, d] = rand::random::<[u8; 4]>();
        route.create_bridge(BRIDGE, definition.mtu, Some([0x02, 0x42, a, b, c, d]))?;
        index(&mut route, BRIDGE)?
    };
    route.set_up(bridge, true)?;
    if route.link(VXLAN)?.is_none() {
        // Other nodes only: what is on this one works without it.
        if let Err(error) = tunnel(host, &namespace, definition, &mut route, bridge) {
            tracing::error!(network.name = %definition.name, %error, "the network does not reach other nodes");
        }
    }
    Ok(bridge)
}

fn tunnel(
    host: &Host,
    namespace: &Namespace,
    definition: &NetworkDefinition,
    route: &mut RouteSocket,
    bridge: u32,
) -> Result<(), NetworkError> {
    let Some(overlay) = &definition.overlay else {
        return Ok(());
    };
    let vxlan = Vxlan {
        name: VXLAN,
        namespace,
        vni: overlay.vni,
        port: overlay.port,
        mtu: definition.mtu,
    };
    host.with_route(|route| route.create_vxlan(&vxlan))?;
    let link = index(route, VXLAN)?;
    route.set_master(link, Some(bridge))?;
    Ok(route.set_up(link, true)?)
}

/// Runs in the new namespace.
fn prepare() -> Result<(), NetlinkError> {
    RouteSocket::open()?.set_up(LOOPBACK, true)?;
    let settings = [
        // Bridged frames must not pass the IP rules: those are for what is routed.
        ("net/bridge/bridge-nf-call-iptables", "0"),
        ("net/bridge/bridge-nf-call-ip6tables", "0"),
        // Answers to the mesh come in where their senders are not routed to.
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
    ];
    for (setting, value) in settings {
        if sysctl::exists(setting) {
            sysctl::set(setting, value)?;
        }
    }
    Ok(())
}

/// The bridge of an overlay that is there already.
pub(crate) fn find_bridge(path: &Path) -> Option<u32> {
    if !is_namespace(path) {
        return None;
    }
    let mut route = RouteSocket::open_in(&Namespace::open(path).ok()?).ok()?;
    Some(route.link(BRIDGE).ok()??.index)
}

pub(super) fn index(route: &mut RouteSocket, name: &str) -> Result<u32, NetworkError> {
    match route.link(name)? {
        Some(link) => Ok(link.index),
        None => Err(NetworkError::Forbidden(format!(
            "interface {name} has vanished"
        ))),
    }
}
