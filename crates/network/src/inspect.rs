//! Networks as the API shows them.

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models as m;

use crate::definition::{NetworkDefinition, Subnet};
use crate::state::{ActiveNetwork, State};

/// One network; with the containers attached to it, if wanted.
pub(crate) fn network(network: &ActiveNetwork, containers: Option<&State>) -> m::NetworkInspect {
    let definition = &network.definition;
    m::NetworkInspect {
        name: Some(definition.name.clone()),
        id: Some(definition.id.clone()),
        created: Some(definition.created.clone()),
        scope: Some(
            if definition.overlay.is_some() {
                "swarm"
            } else {
                "local"
            }
            .to_owned(),
        ),
        driver: Some(definition.driver.as_str().to_owned()),
        peers: containers.and_then(|state| peers(state, &definition.id)),
        enable_ipv4: Some(definition.ipv4.is_some() || definition.bridge.is_empty()),
        enable_ipv6: Some(definition.ipv6.is_some()),
        ipam: Some(ipam(definition)),
        internal: Some(definition.internal),
        attachable: Some(definition.attachable),
        ingress: Some(definition.overlay.as_ref().is_some_and(|one| one.ingress)),
        config_from: Some(m::ConfigReference {
            network: Some(String::new()),
        }),
        config_only: Some(false),
        options: Some(unsorted(&definition.options)),
        labels: Some(unsorted(&definition.labels)),
        containers: Some(
            containers
                .map(|state| attached(state, &definition.id))
                .unwrap_or_default(),
        ),
        ..Default::default()
    }
}

/// The nodes that have tasks on an overlay.
fn peers(state: &State, network_id: &str) -> Option<Vec<m::PeerInfo>> {
    let peers = state.feed.get(network_id)?.peers.iter();
    let peers = peers.map(|peer| m::PeerInfo {
        name: Some(peer.node_id.get(..12).unwrap_or(&peer.node_id).to_owned()),
        ip: Some(peer.address.clone()),
    });
    Some(peers.collect())
}

fn ipam(definition: &NetworkDefinition) -> m::Ipam {
    let options = &definition.ipam_options;
    m::Ipam {
        driver: Some("default".to_owned()),
        options: (!options.is_empty()).then(|| unsorted(options)),
        config: Some(definition.subnets().map(config).collect()),
    }
}

fn config(subnet: &Subnet) -> m::IpamConfig {
    let mut auxiliary: HashMap<String, String> = subnet
        .auxiliary
        .iter()
        .map(|(name, address)| (name.clone(), address.to_string()))
        .collect();
    if let Some(router) = subnet.router {
        auxiliary.insert("DefaultGatewayIPv4".to_owned(), router.to_string());
    }
    m::IpamConfig {
        subnet: Some(subnet.subnet.to_string()),
        ip_range: subnet.range.map(|range| range.to_string()),
        gateway: Some(subnet.gateway.to_string()),
        auxiliary_addresses: (!auxiliary.is_empty()).then_some(auxiliary),
    }
}

fn attached(state: &State, network_id: &str) -> HashMap<String, m::EndpointResource> {
    let attached = state.sandboxes.values().filter_map(|sandbox| {
        let endpoint = &sandbox.endpoint(network_id)?.endpoint;
        let with_prefix = |address: Option<String>, prefix: u8| {
            Some(
                address
                    .map(|address| format!("{address}/{prefix}"))
                    .unwrap_or_default(),
            )
        };
        let resource = m::EndpointResource {
            name: Some(endpoint.container_name.clone()),
            endpoint_id: Some(endpoint.id.clone()),
            mac_address: Some(endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default()),
            ipv4_address: with_prefix(endpoint.ipv4.map(|ip| ip.to_string()), endpoint.ipv4_prefix),
            ipv6_address: with_prefix(endpoint.ipv6.map(|ip| ip.to_string()), endpoint.ipv6_prefix),
        };
        Some((sandbox.container_id.clone(), resource))
    });
    attached.collect()
}

fn unsorted(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.clone().into_iter().collect()
}
