//! Endpoints, ports, attachments and the swarm's networks.

use bollard_stubs::models as m;
use skep_proto::{self as p, endpoint_spec, network_spec, port_config};

use super::super::types as t;
use super::{date, driver, meta, names, number, word};

pub(crate) fn network_config(config: &p::NetworkAttachmentConfig) -> t::NetworkAttachmentConfig {
    t::NetworkAttachmentConfig {
        target: config.target.clone(),
        aliases: config.aliases.clone(),
        driver_opts: config.driver_attachment_opts.clone(),
    }
}

pub(crate) fn network_config_to(config: &t::NetworkAttachmentConfig) -> p::NetworkAttachmentConfig {
    p::NetworkAttachmentConfig {
        target: config.target.clone(),
        aliases: config.aliases.clone(),
        addresses: Vec::new(),
        driver_attachment_opts: config.driver_opts.clone(),
    }
}

pub(crate) fn network_attachment(attachment: &p::NetworkAttachment) -> t::NetworkAttachment {
    t::NetworkAttachment {
        network: attachment.network.as_ref().map(network).unwrap_or_default(),
        addresses: attachment.addresses.clone(),
    }
}

fn network(network: &p::Network) -> t::Network {
    let empty = p::NetworkSpec::default();
    let spec = network.spec.as_ref().unwrap_or(&empty);
    let (name, labels) = names(spec.annotations.as_ref());
    t::Network {
        id: network.id.clone(),
        meta: meta(network.meta.as_ref()),
        spec: t::NetworkSpec {
            name,
            labels,
            driver_configuration: spec.driver_config.as_ref().map(driver),
            ipv6_enabled: spec.ipv6_enabled,
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: is_ingress(network),
            ipam_options: spec.ipam.as_ref().map(ipam),
            config_from: config_from(spec).map(|network| t::ConfigFrom { network }),
            scope: "swarm".to_owned(),
        },
        driver_state: network
            .driver_state
            .as_ref()
            .map(driver)
            .unwrap_or_default(),
        ipam_options: network.ipam.as_ref().map(ipam),
    }
}

fn config_from(spec: &p::NetworkSpec) -> Option<String> {
    match &spec.config_from {
        Some(network_spec::ConfigFrom::Network(network)) if !network.is_empty() => {
            Some(network.clone())
        }
        _ => None,
    }
}

fn ipam(ipam: &p::IpamOptions) -> t::IpamOptions {
    t::IpamOptions {
        driver: ipam.driver.as_ref().map(driver).unwrap_or_default(),
        configs: ipam
            .configs
            .iter()
            .map(|config| t::IpamConfig {
                subnet: config.subnet.clone(),
                range: config.range.clone(),
                gateway: config.gateway.clone(),
            })
            .collect(),
    }
}

/// The ingress network, also as swarms before 17.05 marked it.
pub(crate) fn is_ingress(network: &p::Network) -> bool {
    let Some(spec) = &network.spec else {
        return false;
    };
    let (name, labels) = names(spec.annotations.as_ref());
    spec.ingress || (name == "ingress" && labels.contains_key("com.docker.swarm.internal"))
}

