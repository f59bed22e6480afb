//! A network's subnets and VXLAN numbers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use skep_proto as proto;

use crate::{AddressSet, AllocationError, Allocator, Prefix, choose};

/// The lowest number SwarmKit gives out: those below are left to operators.
const FIRST_VNI: u32 = 4096;
const LAST_VNI: u32 = (1 << 24) - 1;
pub(crate) const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// One subnet of a network and who has what of it.
#[derive(Debug, Clone)]
pub(crate) struct SubnetAddresses {
    pub(crate) subnet: Prefix,
    pub(crate) addresses: AddressSet,
    /// The last address given out.
    pub(crate) last: Option<IpAddr>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkAddresses {
    pub(crate) name: String,
    pub(crate) subnets: Vec<SubnetAddresses>,
    pub(crate) vnis: BTreeSet<u32>,
}

/// The routing mesh's network; very old clusters mark it by label and name.
pub fn is_ingress(network: &proto::Network) -> bool {
    let Some(spec) = &network.spec else {
        return false;
    };
    spec.ingress
        || spec.annotations.as_ref().is_some_and(|annotations| {
            annotations.name == "ingress"
                && annotations.labels.contains_key("com.docker.swarm.internal")
        })
}

/// Whether it is the allocator's: others (`host`, `bridge`) are the nodes' own.
pub fn is_overlay(network: &proto::Network) -> bool {
    let Some(spec) = &network.spec else {
        return false;
    };
    let driver = spec
        .driver_config
        .as_ref()
        .map_or("", |driver| &driver.name);
    matches!(driver, "" | "overlay" | "default")
}

/// The ingress network a new swarm has.
pub fn ingress_spec() -> proto::NetworkSpec {
    proto::NetworkSpec {
        annotations: Some(proto::Annotations {
            name: "ingress".to_owned(),
            ..Default::default()
        }),
        driver_config: Some(proto::Driver::default()),
        ipam: Some(proto::IpamOptions {
            driver: Some(proto::Driver::default()),
            configs: Vec::new(),
        }),
        ingress: true,
        ..Default::default()
    }
}

fn name_of(network: &proto::Network) -> String {
    let annotations = network
        .spec
        .as_ref()
        .and_then(|spec| spec.annotations.as_ref());
    annotations.map_or_else(String::new, |annotations| annotations.name.clone())
}

fn parse<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, AllocationError> {
    text.parse().map_err(|_| AllocationError::Malformed {
        what,
        text: text.to_owned(),
    })
}

impl NetworkAddresses {
    /// What an allocated network says of itself.
    pub(crate) fn of(network: &proto::Network) -> Option<Self> {
        let state = network.driver_state.as_ref()?;
        let vnis = state.options.get(VNI_OPTION).map_or("", String::as_str);
        let mut subnets = Vec::new();
        for config in network.ipam.iter().flat_map(|ipam| &ipam.configs) {
            subnets.push(SubnetAddresses::of(config).ok()?);
        }
        Some(Self {
            name: name_of(network),
            subnets,
            vnis: vnis
                .split(',')
                .filter_map(|vni| vni.trim().parse().ok())
                .collect(),
        })
    }

    pub(crate) fn take(&mut self, address: IpAddr) {
        for subnet in &mut self.subnets {
            // One that two objects claim is held by both; the set keeps it once.
            let _ = subnet.addresses.take(address);
        }
    }

    pub(crate) fn release(&mut self, address: IpAddr) {
        for subnet in &mut self.subnets {
            subnet.addresses.release(address);
        }
    }

    /// The next free address, with the length of its subnet.
    pub(crate) fn allocate(&mut self) -> Result<Prefix, AllocationError> {
        for subnet in &mut self.subnets {
            if let Some(address) = subnet.addresses.allocate_after(subnet.last) {
                subnet.last = Some(address);
                return Ok(Prefix::new(address, subnet.subnet.length())
                    .expect("the address is of the subnet's family"));
            }
        }
        let size = self.subnets.iter().map(|one| one.addresses.size()).sum();
        let name = self.name.clone();
        Err(AllocationError::Exhausted { name, size })
    }

