//! What a container asks of a network and what it gets.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bollard_stubs::models as m;
use serde::{Deserialize, Serialize};

/// A container's wish to be attached to one network.
#[derive(Debug, Clone, Default)]
pub struct EndpointRequest {
    /// Name, id or unique id prefix. `default` is the default bridge.
    pub network: String,
    /// Without the leading slash; shown by `network inspect` and in error texts.
    pub container_name: String,
    /// `--ip`; refused on the default bridge, as Docker does.
    pub ipv4: Option<Ipv4Addr>,
    /// `--ip6`.
    pub ipv6: Option<Ipv6Addr>,
    pub mac: Option<MacAddress>,
    /// Names beside the container's own; user-defined networks only.
    pub aliases: Vec<String>,
    /// `container:alias` pairs of `--link`; kept and shown.
    pub links: Vec<String>,
    /// Published ports. They are published by the endpoint that provides the default gateway, so
    /// give the same list with each network.
    pub ports: Vec<PortRequest>,
    /// The network with the highest priority provides the default gateway; ties go to the name
    /// that sorts first.
    pub gateway_priority: i64,
    /// Per-endpoint driver options; an unknown one is refused.
    pub driver_options: BTreeMap<String, String>,
}

/// One `-p [ip:]host:container/protocol`, one container port each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    pub container_port: u16,
    pub protocol: Protocol,
    /// `None`: the daemon's default address (0.0.0.0 and `[::]`).
    pub host_ip: Option<IpAddr>,
    /// First and last port to choose from; `(0, 0)` is any free one of the ephemeral range.
    pub host_ports: (u16, u16),
}

/// A port that answers on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    pub container_port: u16,
    pub protocol: Protocol,
    pub host_ip: IpAddr,
    pub host_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(format!("invalid proto: {text}")),
        }
    }
}

/// A container's attachment to one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hex digits.
    pub id: String,
    pub network_id: String,
    pub network_name: String,
    pub container_name: String,
    /// `eth0`, …; empty on the `host` and `none` networks.
    pub interface: String,
    pub mac: Option<MacAddress>,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv4_prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub ipv6_prefix: u8,
    pub gateway6: Option<Ipv6Addr>,
    /// Every published port of this endpoint, IPv4 and IPv6.
    pub ports: Vec<PublishedPort>,
    pub aliases: Vec<String>,
    pub links: Vec<String>,
    pub gateway_priority: i64,
    pub driver_options: BTreeMap<String, String>,
    /// Addresses that were asked for, as `IPAMConfig` shows them.
    pub requested_ipv4: Option<Ipv4Addr>,
    pub requested_ipv6: Option<Ipv6Addr>,
}

impl Endpoint {
    /// The endpoint as an entry of `NetworkSettings.Networks`.
    pub fn settings(&self) -> m::EndpointSettings {
        let text = |address: Option<String>| Some(address.unwrap_or_default());
        let asked = self.requested_ipv4.is_some() || self.requested_ipv6.is_some();
        let list = |items: &[String]| (!items.is_empty()).then(|| items.to_vec());
        m::EndpointSettings {
            ipam_config: asked.then(|| m::EndpointIpamConfig {
                ipv4_address: self.requested_ipv4.map(|ip| ip.to_string()),
                ipv6_address: self.requested_ipv6.map(|ip| ip.to_string()),
                link_local_ips: None,
            }),
            links: list(&self.links),
            aliases: list(&self.aliases),
            mac_address: text(self.mac.map(|mac| mac.to_string())),
            driver_opts: (!self.driver_options.is_empty())
                .then(|| self.driver_options.clone().into_iter().collect()),
            gw_priority: Some(self.gateway_priority),
            network_id: Some(self.network_id.clone()),
            endpoint_id: Some(self.id.clone()),
            gateway: text(self.gateway.map(|ip| ip.to_string())),
            ip_address: text(self.ipv4.map(|ip| ip.to_string())),
            ip_prefix_len: Some(i64::from(self.ipv4_prefix)),
            ipv6_gateway: text(self.gateway6.map(|ip| ip.to_string())),
            global_ipv6_address: text(self.ipv6.map(|ip| ip.to_string())),
            global_ipv6_prefix_len: Some(i64::from(self.ipv6_prefix)),
            dns_names: None,
        }
    }
}

/// Published ports as `NetworkSettings.Ports` shows them; exposed ports that are not published
/// are the caller's to add, with a null value.
pub fn port_map(ports: &[PublishedPort]) -> m::PortMap {
    let mut map: m::PortMap = HashMap::new();
    for port in ports {
        let bindings = map
            .entry(format!("{}/{}", port.container_port, port.protocol))
            .or_default()
            .get_or_insert_default();
        bindings.push(m::PortBinding {
            host_ip: Some(port.host_ip.to_string()),
            host_port: Some(port.host_port.to_string()),
        });
    }
    map
}

/// A 48-bit hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// `02:42:` and the address: whoever inherits an address also inherits its hardware address,
    /// so no neighbour's cache can be stale.
    pub fn for_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// For IPv6-only endpoints: `02:42:` and the low 32 bits.
    pub fn for_ipv6(address: Ipv6Addr) -> Self {
        let octets = address.octets();
        Self([0x02, 0x42, octets[12], octets[13], octets[14], octets[15]])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, octet) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || format!("address {text}: invalid MAC address");
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(invalid)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            Err(invalid())
        } else {
            Ok(Self(octets))
        }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}
