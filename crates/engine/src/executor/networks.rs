//! A task's networks: from SwarmKit's attachments to what the network crate makes of them.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard_stubs::models as m;
use skep_agent::ControllerError;
use skep_model::{Task, Timestamp};
use skep_network::{OverlayNetwork, SwarmNode};
use skep_proto as proto;

use crate::engine::Engine;

const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// What VXLAN adds to a packet.
const VXLAN_OVERHEAD: u32 = 50;
const UNDERLAY_MTU: u32 = 1500;
/// IANA's port for VXLAN.
const VXLAN_PORT: u16 = 4789;

/// The networks of a task, as a container asks for them, and the overlays that must be there first.
pub(super) struct TaskNetworks {
    pub(super) overlays: Vec<OverlayNetwork>,
    pub(super) endpoints: HashMap<String, m::EndpointSettings>,
    /// `host`, `none`, `bridge`, or the first overlay.
    pub(super) mode: Option<String>,
}

/// What the task's attachments come to. Without any it is on the default bridge.
pub(super) fn of_task(task: &Task) -> Result<TaskNetworks, String> {
    let mut networks = TaskNetworks {
        overlays: Vec::new(),
        endpoints: HashMap::new(),
        mode: None,
    };
    for attachment in &task.networks {
        let Some(network) = &attachment.network else {
            continue;
        };
        let name = name(network);
        if matches!(name, "host" | "bridge" | "none") {
            networks.mode = Some(name.to_owned());
            continue;
        }
        let overlay = overlay(network, VXLAN_PORT)?;
        let address = attachment.addresses.iter().find_map(|text| {
            let text = text.split('/').next()?;
            text.parse::<Ipv4Addr>().ok()
        });
        let address = address.ok_or_else(|| format!("network {name} gave the task no address"))?;
        let settings = m::EndpointSettings {
            ipam_config: Some(m::EndpointIpamConfig {
                ipv4_address: Some(address.to_string()),
                ..Default::default()
            }),
            aliases: (!attachment.aliases.is_empty()).then(|| attachment.aliases.clone()),
            driver_opts: (!attachment.driver_attachment_opts.is_empty()).then(|| {
                attachment
                    .driver_attachment_opts
                    .clone()
                    .into_iter()
                    .collect()
            }),
            ..Default::default()
        };
        networks.endpoints.insert(name.to_owned(), settings);
        // The mesh alone is not where the task lives: it has the default bridge's way out then.
        networks.mode.get_or_insert_with(|| name.to_owned());
        networks.overlays.push(overlay);
    }
    Ok(networks)
}

fn name(network: &proto::Network) -> &str {
    let spec = network.spec.as_ref();
    spec.and_then(|spec| spec.annotations.as_ref())
        .map_or("", |annotations| &annotations.name)
}

fn overlay(network: &proto::Network, port: u16) -> Result<OverlayNetwork, String> {
    let name = name(network);
    let lacks = |what: &str| format!("network {name} ({}) has no {what}", network.id);
    let spec = network.spec.clone().unwrap_or_default();
    let state = network.driver_state.clone().unwrap_or_default();
    if !matches!(state.name.as_str(), "overlay") {
        return Err(format!(
            "networks of driver {:?} are not supported",
            state.name
        ));
    }
    let options = state.options;
    if options.contains_key("encrypted") {
        return Err(format!(
            "network {name}: encrypted overlays are not supported yet"
        ));
    }
    let configs = network.ipam.as_ref().map_or(&[][..], |ipam| &ipam.configs);
    let [config] = configs else {
        return Err(format!(
            "network {name}: overlays with several subnets are not supported yet"
        ));
    };
    let vni = options
        .get(VNI_OPTION)
        .and_then(|text| text.split(',').next()?.trim().parse().ok());
    let created = network.meta.and_then(|meta| meta.created_at);
    let annotations = spec.annotations.clone().unwrap_or_default();
    Ok(OverlayNetwork {
        id: network.id.clone(),
        name: name.to_owned(),
        created: created
            .map(|at| Timestamp::from(at).to_string())
            .unwrap_or_default(),
        subnet: config.subnet.parse().map_err(|_| lacks("subnet"))?,
        gateway: config.gateway.parse().map_err(|_| lacks("gateway"))?,
        vni: vni.ok_or_else(|| lacks("VXLAN number"))?,
        port,
        mtu: options
            .get(MTU_OPTION)
            .and_then(|mtu| mtu.parse().ok())
            .unwrap_or(UNDERLAY_MTU - VXLAN_OVERHEAD),
        internal: spec.internal,
        attachable: spec.attachable,
        ingress: skep_allocator::is_ingress(network),
        options,
        labels: annotations.labels,
    })
}

