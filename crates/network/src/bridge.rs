//! A network's bridge on the host.

use skep_netlink::{NetlinkError, RouteSocket, sysctl};

use crate::NetworkError;
use crate::definition::{NetworkDefinition, Subnet};
use crate::host::Host;

/// Makes the bridge, or puts right what is there: address, MTU, up. Ports and connections of an
/// existing bridge are not touched. Returns its index.
pub(crate) fn ensure(
    host: &Host,
    network: &NetworkDefinition,
    with_rules: bool,
) -> Result<u32, NetworkError> {
    let index = host.with_route(|route| -> Result<u32, NetworkError> {
        let index = find_or_create(route, network)?;
        let present = route.addresses()?;
        for subnet in network.subnets() {
            let (address, prefix) = (subnet.gateway, subnet.subnet.length());
            let there = present
                .iter()
                .any(|found| found.link == index && found.address == address);
            if !there {
                route.add_address(index, address, prefix)?;
            }
        }
        route.set_up(index, true)?;
        Ok(index)
    })?;
    let name = network.bridge.clone();
    let (has_ipv4, has_ipv6) = (network.ipv4.is_some(), network.ipv6.is_some());
    host.call(move || configure(&name, has_ipv4 && with_rules, has_ipv6))??;
    Ok(index)
}

/// Removes the bridge; it is no error if it is gone.
pub(crate) fn remove(host: &Host, name: &str) -> Result<(), NetlinkError> {
    match host.with_route(|route| route.delete_link(name)) {
        Err(error) if !error.is_missing() => Err(error),
        _ => Ok(()),
    }
}

/// Takes a network's addresses off a bridge that was there before it.
pub(crate) fn give_back<'a>(
    host: &Host,
    name: &str,
    subnets: impl Iterator<Item = &'a Subnet>,
) -> Result<(), NetlinkError> {
    host.with_route(|route| {
        let Some(link) = route.link(name)? else {
            return Ok(());
        };
        for subnet in subnets {
            match route.delete_address(link.index, subnet.gateway, subnet.subnet.length()) {
                Err(error) if !error.is_missing() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    })
}

fn find_or_create(
    route: &mut RouteSocket,
    network: &NetworkDefinition,
) -> Result<u32, NetworkError> {
    let name = network.bridge.as_str();
    if let Some(link) = route.link(name)? {
        if link.kind != "bridge" {
            let text = format!("existing interface {name} is not a bridge");
            return Err(NetworkError::Invalid(text));
        }
        return Ok(link.index);
    }
    // Without an address of its own a bridge takes the lowest of its ports', and changes it
    // whenever a container comes or goes.
    let [a, b, c, d] = rand::random::<[u8; 4]>();
    route.create_bridge(name, network.mtu, Some([0x02, 0x42, a, b, c, d]))?;
    let link = route.link(name)?;
    let link = link.ok_or_else(|| NetworkError::Invalid(format!("bridge {name} has vanished")))?;
    Ok(link.index)
}

/// Runs in the host's namespace.
fn configure(name: &str, loopback: bool, ipv6: bool) -> Result<(), NetlinkError> {
    if loopback {
        // Connections of the host to 127.0.0.1:<published port> go to a container; the rules in
        // `firewall.rs` keep the containers from using it the other way round.
        sysctl::set(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
    }
    let switch = format!("net/ipv6/conf/{name}/disable_ipv6");
    if ipv6 && sysctl::exists(&switch) {
        sysctl::set(&switch, "0")?;
        // Router advertisements from containers are not to be believed.
        sysctl::set(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
    }
    Ok(())
}

/// Forwarding for the whole namespace, as `--ip-forward` has it.
pub(crate) fn enable_forwarding(host: &Host, ipv6: bool) -> Result<(), NetlinkError> {
    host.call(move || {
        sysctl::set("net/ipv4/ip_forward", "1")?;
        if ipv6 {
            sysctl::set("net/ipv6/conf/default/forwarding", "1")?;
            sysctl::set("net/ipv6/conf/all/forwarding", "1")?;
        }
        Ok(())
    })?
}
