//! The networks every daemon has: `bridge` (as the options say), `host` and `none`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use skep_netlink::RouteSocket;

use crate::definition::{Driver, NetworkDefinition, Subnet};
use crate::host::Host;
use crate::inner::subnets_of;
use crate::plan::random_id;
use crate::store::NetworkStore;
use crate::{AddressPool, NetworkConfig, NetworkError, Prefix};

/// All definitions: the stored ones, with the predefined networks as the options have them now.
pub(crate) fn networks(
    config: &NetworkConfig,
    store: &NetworkStore,
    host: &Host,
) -> Result<Vec<NetworkDefinition>, NetworkError> {
    let (mut stored, mut networks): (Vec<_>, Vec<_>) = store
        .load_definitions()?
        .into_iter()
        .partition(|one| one.predefined);
    // Ids and dates are kept: clients remember ids across restarts.
    let mut take = |name: &str| {
        let found = stored
            .iter()
            .position(|one: &NetworkDefinition| one.name == name);
        found.map(|index| stored.swap_remove(index))
    };
    let earlier_bridge = take("bridge");
    for (name, driver) in [("host", Driver::Host), ("none", Driver::Null)] {
        networks.push(take(name).unwrap_or_else(|| plain(name, driver)));
    }
    if let Some(bridge) = config.bridge_name() {
        let subnet = bridge_subnet(config, bridge, host, earlier_bridge.as_ref(), &networks)?;
        let ipv6 = bridge_subnet_v6(config, bridge, host, earlier_bridge.as_ref(), &networks)?;
        let mut network = default_bridge(config, bridge, subnet, earlier_bridge);
        network.ipv6 = ipv6;
        networks.push(network);
    }
    Ok(networks)
}

