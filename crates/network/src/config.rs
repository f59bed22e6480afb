//! The daemon's options that concern local networks.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::{AddressPool, Prefix};

/// What `dockerd`'s flags and `daemon.json` say about local networks.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Network definitions are kept in `network/` below it and survive a reboot.
    pub data_root: PathBuf,
    /// Namespaces (`netns/`) and endpoint records (`network/`) are kept below it.
    pub exec_root: PathBuf,
    /// `-b`: the default bridge's name; `none` for no default bridge. Unlike dockerd, a bridge
    /// that does not exist yet is created.
    pub bridge: Option<String>,
    /// `--bip`: address and subnet of the default bridge.
    pub bip: Option<Prefix>,
    /// `--fixed-cidr`: containers of the default bridge get addresses from this part of it.
    pub fixed_cidr: Option<Prefix>,
    /// `--ipv6`: whether the default bridge has IPv6 too.
    pub ipv6: bool,
    /// `--fixed-cidr-v6`: its IPv6 subnet; without it, one of the pools or a random local one.
    pub fixed_cidr_v6: Option<Prefix>,
    /// `--default-gateway`: what containers of the default bridge use instead of the bridge.
    pub default_gateway: Option<Ipv4Addr>,
    /// `--default-address-pool`; empty means Docker's own list.
    pub default_address_pools: Vec<AddressPool>,
    /// `--mtu`; 0 means 1500.
    pub mtu: u32,
    /// `--iptables`: whether firewall and NAT rules are made at all (nftables here).
    pub iptables: bool,
    /// `--ip6tables`: the same for IPv6 networks.
    pub ip6tables: bool,
    /// `--ip-forward`: whether forwarding is switched on in the kernel.
    pub ip_forward: bool,
    /// `--icc`: whether containers of the default bridge reach each other.
    pub icc: bool,
    /// `--ip-masq`: whether the default bridge's outbound traffic takes the host's address.
    pub ip_masq: bool,
    /// `--userland-proxy`: serve published ports by copying where no NAT rule can (`[::1]`, or
    /// `iptables` off). The copying happens inside the daemon; there is no process per port.
    pub userland_proxy: bool,
    /// `--ip`: where ports are published when no address is given.
    pub default_binding: IpAddr,
    /// The namespace that plays the host. `None`: the one of the thread that calls
    /// [`crate::LocalNetworks::open`].
    pub host_namespace: Option<PathBuf>,
}

impl NetworkConfig {
    /// Docker's defaults for everything but the two directories.
    pub fn new(data_root: impl Into<PathBuf>, exec_root: impl Into<PathBuf>) -> Self {
        Self {
            data_root: data_root.into(),
            exec_root: exec_root.into(),
            bridge: None,
            bip: None,
            fixed_cidr: None,
            ipv6: false,
            fixed_cidr_v6: None,
            default_gateway: None,
            default_address_pools: Vec::new(),
            mtu: 0,
            iptables: true,
            ip6tables: true,
            ip_forward: true,
            icc: true,
            ip_masq: true,
            userland_proxy: true,
            default_binding: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            host_namespace: None,
        }
    }

    /// The default bridge's interface name; `None` with `-b none`.
    pub(crate) fn bridge_name(&self) -> Option<&str> {
        match self.bridge.as_deref() {
            Some("none") => None,
            None | Some("") => Some("docker0"),
            Some(name) => Some(name),
        }
    }

    pub(crate) fn effective_mtu(&self) -> u32 {
        if self.mtu == 0 { 1500 } else { self.mtu }
    }
}
