use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use skep_model::Task;
use skep_proto as proto;

use crate::network::NetworkAddresses;
use crate::ports::PortTable;
use crate::{AddressPool, Prefix, is_over};

/// Whoever has addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    Service(String),
    Task(String),
    Node(String),
}

/// Who has what.
#[derive(Debug, Clone)]
pub struct Allocator {
    pub(crate) pools: Vec<AddressPool>,
    /// By id; only those that are allocated.
    pub(crate) networks: BTreeMap<String, NetworkAddresses>,
    holders: BTreeMap<Holder, BTreeSet<(String, IpAddr)>>,
    pub(crate) ports: PortTable,
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new(&[], 0)
    }
}

impl Allocator {
    /// With the swarm's own pools, or SwarmKit's: pieces of /24 from 10.0.0.0/8.
    pub fn new(pools: &[String], size: u32) -> Self {
        let size = u8::try_from(size)
            .ok()
            .filter(|size| (1..=32).contains(size));
        let mut bases: Vec<Prefix> = pools.iter().filter_map(|pool| pool.parse().ok()).collect();
        if bases.is_empty() {
            bases.extend("10.0.0.0/8".parse::<Prefix>());
        }
        let pools = bases.into_iter().map(|base| AddressPool {
            base,
            size: size.unwrap_or(24).max(base.length()),
        });
        Self {
            pools: pools.collect(),
            networks: BTreeMap::new(),
            holders: BTreeMap::new(),
            ports: PortTable::default(),
        }
    }

    /// The subnets of all networks.
    pub fn subnets(&self) -> impl Iterator<Item = Prefix> {
        let networks = self.networks.values();
        networks.flat_map(|network| network.subnets.iter().map(|one| one.subnet))
    }

    /// How many addresses are taken, for tests of leaks.
    pub fn held(&self) -> usize {
        self.holders.values().map(BTreeSet::len).sum()
    }

    /// Takes in what a network has. Observe networks before whoever is on them.
    pub fn observe_network(&mut self, network: &proto::Network) {
        let Some(mut fresh) = NetworkAddresses::of(network) else {
            return;
        };
        if let Some(known) = self.networks.get(&network.id) {
            let same = known.subnets.iter().map(|one| one.subnet);
            if same.eq(fresh.subnets.iter().map(|one| one.subnet)) {
                return;
            }
        }
        for (id, address) in self.holders.values().flatten() {
            if *id == network.id {
                fresh.take(*address);
            }
        }
        self.networks.insert(network.id.clone(), fresh);
    }

    pub fn forget_network(&mut self, id: &str) {
        self.networks.remove(id);
    }

    pub fn observe_service(&mut self, service: &proto::Service) {
        self.hold_service(service, &service.endpoint.clone().unwrap_or_default());
    }

    pub fn observe_task(&mut self, task: &Task) {
        let networks = if is_over(task) {
            &[][..]
        } else {
            &task.networks
        };
        self.hold(Holder::Task(task.id.to_string()), networks);
    }

    pub fn observe_node(&mut self, node: &proto::Node) {
        self.hold(Holder::Node(node.id.clone()), &node.attachments);
    }

    /// Frees all that somebody has who is gone.
    pub fn forget(&mut self, holder: &Holder) {
        if let Holder::Service(id) = holder {
            self.ports.release(id);
        }
        self.hold(holder.clone(), &[]);
    }

    pub(crate) fn hold(&mut self, holder: Holder, attachments: &[proto::NetworkAttachment]) {
        let mut addresses = Vec::new();
        for attachment in attachments {
            if let Some(network) = &attachment.network {
                let of_network = attachment.addresses.iter();
                addresses.extend(of_network.map(|text| (network.id.clone(), text.clone())));
            }
        }
        self.hold_addresses(holder, &addresses);
    }

    /// Replaces what somebody holds.
    pub(crate) fn hold_addresses(&mut self, holder: Holder, addresses: &[(String, String)]) {
        let mut now = BTreeSet::new();
        for (network, text) in addresses {
            let parsed = parse_addresses(std::slice::from_ref(text));
            now.extend(parsed.map(|address| (network.clone(), address)));
        }
        let before = self.holders.remove(&holder).unwrap_or_default();
        for (network, address) in now.difference(&before) {
            if let Some(addresses) = self.networks.get_mut(network) {
                addresses.take(*address);
            }
        }
        for (network, address) in before.difference(&now) {
            if let Some(addresses) = self.networks.get_mut(network) {
                addresses.release(*address);
            }
        }
        if !now.is_empty() {
            self.holders.insert(holder, now);
        }
    }
}

/// `10.0.1.2/24` and `10.0.1.2` alike.
pub(crate) fn parse_addresses(texts: &[String]) -> impl Iterator<Item = IpAddr> {
    texts
        .iter()
        .filter_map(|text| text.split('/').next()?.parse().ok())
}
