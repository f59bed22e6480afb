//! The daemon's network settings as the network crate takes them.

use std::net::IpAddr;

use skep_network::{AddressPool, NetworkConfig, Prefix};

use crate::config::EngineConfig;
use crate::error::{EngineError, Result};

pub(crate) fn build(config: &EngineConfig) -> Result<NetworkConfig> {
    let options = &config.network;
    let prefix = |text: &Option<String>, flag: &str| -> Result<Option<Prefix>> {
        text.as_deref()
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse::<Prefix>().map_err(|error| {
                    EngineError::invalid(format!("invalid value for {flag}: {error}"))
                })
            })
            .transpose()
    };
    let mut network = NetworkConfig::new(&config.data_root, &config.exec_root);
    network.bridge.clone_from(&options.bridge);
    network.bip = prefix(&options.bip, "--bip")?;
    network.fixed_cidr = prefix(&options.fixed_cidr, "--fixed-cidr")?;
    network.default_gateway = match options.default_gateway {
        Some(IpAddr::V4(gateway)) => Some(gateway),
        Some(IpAddr::V6(_)) => {
            return Err(EngineError::invalid(
                "--default-gateway takes an IPv4 address",
            ));
        }
        None => None,
    };
    for (base, size) in &options.default_address_pools {
        let base = base.parse::<Prefix>().map_err(|error| {
            EngineError::invalid(format!("invalid base pool {base:?}: {error}"))
        })?;
        network
            .default_address_pools
            .push(AddressPool { base, size: *size });
    }
    network.mtu = options.mtu.unwrap_or(0);
    network.iptables = options.iptables;
    network.ip6tables = options.ip6tables;
    network.ipv6 = options.ipv6;
    network.fixed_cidr_v6 = prefix(&options.fixed_cidr_v6, "--fixed-cidr-v6")?;
    network.ip_forward = options.ip_forward;
    network.ip_masq = options.ip_masq;
    network.icc = options.icc;
    network.userland_proxy = options.userland_proxy;
    network.host_namespace.clone_from(&options.host_namespace);
    if let Some(ip) = options.ip {
        network.default_binding = ip;
    }
    Ok(network)
}