/// This node as the managers see it. A mesh that cannot be understood is left out, and said.
pub(super) fn swarm_node(node: &proto::Node) -> SwarmNode {
    let port = u16::try_from(node.vxlan_udp_port)
        .ok()
        .filter(|port| *port != 0);
    let is_mesh = |one: &&proto::NetworkAttachment| {
        one.network.as_ref().is_some_and(skep_allocator::is_ingress)
    };
    let ingress = node
        .attachments
        .iter()
        .find(is_mesh)
        .and_then(|attachment| {
            let network = attachment.network.as_ref()?;
            let text = attachment.addresses.first()?.split('/').next()?;
            match overlay(network, port.unwrap_or(VXLAN_PORT)) {
                Ok(overlay) => Some((overlay, text.parse().ok()?)),
                Err(error) => {
                    tracing::error!(%error, "no routing mesh");
                    None
                }
            }
        });
    SwarmNode {
        id: node.id.clone(),
        ingress,
    }
}

/// Makes the overlays of a task before its container asks for them.
pub(super) async fn prepare(engine: &Engine, task: &Task) -> Result<(), ControllerError> {
    let networks = of_task(task).map_err(ControllerError::Fatal)?;
    for overlay in networks.overlays {
        let name = overlay.name.clone();
        engine
            .networks
            .ensure_overlay(overlay)
            .await
            .map_err(|error| ControllerError::fatal(format!("network {name}: {error}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, driver: &str) -> proto::Network {
        proto::Network {
            id: format!("id-of-{name}"),
            spec: Some(proto::NetworkSpec {
                annotations: Some(proto::Annotations {
                    name: name.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            driver_state: Some(proto::Driver {
                name: driver.to_owned(),
                options: [(VNI_OPTION.to_owned(), "4097".to_owned())].into(),
            }),
            ipam: Some(proto::IpamOptions {
                configs: vec![proto::IpamConfig {
                    subnet: "10.0.1.0/24".to_owned(),
                    gateway: "10.0.1.1".to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn task(networks: Vec<proto::Network>) -> Task {
        let attach = |network| proto::NetworkAttachment {
            network: Some(network),
            addresses: vec!["10.0.1.7/24".to_owned()],
            aliases: vec!["www".to_owned()],
            ..Default::default()
        };
        Task {
            networks: networks.into_iter().map(attach).collect(),
            ..Task::default()
        }
    }

    #[test]
    fn attachments_become_endpoints_with_their_addresses() {
        let networks = of_task(&task(vec![network("lab", "overlay")])).unwrap();
        let settings = &networks.endpoints["lab"];
        let address = settings
            .ipam_config
            .as_ref()
            .unwrap()
            .ipv4_address
            .as_deref();
        assert_eq!(address, Some("10.0.1.7"));
        assert_eq!(settings.aliases.as_deref(), Some(&["www".to_owned()][..]));
        assert_eq!(networks.overlays[0].vni, 4097);
        assert_eq!(networks.overlays[0].mtu, 1450);
        assert_eq!(networks.mode.as_deref(), Some("lab"));
    }

    #[test]
    fn the_nodes_own_networks_are_only_named() {
        let networks = of_task(&task(vec![network("host", "host")])).unwrap();
        assert_eq!(networks.mode.as_deref(), Some("host"));
        assert!(networks.overlays.is_empty() && networks.endpoints.is_empty());
        assert!(of_task(&task(vec![network("odd", "macvlan")])).is_err());
    }
}
