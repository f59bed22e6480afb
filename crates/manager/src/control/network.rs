//! Networks of the swarm. What they are is decided here; what the nodes make of them reaches one node
//! so far.

use std::sync::Arc;

use skep_allocator::Prefix;
use skep_model::ext::{NetworkExt as _, NetworkSpecExt as _};
use skep_model::{NetworkId, StoreObject as _, TaskState};
use skep_proto as proto;
use skep_store::{StoreError, View};

use super::filter::common;
use super::ports::is_ingress;
use super::{Control, validate};
use crate::error::{Code, ControlError, Result};

/// Marks the networks that every swarm has, such as the nodes' own `host` and `bridge`.
const PREDEFINED: &str = "com.docker.swarm.predefined";

impl Control {
    /// Enters the network; the leader's allocator gives it its subnet.
    pub async fn create_network(
        &self,
        request: proto::CreateNetworkRequest,
    ) -> Result<proto::CreateNetworkResponse> {
        let spec = request.spec.ok_or_else(ControlError::incomplete)?;
        if spec.attachable && spec.ingress {
            return Err(ControlError::invalid(
                "ingress network cannot be attachable",
            ));
        }
        validate::annotations(spec.annotations())?;
        if spec.annotations().labels.contains_key(PREDEFINED) {
            return Err(ControlError::new(
                Code::PermissionDenied,
                format!(
                    "label {PREDEFINED} is for internally created predefined networks and cannot \
                     be applied by users"
                ),
            ));
        }
        check_driver(&spec)?;
        check_subnets(&spec)?;
        let name = spec.annotations().name.clone();
        let network = proto::Network {
            id: NetworkId::random().to_string(),
            spec: Some(spec),
            ..proto::Network::default()
        };
        let created = self
            .store
            .update(|tx| {
                check_room(tx, &network)?;
                tx.create(network).map_err(|error| match error {
                    StoreError::NameConflict => ControlError::new(
                        Code::AlreadyExists,
                        format!("network with name {name} already exists"),
                    ),
                    error => error.into(),
                })
            })
            .await?;
        Ok(proto::CreateNetworkResponse {
            network: Some((*created).clone()),
        })
    }

    pub fn get_network(
        &self,
        request: &proto::GetNetworkRequest,
    ) -> Result<proto::GetNetworkResponse> {
        let id = &request.network_id;
        if id.is_empty() {
            return Err(ControlError::incomplete());
        }
        let snapshot = self.store.snapshot();
        let network = snapshot
            .get::<proto::Network>(id)
            .ok_or_else(|| not_found(id))?;
        Ok(proto::GetNetworkResponse {
            network: Some((**network).clone()),
        })
    }

    pub fn list_networks(
        &self,
        request: &proto::ListNetworksRequest,
    ) -> proto::ListNetworksResponse {
        let filters = request.filters.clone().unwrap_or_default();
        let common = common!(filters);
        let matches = |network: &&Arc<proto::Network>| {
            common.holds(
                &network.id,
                network.name(),
                &network.spec().annotations().labels,
            )
        };
        let snapshot = self.store.snapshot();
        let networks = snapshot
            .networks()
            .filter(matches)
            .map(|n| (**n).clone())
            .collect();
        proto::ListNetworksResponse { networks }
    }

    pub async fn remove_network(
        &self,
        request: proto::RemoveNetworkRequest,
    ) -> Result<proto::RemoveNetworkResponse> {
        let id = request.network_id;
        if id.is_empty() {
            return Err(ControlError::incomplete());
        }
        self.store
            .update(|tx| {
                check_removal(tx, &id)?;
                tx.delete::<proto::Network>(&id).map_err(ControlError::from)
            })
            .await?;
        Ok(proto::RemoveNetworkResponse {})
    }
}

