//! Links, addresses and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use libc::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::Namespace;
use crate::codec::{Message, attributes, read_u32, text};
use crate::error::NetlinkError;
use crate::socket::NetlinkSocket;

const INTERFACE_UP: u32 = libc::IFF_UP as u32;
/// `VETH_INFO_PEER` and the bridge attributes are not in libc.
const VETH_INFO_PEER: u16 = 1;
const BRIDGE_PORT_HAIRPIN: u16 = 4;
const BRIDGE_PORT_ISOLATED: u16 = 33;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`, …; empty for physical ones.
    pub kind: String,
    pub mtu: u32,
    pub mac: Option<[u8; 6]>,
    pub up: bool,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    pub link: u32,
    pub address: IpAddr,
    pub prefix: u8,
}

/// An entry of the main routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Destination and prefix length; a default route is `0.0.0.0/0` or `::/0`.
    pub destination: (IpAddr, u8),
    pub gateway: Option<IpAddr>,
    pub link: Option<u32>,
}

/// A route to add.
#[derive(Debug, Clone, Copy)]
pub struct NewRoute {
    pub destination: (IpAddr, u8),
    pub gateway: Option<IpAddr>,
    pub link: u32,
}

/// A pair of connected interfaces, the far one straight in another namespace.
#[derive(Debug)]
pub struct VethPair<'a> {
    pub name: &'a str,
    pub mtu: u32,
    /// Index of the bridge the near one becomes a port of.
    pub master: Option<u32>,
    pub peer_name: &'a str,
    pub peer_namespace: &'a Namespace,
    pub peer_mac: Option<[u8; 6]>,
}

/// Settings of a bridge's port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Frames may leave by the port they came in on.
    pub hairpin: bool,
    /// No frames to or from other isolated ports.
    pub isolated: bool,
}

/// An rtnetlink socket of one namespace.
#[derive(Debug)]
pub struct RouteSocket {
    pub(crate) socket: NetlinkSocket,
}

impl RouteSocket {
    /// Opens it in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: NetlinkSocket::open(NETLINK_ROUTE)?,
        })
    }

    /// Opens it in `namespace`.
    pub fn open_in(namespace: &Namespace) -> Result<Self, NetlinkError> {
        namespace.run(Self::open)?
    }

    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = Vec::new();
        let message = Message::new(libc::RTM_GETLINK, 0, &interface(0, 0, 0));
        self.socket.dump("listing interfaces", message, |body| {
            links.extend(parse_link(body));
        })?;
        Ok(links)
    }

    /// The interface called `name`.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = Message::new(libc::RTM_GETLINK, 0, &interface(0, 0, 0));
        message.text(libc::IFLA_IFNAME, name);
        let found = self
            .socket
            .query(&format!("looking for interface {name}"), message)?;
        Ok(found.as_deref().and_then(parse_link))
    }

    /// Makes a bridge, down, without ports.
    pub fn create_bridge(
        &mut self,
        name: &str,
        mtu: u32,
        mac: Option<[u8; 6]>,
    ) -> Result<(), NetlinkError> {
        let mut message = new_link();
        message
            .text(libc::IFLA_IFNAME, name)
            .u32(libc::IFLA_MTU, mtu);
        if let Some(mac) = mac {
            message.bytes(libc::IFLA_ADDRESS, &mac);
        }
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "bridge");
        });
        self.socket
            .request(&format!("creating bridge {name}"), vec![message])
    }

    /// Makes a pair. The near one comes up at once as a port of its bridge; the far one stays
    /// down, so that its namespace can be set up first.
    pub fn create_veth(&mut self, pair: &VethPair<'_>) -> Result<(), NetlinkError> {
        let up = interface(0, INTERFACE_UP, INTERFACE_UP);
        let mut message = Message::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &up);
        message
            .text(libc::IFLA_IFNAME, pair.name)
            .u32(libc::IFLA_MTU, pair.mtu);
        if let Some(master) = pair.master {
            message.u32(libc::IFLA_MASTER, master);
        }
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth")
                .nest(libc::IFLA_INFO_DATA, |data| {
                    data.nest_after(VETH_INFO_PEER, &interface(0, 0, 0), |peer| {
                        peer.text(libc::IFLA_IFNAME, pair.peer_name)
                            .u32(libc::IFLA_MTU, pair.mtu)
                            .u32(
                                libc::IFLA_NET_NS_FD,
                                pair.peer_namespace.file().as_raw_fd() as u32,
                            );
                        if let Some(mac) = pair.peer_mac {
                            peer.bytes(libc::IFLA_ADDRESS, &mac);
                        }
                    });
                });
        });
        self.socket
            .request(&format!("creating veth pair {}", pair.name), vec![message])
    }

    /// Brings an interface up or down.
    pub fn set_up(&mut self, link: u32, up: bool) -> Result<(), NetlinkError> {
        let flags = if up { INTERFACE_UP } else { 0 };
        let message = Message::new(libc::RTM_NEWLINK, 0, &interface(link, flags, INTERFACE_UP));
        self.socket.request(
            &format!("bringing interface {link} up or down"),
            vec![message],
        )
    }

    /// Changes how large packets may be.
    pub fn set_mtu(&mut self, link: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &interface(link, 0, 0));
        message.u32(libc::IFLA_MTU, mtu);
        self.socket.request(
            &format!("setting the MTU of interface {link}"),
            vec![message],
        )
    }

    /// Gives an interface a hardware address.
    pub fn set_mac(&mut self, link: u32, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &interface(link, 0, 0));
        message.bytes(libc::IFLA_ADDRESS, &mac);
        self.socket.request(
            &format!("setting the address of interface {link}"),
            vec![message],
        )
    }

    /// Makes an interface a port of a bridge, or of none.
    pub fn set_master(&mut self, link: u32, master: Option<u32>) -> Result<(), NetlinkError> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &interface(link, 0, 0));
        message.u32(libc::IFLA_MASTER, master.unwrap_or(0));
        self.socket.request(
            &format!("attaching interface {link} to a bridge"),
            vec![message],
        )
    }

    /// Changes the settings of a bridge's port.
    pub fn set_bridge_port(&mut self, link: u32, port: BridgePort) -> Result<(), NetlinkError> {
        let mut header = interface(link, 0, 0);
        header[0] = libc::AF_BRIDGE as u8;
        let mut message = Message::new(libc::RTM_SETLINK, 0, &header);
        message.nest(libc::IFLA_PROTINFO, |info| {
            info.u8(BRIDGE_PORT_HAIRPIN, u8::from(port.hairpin))
                .u8(BRIDGE_PORT_ISOLATED, u8::from(port.isolated));
        });
        self.socket
            .request(&format!("configuring bridge port {link}"), vec![message])
    }

    /// Tells a bridge behind which port a hardware address is. A port that has no carrier yet
    /// cannot learn, so it is told for good; a frame from elsewhere still moves it.
    pub fn announce(&mut self, port: u32, mac: [u8; 6]) -> Result<(), NetlinkError> {
        // struct ndmsg: family, padding, interface, state, flags, type
        let mut header = vec![libc::AF_BRIDGE as u8, 0, 0, 0];
        header.extend(port.to_ne_bytes());
        header.extend(libc::NUD_NOARP.to_ne_bytes());
        header.extend([libc::NTF_MASTER, 0]);
        let mut message = Message::new(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &header);
        message.bytes(libc::NDA_LLADDR, &mac);
        self.socket.request(
            &format!("announcing a neighbour on interface {port}"),
            vec![message],
        )
    }

    /// Removes an interface by name; a veth's other end goes with it.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = Message::new(libc::RTM_DELLINK, 0, &interface(0, 0, 0));
        message.text(libc::IFLA_IFNAME, name);
        self.socket
            .request(&format!("removing interface {name}"), vec![message])
    }

    /// All addresses.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let mut addresses = Vec::new();
        let message = Message::new(libc::RTM_GETADDR, 0, &[0; 8]);
        self.socket.dump("listing addresses", message, |body| {
            addresses.extend(parse_address(body));
        })?;
        Ok(addresses)
    }

    /// Gives an interface an address.
    pub fn add_address(
        &mut self,
        link: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let message = address_message(
            libc::RTM_NEWADDR,
            NLM_F_CREATE | NLM_F_EXCL,
            link,
            address,
            prefix,
        );
        self.socket
            .request(&format!("adding address {address}/{prefix}"), vec![message])
    }

    /// Takes an address away from an interface.
    pub fn delete_address(
        &mut self,
        link: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let message = address_message(libc::RTM_DELADDR, 0, link, address, prefix);
        self.socket.request(
            &format!("removing address {address}/{prefix}"),
            vec![message],
        )
    }

    /// The unicast routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        let message = Message::new(libc::RTM_GETROUTE, 0, &[0; 12]);
        self.socket.dump("listing routes", message, |body| {
            routes.extend(parse_route(body));
        })?;
        Ok(routes)
    }

    /// Adds a route, or replaces the one to the same destination.
    pub fn replace_route(&mut self, route: &NewRoute) -> Result<(), NetlinkError> {
        let message = route_message(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route);
        let (address, prefix) = route.destination;
        self.socket.request(
            &format!("adding a route to {address}/{prefix}"),
            vec![message],
        )
    }

    /// Removes a route.
    pub fn delete_route(&mut self, route: &NewRoute) -> Result<(), NetlinkError> {
        let message = route_message(libc::RTM_DELROUTE, 0, route);
        let (address, prefix) = route.destination;
        self.socket.request(
            &format!("removing the route to {address}/{prefix}"),
            vec![message],
        )
    }
}

fn new_link() -> Message {
    Message::new(
        libc::RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        &interface(0, 0, 0),
    )
}

/// `struct ifinfomsg`
pub(crate) fn interface(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

pub(crate) fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }) as u8
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address_message(kind: u16, flags: i32, link: u32, address: IpAddr, prefix: u8) -> Message {
    // No duplicate address detection: addresses come from an allocator, and a tentative IPv6
    // address could not be used for a second.
    let flag = if address.is_ipv6() {
        libc::IFA_F_NODAD as u8
    } else {
        0
    };
    let mut header = vec![family(address), prefix, flag, libc::RT_SCOPE_UNIVERSE];
    header.extend(link.to_ne_bytes());
    let mut message = Message::new(kind, flags, &header);
    message
        .bytes(libc::IFA_LOCAL, &octets(address))
        .bytes(libc::IFA_ADDRESS, &octets(address));
    if let IpAddr::V4(v4) = address
        && prefix < 31
    {
        let broadcast = u32::from(v4) | u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        message.bytes(libc::IFA_BROADCAST, &broadcast.to_be_bytes());
    }
    message
}

fn route_message(kind: u16, flags: i32, route: &NewRoute) -> Message {
    let (destination, prefix) = route.destination;
    let scope = if route.gateway.is_some() {
        libc::RT_SCOPE_UNIVERSE
    } else {
        libc::RT_SCOPE_LINK
    };
    let header = [
        family(destination),
        prefix,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        scope,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let mut message = Message::new(kind, flags, &header);
    if prefix > 0 {
        message.bytes(libc::RTA_DST, &octets(destination));
    }
    if let Some(gateway) = route.gateway {
        message.bytes(libc::RTA_GATEWAY, &octets(gateway));
    }
    message.u32(libc::RTA_OIF, route.link);
    message
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: read_u32(body, 4)?,
        name: String::new(),
        kind: String::new(),
        mtu: 0,
        mac: None,
        up: read_u32(body, 8)? & INTERFACE_UP != 0,
        master: None,
    };
    for (kind, payload) in attributes(body.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(payload),
            libc::IFLA_MTU => link.mtu = read_u32(payload, 0)?,
            libc::IFLA_ADDRESS => link.mac = payload.try_into().ok(),
            libc::IFLA_MASTER => link.master = read_u32(payload, 0),
            libc::IFLA_LINKINFO => {
                let mut info = attributes(payload);
                if let Some((_, name)) = info.find(|(kind, _)| *kind == libc::IFLA_INFO_KIND) {
                    link.kind = text(name);
                }
            }
            _ => {}
        }
    }
    Some(link)
}

fn parse_address(body: &[u8]) -> Option<Address> {
    let (prefix, link) = (*body.get(1)?, read_u32(body, 4)?);
    let mut local = None;
    let mut address = None;
    for (kind, payload) in attributes(body.get(8..)?) {
        match kind {
            libc::IFA_LOCAL => local = parse_ip(payload),
            libc::IFA_ADDRESS => address = parse_ip(payload),
            _ => {}
        }
    }
    Some(Address {
        link,
        address: local.or(address)?,
        prefix,
    })
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let (family, prefix) = (*body.first()?, *body.get(1)?);
    if *body.get(4)? != libc::RT_TABLE_MAIN || *body.get(7)? != libc::RTN_UNICAST {
        return None;
    }
    let unspecified = if i32::from(family) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let mut route = Route {
        destination: (unspecified, prefix),
        gateway: None,
        link: None,
    };
    for (kind, payload) in attributes(body.get(12..)?) {
        match kind {
            libc::RTA_DST => route.destination.0 = parse_ip(payload)?,
            libc::RTA_GATEWAY => route.gateway = parse_ip(payload),
            libc::RTA_OIF => route.link = read_u32(payload, 0),
            _ => {}
        }
    }
    Some(route)
}

fn parse_ip(payload: &[u8]) -> Option<IpAddr> {
    match payload.len() {
        4 => <[u8; 4]>::try_from(payload).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(payload).ok().map(IpAddr::from),
        _ => None,
    }
}
