//! Overlays: VXLAN devices, static neighbours and forwarding entries, and policy routes.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use libc::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use crate::codec::Message;
use crate::route::{family, interface, octets};
use crate::{Namespace, NetlinkError, RouteSocket};

/// `if_link.h`; not in libc.
mod vxlan {
    pub(super) const ID: u16 = 1;
    pub(super) const LEARNING: u16 = 7;
    pub(super) const PROXY: u16 = 11;
    pub(super) const PORT: u16 = 15;
}
const RULE_TO_TABLE: u8 = 1;
const RULE_SOURCE: u16 = 2;
const RULE_PRIORITY: u16 = 6;
const RULE_TABLE: u16 = 15;

/// A VXLAN device whose packets leave by the namespace of the socket, but which lives in another.
#[derive(Debug)]
pub struct Vxlan<'a> {
    pub name: &'a str,
    pub namespace: &'a Namespace,
    pub vni: u32,
    /// The UDP port of both ends.
    pub port: u16,
    pub mtu: u32,
}

/// Behind which host a hardware address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Forwarding {
    pub mac: [u8; 6],
    pub host: IpAddr,
}

/// Which hardware address an address has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    pub address: IpAddr,
    pub mac: [u8; 6],
}

/// A route in a table of its own, for packets from one address.
#[derive(Debug, Clone, Copy)]
pub struct SourceRoute {
    pub source: IpAddr,
    pub gateway: IpAddr,
    pub link: u32,
    pub table: u32,
}

impl RouteSocket {
    /// It learns nothing, and answers for the neighbours it is told of.
    pub fn create_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<(), NetlinkError> {
        let mut message = Message::new(
            libc::RTM_NEWLINK,
            NLM_F_CREATE | NLM_F_EXCL,
            &interface(0, 0, 0),
        );
        message
            .text(libc::IFLA_IFNAME, vxlan.name)
            .u32(libc::IFLA_MTU, vxlan.mtu)
            .u32(
                libc::IFLA_NET_NS_FD,
                vxlan.namespace.file().as_raw_fd() as u32,
            )
            .nest(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, "vxlan")
                    .nest(libc::IFLA_INFO_DATA, |data| {
                        data.u32(vxlan::ID, vxlan.vni)
                            .u8(vxlan::LEARNING, 0)
                            .u8(vxlan::PROXY, 1)
                            .bytes(vxlan::PORT, &vxlan.port.to_be_bytes());
                    });
            });
        self.socket
            .request(&format!("creating VXLAN {}", vxlan.vni), vec![message])
    }

    /// Adds forwarding entries and neighbours to a VXLAN device, or replaces those of the same
    /// hardware address and address.
    pub fn set_neighbours(
        &mut self,
        link: u32,
        forwarding: &[Forwarding],
        neighbours: &[Neighbour],
    ) -> Result<(), NetlinkError> {
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        let mut messages: Vec<Message> = forwarding
            .iter()
            .map(|one| forwarding_message(libc::RTM_NEWNEIGH, flags, link, one))
            .collect();
        messages.extend(
            neighbours
                .iter()
                .map(|one| neighbour_message(libc::RTM_NEWNEIGH, flags, link, one)),
        );
        self.each("adding a neighbour", messages)
    }

    /// Removes them; one that is not there is no error.
    pub fn delete_neighbours(
        &mut self,
        link: u32,
        forwarding: &[Forwarding],
        neighbours: &[Neighbour],
    ) -> Result<(), NetlinkError> {
        let mut messages: Vec<Message> = forwarding
            .iter()
            .map(|one| forwarding_message(libc::RTM_DELNEIGH, 0, link, one))
            .collect();
        messages.extend(
            neighbours
                .iter()
                .map(|one| neighbour_message(libc::RTM_DELNEIGH, 0, link, one)),
        );
        match self.each("removing a neighbour", messages) {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }

    /// One at a time: a refusal of one must not keep the others away.
    fn each(&mut self, operation: &str, messages: Vec<Message>) -> Result<(), NetlinkError> {
        let mut outcome = Ok(());
        for message in messages {
            let done = self.socket.request(operation, vec![message]);
            outcome = outcome.and(done);
        }
        outcome
    }

    /// What comes from the source leaves by the gateway, whatever the main table says.
    pub fn add_source_route(&mut self, route: &SourceRoute) -> Result<(), NetlinkError> {
        let header = [
            family(route.source),
            0,
            0,
            0,
            libc::RT_TABLE_UNSPEC,
            libc::RTPROT_BOOT,
            libc::RT_SCOPE_UNIVERSE,
            libc::RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        let mut message = Message::new(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &header);
        message
            .bytes(libc::RTA_GATEWAY, &octets(route.gateway))
            .u32(libc::RTA_OIF, route.link)
            .u32(libc::RTA_TABLE, route.table);
        self.socket
            .request("adding a route by source", vec![message])?;
        let width = if route.source.is_ipv4() { 32 } else { 128 };
        let header = [
            family(route.source),
            0,
            width,
            0,
            libc::RT_TABLE_UNSPEC,
            0,
            0,
            RULE_TO_TABLE,
            0,
            0,
            0,
            0,
        ];
        let mut message = Message::new(libc::RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &header);
        message
            .bytes(RULE_SOURCE, &octets(route.source))
            .u32(RULE_PRIORITY, route.table)
            .u32(RULE_TABLE, route.table);
        self.socket
            .request("adding a rule by source", vec![message])
    }
}

fn forwarding_message(kind: u16, flags: i32, link: u32, one: &Forwarding) -> Message {
    let mut header = vec![libc::AF_BRIDGE as u8, 0, 0, 0];
    header.extend(link.to_ne_bytes());
    header.extend((libc::NUD_NOARP | libc::NUD_PERMANENT).to_ne_bytes());
    header.extend([libc::NTF_SELF, 0]);
    let mut message = Message::new(kind, flags, &header);
    message
        .bytes(libc::NDA_LLADDR, &one.mac)
        .bytes(libc::NDA_DST, &octets(one.host));
    message
}

fn neighbour_message(kind: u16, flags: i32, link: u32, one: &Neighbour) -> Message {
    let mut header = vec![family(one.address), 0, 0, 0];
    header.extend(link.to_ne_bytes());
    header.extend(libc::NUD_PERMANENT.to_ne_bytes());
    header.extend([0, 0]);
    let mut message = Message::new(kind, flags, &header);
    message
        .bytes(libc::NDA_DST, &octets(one.address))
        .bytes(libc::NDA_LLADDR, &one.mac);
    message
}