fn check_driver(spec: &proto::NetworkSpec) -> Result<()> {
    let driver = spec
        .driver_config
        .as_ref()
        .map_or("", |driver| &driver.name);
    if !matches!(driver, "" | "overlay") {
        return Err(ControlError::invalid(format!(
            "could not find plugin {driver} in v1 plugin registry: plugin not found"
        )));
    }
    if spec.ipv6_enabled {
        return Err(ControlError::unimplemented(
            "overlay networks with IPv6 are not supported yet",
        ));
    }
    if matches!(&spec.config_from, Some(proto::network_spec::ConfigFrom::Network(name)) if !name.is_empty())
    {
        return Err(ControlError::unimplemented(
            "configuration networks are not supported yet",
        ));
    }
    let mut options = spec.driver_config.iter().flat_map(|driver| &driver.options);
    let unknown = options.find(|(option, _)| {
        !matches!(
            option.as_str(),
            "com.docker.network.driver.mtu" | "com.docker.network.driver.overlay.vxlanid_list"
        )
    });
    unknown.map_or(Ok(()), |(option, _)| {
        Err(ControlError::unimplemented(format!(
            "option {option} of overlay networks is not supported yet"
        )))
    })
}

fn subnets(spec: &proto::NetworkSpec) -> impl Iterator<Item = &proto::IpamConfig> {
    spec.ipam.iter().flat_map(|ipam| &ipam.configs)
}

fn check_subnets(spec: &proto::NetworkSpec) -> Result<()> {
    for config in subnets(spec).filter(|config| !config.subnet.is_empty()) {
        let invalid = || {
            ControlError::invalid(format!(
                "ipam configuration: invalid subnet {}",
                config.subnet
            ))
        };
        let subnet: Prefix = config.subnet.parse().map_err(|_| invalid())?;
        if !subnet.is_ipv4() {
            return Err(invalid());
        }
        if !config.gateway.is_empty() {
            let gateway = config.gateway.parse().ok();
            if gateway.is_none_or(|gateway| !subnet.contains(gateway)) {
                return Err(ControlError::invalid(format!(
                    "ipam configuration: gateway {} is not in subnet {}",
                    config.gateway, config.subnet
                )));
            }
        }
    }
    Ok(())
}

/// What the allocator would have to refuse when nobody waits for its answer any more.
fn check_room(view: &View, network: &proto::Network) -> Result<()> {
    if network.spec().ingress
        && let Some(other) = view.networks().find(|other| is_ingress(other))
    {
        return Err(ControlError::new(
            Code::AlreadyExists,
            format!("ingress network ({}) is already present", other.id),
        ));
    }
    let parse = |config: &proto::IpamConfig| config.subnet.parse::<Prefix>().ok();
    let taken: Vec<Prefix> = view
        .networks()
        .flat_map(|other| other.ipam.iter().flat_map(|ipam| &ipam.configs))
        .filter_map(parse)
        .collect();
    for wanted in subnets(network.spec()).filter_map(parse) {
        if taken.iter().any(|other| other.overlaps(wanted)) {
            return Err(ControlError::invalid(
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
    }
    Ok(())
}

fn not_found(id: &str) -> ControlError {
    ControlError::not_found(format!("network {id} not found"))
}

fn check_removal(view: &View, id: &str) -> Result<()> {
    let network = view
        .get::<proto::Network>(id)
        .ok_or_else(|| not_found(id))?;
    let annotations = network.spec().annotations();
    if annotations
        .labels
        .get(PREDEFINED)
        .is_some_and(|value| value == "true")
    {
        return Err(ControlError::precondition(format!(
            "network {id} ({}) is a swarm predefined network and cannot be removed",
            annotations.name
        )));
    }
    if is_ingress(network) {
        let service = view.services().find(|service| needs_ingress(service));
        return service.map_or(Ok(()), |service| {
            Err(ControlError::precondition(format!(
                "ingress network cannot be removed because service {} depends on it",
                service.id
            )))
        });
    }
    let network_id = NetworkId::from(id);
    if let Some(service) = view.services_on_network(&network_id).next() {
        let message = format!("network {id} is in use by service {}", service.id);
        return Err(ControlError::precondition(message));
    }
    let mut tasks = view.tasks_on_network(&network_id);
    let in_use = tasks.find(|task| {
        task.desired_state <= TaskState::Running && task.status.state <= TaskState::Running
    });
    in_use.map_or(Ok(()), |task| {
        Err(ControlError::precondition(format!(
            "network {id} is in use by task {}",
            task.id
        )))
    })
}

fn needs_ingress(service: &proto::Service) -> bool {
    let endpoint = service
        .spec
        .as_ref()
        .and_then(|spec| spec.endpoint.as_ref());
    endpoint.is_some_and(|endpoint| {
        endpoint
            .ports
            .iter()
            .any(|port| port.publish_mode() == proto::port_config::PublishMode::Ingress)
    })
}
