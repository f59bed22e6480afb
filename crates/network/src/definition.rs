//! What a network is: the part that survives restarts and reboots.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use skep_allocator::AddressSet;

use crate::Prefix;
use crate::overlay::OverlayDefinition;

/// How a network connects its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    Bridge,
    Host,
    /// The `none` network.
    Null,
    /// The swarm's, across nodes.
    Overlay,
}

impl Driver {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
            Self::Overlay => "overlay",
        }
    }

    /// Whether containers get an interface.
    pub(crate) fn is_wired(self) -> bool {
        matches!(self, Self::Bridge | Self::Overlay)
    }
}

/// One address family of a network.
#[expect(clippy::struct_field_names, reason = "Docker's own names")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subnet {
    pub(crate) subnet: Prefix,
    /// `--ip-range`
    pub(crate) range: Option<Prefix>,
    /// The bridge's own address.
    pub(crate) gateway: IpAddr,
    /// `--default-gateway` of the default bridge: what containers use instead.
    pub(crate) router: Option<IpAddr>,
    /// `--aux-address`: addresses of others, never given out.
    pub(crate) auxiliary: BTreeMap<String, IpAddr>,
}

impl Subnet {
    /// All addresses free but those the network itself needs.
    pub(crate) fn addresses(&self) -> AddressSet {
        let mut set = AddressSet::new(self.subnet, self.range);
        for &address in self
            .auxiliary
            .values()
            .chain(self.router.as_ref())
            .chain([&self.gateway])
        {
            // Some may be the same address; that is no conflict.
            let _ = set.take(address);
        }
        set
    }

    /// Where containers send what is not for the subnet.
    pub(crate) fn default_route(&self) -> IpAddr {
        self.router.unwrap_or(self.gateway)
    }
}

/// A network as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkDefinition {
    /// 64 hex digits.
    pub(crate) id: String,
    pub(crate) name: String,
    /// RFC 3339 with nanoseconds.
    pub(crate) created: String,
    pub(crate) driver: Driver,
    /// The bridge's interface name; empty for `host` and `none`.
    pub(crate) bridge: String,
    /// The bridge is somebody else's: it was there before the network, and stays behind it.
    pub(crate) borrowed: bool,
    pub(crate) ipv4: Option<Subnet>,
    pub(crate) ipv6: Option<Subnet>,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) mtu: u32,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
    /// Where ports are published when no address is given; `None`: everywhere.
    pub(crate) default_binding: Option<IpAddr>,
    /// Name prefix of the interfaces in containers.
    pub(crate) interface_prefix: String,
    /// As the user gave them, for `inspect`.
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// The `ipam` section's own options.
    pub(crate) ipam_options: BTreeMap<String, String>,
    /// `bridge`, `host` and `none`, which are not the user's to remove.
    pub(crate) predefined: bool,
    /// What makes it an overlay.
    #[serde(default)]
    pub(crate) overlay: Option<OverlayDefinition>,
}

impl NetworkDefinition {
    pub(crate) fn subnets(&self) -> impl Iterator<Item = &Subnet> {
        self.ipv4.iter().chain(self.ipv6.iter())
    }
}