    /// A certain address.
    pub(crate) fn allocate_this(&mut self, address: IpAddr) -> Result<Prefix, AllocationError> {
        for subnet in &mut self.subnets {
            if subnet.subnet.contains(address) {
                return match subnet.addresses.take(address) {
                    Ok(()) => Ok(Prefix::new(address, subnet.subnet.length())
                        .expect("the subnet contains it")),
                    Err(_) => Err(AllocationError::Taken(address)),
                };
            }
        }
        Err(AllocationError::Taken(address))
    }
}

impl SubnetAddresses {
    fn of(config: &proto::IpamConfig) -> Result<Self, AllocationError> {
        let subnet: Prefix = parse("subnet", &config.subnet)?;
        let range = Some(config.range.as_str()).filter(|range| !range.is_empty());
        let range = range.map(|range| parse("ip-range", range)).transpose()?;
        let mut addresses = AddressSet::new(subnet, range);
        let gateway = Some(config.gateway.as_str()).filter(|gateway| !gateway.is_empty());
        for reserved in gateway
            .into_iter()
            .chain(config.reserved.values().map(String::as_str))
        {
            // Twice the same address is no harm here.
            let _ = addresses.take(parse("address", reserved)?);
        }
        Ok(Self {
            subnet: subnet.network(),
            addresses,
            last: None,
        })
    }
}

impl Allocator {
    /// The network with its subnets, gateways and VXLAN numbers.
    pub fn network(&mut self, network: &proto::Network) -> Result<proto::Network, AllocationError> {
        let mut allocated = network.clone();
        let spec = network.spec.clone().unwrap_or_default();
        let mut configs = spec.ipam.clone().unwrap_or_default().configs;
        configs.retain(|config| !config.subnet.is_empty() || !config.gateway.is_empty());
        if configs.is_empty() {
            configs.push(proto::IpamConfig::default());
        }
        let mut used: Vec<Prefix> = self.subnets().collect();
        for config in &mut configs {
            config.family = proto::ipam_config::AddressFamily::Ipv4.into();
            let subnet = if config.subnet.is_empty() {
                choose(&self.pools, &used, true).ok_or(AllocationError::NoPool)?
            } else {
                parse::<Prefix>("subnet", &config.subnet)?.network()
            };
            if used.iter().any(|other| other.overlaps(subnet)) {
                return Err(AllocationError::Overlaps(subnet));
            }
            used.push(subnet);
            config.subnet = subnet.to_string();
            if config.gateway.is_empty() {
                let mut fresh = SubnetAddresses::of(config)?;
                let first = fresh.addresses.allocate().ok_or(AllocationError::NoPool)?;
                config.gateway = first.to_string();
            }
            SubnetAddresses::of(config)?;
        }
        let mut driver = spec.driver_config.clone().unwrap_or_default();
        "overlay".clone_into(&mut driver.name);
        let vnis = self.vnis(&driver, configs.len())?;
        driver.options.insert(VNI_OPTION.to_owned(), vnis);
        allocated.driver_state = Some(driver);
        allocated.ipam = Some(proto::IpamOptions {
            driver: Some(proto::Driver {
                name: "default".to_owned(),
                options: spec
                    .ipam
                    .and_then(|ipam| ipam.driver)
                    .unwrap_or_default()
                    .options,
            }),
            configs,
        });
        self.observe_network(&allocated);
        Ok(allocated)
    }

    /// One number per subnet: those the user chose, or free ones.
    fn vnis(&self, driver: &proto::Driver, count: usize) -> Result<String, AllocationError> {
        let taken: BTreeSet<u32> = self
            .networks
            .values()
            .flat_map(|network| network.vnis.iter().copied())
            .collect();
        if let Some(wanted) = driver
            .options
            .get(VNI_OPTION)
            .filter(|text| !text.is_empty())
        {
            for text in wanted.split(',') {
                let vni: u32 = parse("VXLAN number", text.trim())?;
                if vni > LAST_VNI || taken.contains(&vni) {
                    return Err(AllocationError::NoVni);
                }
            }
            return Ok(wanted.clone());
        }
        let free = (FIRST_VNI..=LAST_VNI).filter(|vni| !taken.contains(vni));
        let chosen: Vec<String> = free.take(count).map(|vni| vni.to_string()).collect();
        if chosen.len() < count {
            return Err(AllocationError::NoVni);
        }
        Ok(chosen.join(","))
    }
}