/// A network without anything: `host` and `none` are this, the others start from it.
pub(crate) fn plain(name: &str, driver: Driver) -> NetworkDefinition {
    NetworkDefinition {
        id: random_id(),
        name: name.to_owned(),
        created: jiff::Timestamp::now().to_string(),
        driver,
        bridge: String::new(),
        borrowed: false,
        ipv4: None,
        ipv6: None,
        internal: false,
        attachable: false,
        mtu: 1500,
        icc: true,
        masquerade: true,
        default_binding: None,
        interface_prefix: "eth".to_owned(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        ipam_options: BTreeMap::new(),
        predefined: true,
        overlay: None,
    }
}

fn default_bridge(
    config: &NetworkConfig,
    bridge: &str,
    subnet: Subnet,
    earlier: Option<NetworkDefinition>,
) -> NetworkDefinition {
    let fresh = plain("bridge", Driver::Bridge);
    let (id, created) = earlier.map_or((fresh.id.clone(), fresh.created.clone()), |e| {
        (e.id, e.created)
    });
    let options = [
        (
            "com.docker.network.bridge.default_bridge",
            "true".to_owned(),
        ),
        (
            "com.docker.network.bridge.enable_icc",
            config.icc.to_string(),
        ),
        (
            "com.docker.network.bridge.enable_ip_masquerade",
            config.ip_masq.to_string(),
        ),
        (
            "com.docker.network.bridge.host_binding_ipv4",
            config.default_binding.to_string(),
        ),
        ("com.docker.network.bridge.name", bridge.to_owned()),
        (
            "com.docker.network.driver.mtu",
            config.effective_mtu().to_string(),
        ),
    ];
    NetworkDefinition {
        id,
        created,
        bridge: bridge.to_owned(),
        ipv4: Some(subnet),
        mtu: config.effective_mtu(),
        icc: config.icc,
        masquerade: config.ip_masq,
        default_binding: Some(config.default_binding).filter(|ip| !ip.is_unspecified()),
        options: options
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        ..fresh
    }
}

/// `--bip`, else what the bridge has already, else `--fixed-cidr`, else what it had before, else
/// the first free pool.
fn bridge_subnet(
    config: &NetworkConfig,
    bridge: &str,
    host: &Host,
    earlier: Option<&NetworkDefinition>,
    networks: &[NetworkDefinition],
) -> Result<Subnet, NetworkError> {
    let address = match config.bip {
        Some(bip) if !bip.is_ipv4() => {
            return Err(NetworkError::Invalid(format!(
                "invalid bip: {bip} is not an IPv4 subnet"
            )));
        }
        Some(bip) if bip.address() == bip.network().address() && bip.length() < 31 => {
            let text =
                format!("invalid bip: {bip} has no host part; use an address of the network");
            return Err(NetworkError::Invalid(text));
        }
        Some(bip) => bip,
        None => unnamed_address(config, bridge, host, earlier, networks)?,
    };
    let subnet = address.network();
    if let Some(range) = config.fixed_cidr
        && !(subnet.contains(range.network().address()) && range.length() >= subnet.length())
    {
        let text = format!("fixed-cidr {range} is not a part of the bridge's subnet {subnet}");
        return Err(NetworkError::Invalid(text));
    }
    let router = config.default_gateway.map(IpAddr::V4);
    if router.is_some_and(|router| !subnet.contains(router)) {
        let text = "default gateway ip must be part of the network";
        return Err(NetworkError::Invalid(text.to_owned()));
    }
    Ok(Subnet {
        subnet,
        range: config
            .fixed_cidr
            .map(Prefix::network)
            .filter(|range| *range != subnet),
        gateway: address.address(),
        router,
        auxiliary: BTreeMap::new(),
    })
}

/// The bridge's address without `--bip`.
fn unnamed_address(
    config: &NetworkConfig,
    bridge: &str,
    host: &Host,
    earlier: Option<&NetworkDefinition>,
    networks: &[NetworkDefinition],
) -> Result<Prefix, NetworkError> {
    if let Some(address) = present_address(host, bridge)? {
        return Ok(address);
    }
    let mut used = used_prefixes(host, bridge)?;
    used.extend(subnets_of(networks.iter()));
    let before = earlier
        .and_then(|one| one.ipv4.as_ref())
        .map(|subnet| subnet.subnet);
    let before = before.filter(|subnet| !used.iter().any(|used| used.overlaps(*subnet)));
    let chosen = config.fixed_cidr.map(Prefix::network).or(before);
    let chosen = chosen.or_else(|| skep_allocator::choose(&pools_of(config), &used, true));
    first_host(chosen.ok_or(NetworkError::NoFreePool)?)
}

/// `--fixed-cidr-v6`, else what it had before, else a free pool, else a random local subnet.
fn bridge_subnet_v6(
    config: &NetworkConfig,
    bridge: &str,
    host: &Host,
    earlier: Option<&NetworkDefinition>,
    networks: &[NetworkDefinition],
) -> Result<Option<Subnet>, NetworkError> {
    if !config.ipv6 {
        return Ok(None);
    }
    if let Some(fixed) = config.fixed_cidr_v6
        && fixed.is_ipv4()
    {
        return Err(NetworkError::Invalid(format!(
            "invalid fixed-cidr-v6: '{fixed}' is not a valid IPv6 subnet"
        )));
    }
    let mut used = used_prefixes(host, bridge)?;
    used.extend(subnets_of(networks.iter()));
    let before = earlier
        .and_then(|one| one.ipv6.as_ref())
        .map(|subnet| subnet.subnet);
    let subnet = config.fixed_cidr_v6.map(Prefix::network).or(before);
    let subnet = subnet.or_else(|| skep_allocator::choose(&pools_of(config), &used, false));
    let subnet = subnet.unwrap_or_else(|| skep_allocator::unique_local(rand::random()));
    let gateway = first_host(subnet)?.address();
    Ok(Some(Subnet {
        subnet,
        range: None,
        gateway,
        router: None,
        auxiliary: BTreeMap::new(),
    }))
}

pub(crate) fn pools_of(config: &NetworkConfig) -> Vec<AddressPool> {
    if config.default_address_pools.is_empty() {
        skep_allocator::docker_pools()
    } else {
        config.default_address_pools.clone()
    }
}

fn first_host(subnet: Prefix) -> Result<Prefix, NetworkError> {
    let first = subnet
        .nth(1)
        .and_then(|address| Prefix::new(address, subnet.length()));
    first.ok_or_else(|| NetworkError::Invalid(format!("subnet {subnet} has no room for a gateway")))
}

/// The IPv4 address of a bridge that is there already.
fn present_address(host: &Host, bridge: &str) -> Result<Option<Prefix>, NetworkError> {
    host.with_route(|route| {
        let Some(link) = route.link(bridge)? else {
            return Ok(None);
        };
        let mut found = route.addresses()?.into_iter();
        let found = found.find(|one| one.link == link.index && one.address.is_ipv4());
        Ok(found.and_then(|one| Prefix::new(one.address, one.prefix)))
    })
}

/// What the host reaches already, other than through `bridge` itself.
pub(crate) fn used_prefixes(host: &Host, bridge: &str) -> Result<Vec<Prefix>, NetworkError> {
    let used = host.with_route(|route: &mut RouteSocket| {
        let own = route.link(bridge)?.map(|link| link.index);
        let routes = route.routes()?.into_iter();
        let routed = routes
            .filter(|one| one.destination.1 > 0 && (own.is_none() || one.link != own))
            .filter_map(|one| Prefix::new(one.destination.0, one.destination.1));
        let mut used: Vec<Prefix> = routed.collect();
        let addresses = route
            .addresses()?
            .into_iter()
            .filter(|one| Some(one.link) != own);
        used.extend(addresses.filter_map(|one| Prefix::new(one.address, one.prefix)));
        Ok::<_, skep_netlink::NetlinkError>(used)
    })?;
    Ok(used.into_iter().map(Prefix::network).collect())
}
