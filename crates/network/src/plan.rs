//! What an endpoint will be, before anything is made.

use std::net::IpAddr;

use crate::definition::{Driver, NetworkDefinition, Subnet};
use crate::sandbox::EndpointRecord;
use crate::state::State;
use crate::{Endpoint, EndpointRequest, MacAddress, NetworkError};

/// What the request may not ask of this network.
pub(crate) fn check(
    request: &EndpointRequest,
    definition: &NetworkDefinition,
) -> Result<(), NetworkError> {
    let mut problems = Vec::new();
    if definition.predefined && (request.ipv4.is_some() || request.ipv6.is_some()) {
        problems.push("user-specified IP address is supported on user-defined networks only");
    }
    if definition.predefined && !request.aliases.is_empty() {
        problems.push("network-scoped aliases are only supported for user-defined networks");
    }
    if !problems.is_empty() {
        let text = format!("invalid endpoint settings:\n{}", problems.join("\n"));
        return Err(NetworkError::Invalid(text));
    }
    crate::options::check(&request.driver_options)?;
    for port in &request.ports {
        if port.host_ports.0 > port.host_ports.1 || port.container_port == 0 {
            let (first, last) = port.host_ports;
            let text = format!(
                "invalid port specification: {first}-{last}:{}",
                port.container_port
            );
            return Err(NetworkError::Invalid(text));
        }
    }
    Ok(())
}

/// `host` and `none` exclude every other network; no network twice; no name twice.
pub(crate) fn check_modes(
    state: &State,
    container_id: &str,
    request: &EndpointRequest,
    definition: &NetworkDefinition,
) -> Result<(), NetworkError> {
    if let Some(sandbox) = state.sandboxes.get(container_id) {
        if sandbox.endpoint(&definition.id).is_some() {
            return Err(NetworkError::EndpointExists {
                container: request.container_name.clone(),
                network: definition.name.clone(),
            });
        }
        let exclusive = |name: &str| name == "host" || name == "none";
        let has = |record: &EndpointRecord| exclusive(&record.endpoint.network_name);
        if exclusive(&definition.name) && !sandbox.endpoints.is_empty()
            || sandbox.endpoints.iter().any(has)
        {
            let text = match definition.driver {
                Driver::Host => {
                    "container cannot be disconnected from host network or connected to host network"
                }
                _ => {
                    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                }
            };
            return Err(NetworkError::Forbidden(text.to_owned()));
        }
    }
    Ok(())
}

pub(crate) fn make_endpoint(
    id: String,
    definition: &NetworkDefinition,
    request: &EndpointRequest,
    interface: String,
    (ipv4, ipv6): (Option<IpAddr>, Option<IpAddr>),
) -> Endpoint {
    let v4 = |address: IpAddr| {
        if let IpAddr::V4(v4) = address {
            Some(v4)
        } else {
            None
        }
    };
    let v6 = |address: IpAddr| {
        if let IpAddr::V6(v6) = address {
            Some(v6)
        } else {
            None
        }
    };
    let ipv4 = ipv4.and_then(v4);
    let ipv6 = ipv6.and_then(v6);
    let mac = request
        .mac
        .or_else(|| ipv4.map(MacAddress::for_ipv4))
        .or_else(|| ipv6.map(MacAddress::for_ipv6));
    let route = |subnet: &Option<Subnet>| {
        subnet
            .as_ref()
            // The way out of an overlay is another network's.
            .filter(|_| !definition.internal && definition.driver != Driver::Overlay)
            .map(Subnet::default_route)
    };
    let length =
        |subnet: &Option<Subnet>| subnet.as_ref().map_or(0, |subnet| subnet.subnet.length());
    Endpoint {
        id,
        network_id: definition.id.clone(),
        network_name: definition.name.clone(),
        container_name: request.container_name.clone(),
        interface,
        mac: mac.filter(|_| definition.driver.is_wired()),
        ipv4,
        ipv4_prefix: length(&definition.ipv4),
        gateway: route(&definition.ipv4).and_then(v4),
        ipv6,
        ipv6_prefix: length(&definition.ipv6),
        gateway6: route(&definition.ipv6).and_then(v6),
        ports: Vec::new(),
        aliases: request.aliases.clone(),
        links: request.links.clone(),
        gateway_priority: request.gateway_priority,
        driver_options: request.driver_options.clone(),
        requested_ipv4: request.ipv4,
        requested_ipv6: request.ipv6,
    }
}

/// 64 hex digits, as all of Docker's ids.
pub(crate) fn random_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}
