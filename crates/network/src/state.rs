//! What is known in memory: networks with their addresses, containers with their endpoints.

use skep_allocator::{AddressSet, Unavailable};
use skep_proto::feed;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::definition::{Driver, NetworkDefinition, Subnet};
use crate::firewall::PortRule;
use crate::ports::PortTable;
use crate::publish::Publication;
use crate::sandbox::SandboxRecord;
use crate::{NetworkError, NetworkSummary, OverlayNetwork, SwarmNode};

/// A network and which of its addresses are taken.
#[derive(Debug)]
pub(crate) struct ActiveNetwork {
    pub(crate) definition: NetworkDefinition,
    pub(crate) ipv4: Option<AddressSet>,
    pub(crate) ipv6: Option<AddressSet>,
    /// Index of the bridge; `None` if it could not be made (the reason was reported).
    pub(crate) bridge: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// By id.
    pub(crate) networks: BTreeMap<String, ActiveNetwork>,
    /// By container id.
    pub(crate) sandboxes: HashMap<String, SandboxRecord>,
    pub(crate) ports: PortTable,
    /// By endpoint id.
    pub(crate) publications: HashMap<String, Vec<Publication>>,
    /// What the managers say of the swarm's networks, by id.
    pub(crate) feed: BTreeMap<String, feed::NetworkState>,
    /// The feed has spoken since the daemon started. Until then what an earlier daemon made goes on.
    pub(crate) told: bool,
    /// Overlays made for a task whose container is not on them yet, and that the feed has not named.
    pub(crate) awaited: BTreeSet<String>,
    /// `None`: not in a swarm, as far as is known.
    pub(crate) swarm_node: Option<SwarmNode>,
}

impl ActiveNetwork {
    pub(crate) fn new(definition: NetworkDefinition, bridge: Option<u32>) -> Self {
        let ipv4 = definition.ipv4.as_ref().map(Subnet::addresses);
        let ipv6 = definition.ipv6.as_ref().map(Subnet::addresses);
        Self {
            definition,
            ipv4,
            ipv6,
            bridge,
        }
    }

    /// Takes an address of one family: the one asked for, or any.
    pub(crate) fn allocate(
        &mut self,
        wanted: Option<IpAddr>,
        ipv4: bool,
    ) -> Result<Option<IpAddr>, NetworkError> {
        let name = format!("{} ({})", self.definition.name, self.definition.id);
        let set = if ipv4 { &mut self.ipv4 } else { &mut self.ipv6 };
        let outside = |address: IpAddr| {
            let text = "invalid endpoint settings:\nno configured subnet contains IP address";
            NetworkError::Invalid(format!("{text} {address}"))
        };
        match (set, wanted) {
            (None, None) => Ok(None),
            (None, Some(address)) => Err(outside(address)),
            (Some(set), Some(address)) => match set.take(address) {
                Ok(()) => Ok(Some(address)),
                Err(Unavailable::Taken) => Err(NetworkError::AddressInUse(address)),
                Err(Unavailable::OutsideSubnet) => Err(outside(address)),
            },
            (Some(set), None) => {
                let version = if ipv4 { 4 } else { 6 };
                let exhausted = || NetworkError::PoolExhausted {
                    network: name,
                    version,
                };
                set.allocate().map(Some).ok_or_else(exhausted)
            }
        }
    }

    pub(crate) fn release(&mut self, address: IpAddr) {
        let set = if address.is_ipv4() {
            &mut self.ipv4
        } else {
            &mut self.ipv6
        };
        if let Some(set) = set {
            set.release(address);
        }
    }

    pub(crate) fn summary(&self) -> NetworkSummary {
        let definition = &self.definition;
        NetworkSummary {
            id: definition.id.clone(),
            name: definition.name.clone(),
            driver: definition.driver.as_str().to_owned(),
            user_defined: !definition.predefined,
            internal: definition.internal,
        }
    }
}

impl State {
    /// Docker's rule: full id, then full name, then a unique prefix of the id.
    pub(crate) fn resolve(&self, term: &str) -> Result<&ActiveNetwork, NetworkError> {
        let term = match term {
            "default" | "" => "bridge",
            "null" => "none",
            other => other,
        };
        if let Some(network) = self.networks.get(term) {
            return Ok(network);
        }
        let named: Vec<_> = self
            .networks
            .values()
            .filter(|network| network.definition.name == term)
            .collect();
        match named.as_slice() {
            [network] => return Ok(network),
            [] => {}
            several => return Err(NetworkError::AmbiguousName(term.to_owned(), several.len())),
        }
        let prefixed: Vec<_> = self
            .networks
            .values()
            .filter(|network| network.definition.id.starts_with(term))
            .collect();
        match prefixed.as_slice() {
            [network] => Ok(network),
            [] => Err(NetworkError::NotFound(term.to_owned())),
            several => Err(NetworkError::AmbiguousId(term.to_owned(), several.len())),
        }
    }

    pub(crate) fn network_mut(&mut self, id: &str) -> Option<&mut ActiveNetwork> {
        self.networks.get_mut(id)
    }

    pub(crate) fn definitions(&self) -> impl Iterator<Item = &NetworkDefinition> + Clone {
        self.networks.values().map(|network| &network.definition)
    }

    /// Bridges that exist.
    pub(crate) fn live_bridges(&self) -> impl Iterator<Item = &NetworkDefinition> + Clone {
        let live = self
            .networks
            .values()
            .filter(|network| network.bridge.is_some());
        live.map(|network| &network.definition)
            .filter(|found| found.driver == Driver::Bridge)
    }

    /// The mesh's network, if this node has one.
    pub(crate) fn mesh_network(&self) -> Option<&OverlayNetwork> {
        let (network, _) = self.swarm_node.as_ref()?.ingress.as_ref()?;
        Some(network)
    }

    pub(crate) fn port_rules(&self) -> Vec<PortRule> {
        self.publications
            .values()
            .flatten()
            .map(|publication| publication.rule.clone())
            .collect()
    }
}