/// The swarm's network as `docker network inspect` shows one.
pub(crate) fn network_inspect(network: &p::Network) -> m::NetworkInspect {
    let empty = p::NetworkSpec::default();
    let spec = network.spec.as_ref().unwrap_or(&empty);
    let (name, labels) = names(spec.annotations.as_ref());
    let options = |driver: Option<&p::Driver>| {
        driver
            .map(|driver| driver.options.clone().into_iter().collect())
            .filter(|o: &std::collections::HashMap<_, _>| !o.is_empty())
    };
    let config = |config: &p::IpamConfig| m::IpamConfig {
        subnet: Some(config.subnet.clone()),
        ip_range: Some(config.range.clone()).filter(|range| !range.is_empty()),
        gateway: Some(config.gateway.clone()).filter(|gateway| !gateway.is_empty()),
        auxiliary_addresses: (!config.reserved.is_empty())
            .then(|| config.reserved.clone().into_iter().collect()),
    };
    m::NetworkInspect {
        name: Some(name),
        id: Some(network.id.clone()),
        created: Some(date(network.meta.as_ref().and_then(|meta| meta.created_at))),
        scope: Some("swarm".to_owned()),
        driver: network
            .driver_state
            .as_ref()
            .map(|driver| driver.name.clone()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(spec.ipv6_enabled),
        ipam: Some(m::Ipam {
            driver: network
                .ipam
                .as_ref()
                .and_then(|ipam| ipam.driver.as_ref())
                .map(|driver| driver.name.clone()),
            config: network
                .ipam
                .as_ref()
                .map(|ipam| ipam.configs.iter().map(config).collect()),
            options: options(network.ipam.as_ref().and_then(|ipam| ipam.driver.as_ref())),
        }),
        internal: Some(spec.internal),
        attachable: Some(spec.attachable),
        ingress: Some(is_ingress(network)),
        config_from: Some(m::ConfigReference {
            network: Some(config_from(spec).unwrap_or_default()),
        }),
        config_only: Some(false),
        options: options(network.driver_state.as_ref()),
        labels: Some(labels.into_iter().collect()),
        ..m::NetworkInspect::default()
    }
}

pub(crate) fn port(port: &p::PortConfig) -> t::PortConfig {
    t::PortConfig {
        name: port.name.clone(),
        protocol: word!(port_config::Protocol, port.protocol),
        target_port: port.target_port,
        published_port: port.published_port,
        publish_mode: word!(port_config::PublishMode, port.publish_mode),
    }
}

fn port_to(port: &t::PortConfig) -> p::PortConfig {
    p::PortConfig {
        name: port.name.clone(),
        // As in moby, an unknown word is the first one: tcp, ingress.
        protocol: number!(port_config::Protocol, port.protocol).unwrap_or_default(),
        target_port: port.target_port,
        published_port: port.published_port,
        publish_mode: number!(port_config::PublishMode, port.publish_mode).unwrap_or_default(),
    }
}

pub(crate) fn endpoint_spec(spec: &p::EndpointSpec) -> t::EndpointSpec {
    t::EndpointSpec {
        mode: word!(endpoint_spec::ResolutionMode, spec.mode),
        ports: spec.ports.iter().map(port).collect(),
    }
}

pub(crate) fn endpoint_spec_to(spec: &t::EndpointSpec) -> Result<p::EndpointSpec, String> {
    let mode = match spec.mode.as_str() {
        "" | "vip" => endpoint_spec::ResolutionMode::Vip,
        "dnsrr" => endpoint_spec::ResolutionMode::Dnsrr,
        other => return Err(format!("invalid resolution mode: {other:?}")),
    };
    Ok(p::EndpointSpec {
        mode: mode.into(),
        ports: spec.ports.iter().map(port_to).collect(),
    })
}

pub(crate) fn endpoint(endpoint: &p::Endpoint) -> t::Endpoint {
    t::Endpoint {
        spec: endpoint
            .spec
            .as_ref()
            .map(endpoint_spec)
            .unwrap_or_default(),
        ports: endpoint.ports.iter().map(port).collect(),
        virtual_ips: endpoint
            .virtual_ips
            .iter()
            .map(|vip| t::VirtualIp {
                network_id: vip.network_id.clone(),
                addr: vip.addr.clone(),
            })
            .collect(),
    }
}

/// What `docker network create --driver overlay` asks for.
pub(crate) fn network_spec_to(request: &m::NetworkCreateRequest) -> p::NetworkSpec {
    let texts = |map: &Option<std::collections::HashMap<String, String>>| -> t::Texts {
        map.clone().unwrap_or_default().into_iter().collect()
    };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    p::NetworkSpec {
        annotations: Some(super::annotations(&request.name, &texts(&request.labels))),
        driver_config: Some(p::Driver {
            name: text(&request.driver),
            options: texts(&request.options),
        }),
        ipv6_enabled: request.enable_ipv6.unwrap_or_default(),
        internal: request.internal.unwrap_or_default(),
        ipam: request.ipam.as_ref().map(|ipam| p::IpamOptions {
            driver: Some(p::Driver {
                name: Some(text(&ipam.driver))
                    .filter(|name| !name.is_empty())
                    .unwrap_or_else(|| "default".to_owned()),
                options: texts(&ipam.options),
            }),
            configs: ipam
                .config
                .iter()
                .flatten()
                .map(|config| p::IpamConfig {
                    subnet: text(&config.subnet),
                    range: text(&config.ip_range),
                    gateway: text(&config.gateway),
                    ..Default::default()
                })
                .collect(),
        }),
        attachable: request.attachable.unwrap_or_default(),
        ingress: request.ingress.unwrap_or_default(),
        config_from: request
            .config_from
            .as_ref()
            .and_then(|from| from.network.clone())
            .map(network_spec::ConfigFrom::Network),
    }
}
