//! The interfaces of the daemon's network namespace, as the kernel lists them.

use std::net::IpAddr;

use skep_netlink::{Link, NetlinkError, RouteSocket};

use crate::address::Interface;

/// Blocks for some microseconds.
pub(crate) fn list(managed: &[(IpAddr, u8)]) -> Result<Vec<Interface>, NetlinkError> {
    let mut socket = RouteSocket::open()?;
    let addresses = socket.addresses()?;
    let interfaces = socket.links()?.into_iter().map(|link| {
        let of_link = |address: &&skep_netlink::Address| address.link == link.index;
        let addresses: Vec<IpAddr> = addresses
            .iter()
            .filter(of_link)
            .map(|address| address.address)
            .collect();
        let in_managed =
            |address: &IpAddr| managed.iter().any(|&subnet| contains(subnet, *address));
        Interface {
            up: link.up,
            device: link.kind.is_empty(),
            loopback: link.name == "lo",
            managed: is_dockers_bridge(&link) || addresses.iter().any(in_managed),
            name: link.name,
            addresses,
        }
    });
    Ok(interfaces.collect())
}

/// By name: a bridge of a daemon that ran here before is still not an address to advertise.
fn is_dockers_bridge(link: &Link) -> bool {
    link.kind == "bridge"
        && (link.name == "docker0"
            || link.name == "docker_gwbridge"
            || link.name.strip_prefix("br-").is_some_and(|id| {
                id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
            }))
}

fn contains((network, prefix): (IpAddr, u8), address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let ((network, width), (address, other_width)) = (bits(network), bits(address));
    let shift = 128 - u32::from(prefix.min(width));
    width == other_width && network.checked_shr(shift) == address.checked_shr(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_subnet_of_its_family_with_the_same_prefix() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(contains((ip("172.17.0.0"), 16), ip("172.17.200.1")));
        assert!(!contains((ip("172.17.0.0"), 16), ip("172.18.0.1")));
        assert!(contains((ip("0.0.0.0"), 0), ip("1.2.3.4")));
        assert!(!contains((ip("::"), 0), ip("1.2.3.4")));
        assert!(contains((ip("fd00::"), 8), ip("fd12::1")));
        assert!(!contains((ip("10.0.0.1"), 32), ip("10.0.0.2")));
    }

    #[test]
    fn the_loopback_is_listed() {
        assert!(
            list(&[])
                .unwrap()
                .iter()
                .any(|interface| interface.loopback)
        );
    }
}
