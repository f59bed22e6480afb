//! Published ports of one service against those of all others.

use std::collections::BTreeSet;

use skep_model::ext::{NetworkExt as _, NetworkSpecExt as _, ServiceExt as _, ServiceSpecExt as _};
use skep_proto as proto;
use skep_proto::port_config::PublishMode;
use skep_store::View;

use crate::error::{ControlError, Result};

/// Refuses ports that another service has. Several services may publish the same port in host mode:
/// the scheduler keeps them apart.
pub(super) fn check_conflicts(
    view: &View,
    spec: &proto::ServiceSpec,
    updated_service: Option<&str>,
) -> Result<()> {
    let wanted = |mode: PublishMode| -> BTreeSet<(i32, u32)> {
        ports(spec.endpoint.as_ref())
            .filter(|port| port.publish_mode() == mode && port.published_port != 0)
            .map(|port| (port.protocol, port.published_port))
            .collect()
    };
    let (ingress, host) = (wanted(PublishMode::Ingress), wanted(PublishMode::Host));
    if ingress.is_empty() && host.is_empty() {
        return Ok(());
    }
    for service in view
        .services()
        .filter(|service| Some(service.id.as_str()) != updated_service)
    {
        let allocated = service.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        for port in ports(service.spec().endpoint.as_ref()).chain(allocated) {
            let key = (port.protocol, port.published_port);
            let taken_as = match port.publish_mode() {
                PublishMode::Host if ingress.contains(&key) => "a host-published port",
                PublishMode::Ingress if ingress.contains(&key) || host.contains(&key) => {
                    "an ingress port"
                }
                _ => continue,
            };
            return Err(ControlError::invalid(format!(
                "port '{}' is already in use by service '{}' ({}) as {taken_as}",
                port.published_port,
                service.spec().annotations().name,
                service.id
            )));
        }
    }
    Ok(())
}

fn ports(endpoint: Option<&proto::EndpointSpec>) -> impl Iterator<Item = &proto::PortConfig> {
    endpoint.into_iter().flat_map(|endpoint| &endpoint.ports)
}

/// Refuses ports on the routing mesh where there is none.
pub(super) fn check_ingress(view: &View, spec: &proto::ServiceSpec) -> Result<()> {
    let needed =
        ports(spec.endpoint.as_ref()).any(|port| port.publish_mode() == PublishMode::Ingress);
    if !needed || view.networks().any(|network| is_ingress(network)) {
        return Ok(());
    }
    Err(ControlError::precondition(
        "service needs ingress network, but no ingress network is present",
    ))
}

/// The routing mesh's network; very old clusters mark it by label and name.
pub(super) fn is_ingress(network: &proto::Network) -> bool {
    let annotations = network.spec().annotations();
    network.spec().ingress
        || (annotations.name == "ingress"
            && annotations.labels.contains_key("com.docker.swarm.internal"))
}

/// A service's endpoint as far as it needs no routing mesh: the ports that nodes publish themselves.
pub(super) fn endpoint(spec: &proto::ServiceSpec) -> Option<proto::Endpoint> {
    let endpoint = spec.endpoint.clone()?;
    let host = |port: &&proto::PortConfig| port.publish_mode() == PublishMode::Host;
    Some(proto::Endpoint {
        ports: endpoint.ports.iter().filter(host).cloned().collect(),
        spec: Some(endpoint),
        virtual_ips: Vec::new(),
    })
}
