//! Networks of the swarm. Making them is not built yet.

use std::sync::Arc;

use skep_model::ext::{NetworkExt as _, NetworkSpecExt as _};
use skep_model::{NetworkId, StoreObject as _, TaskState};
use skep_proto as proto;
use skep_store::View;

use super::filter::common;
use super::ports::is_ingress;
use super::{Control, validate};
use crate::error::{Code, ControlError, Result};

/// Marks the networks that every swarm has, such as the nodes' own `host` and `bridge`.
const PREDEFINED: &str = "com.docker.swarm.predefined";

impl Control {
    /// Checks the request as SwarmKit does, and then refuses it: overlay networks are not built yet.
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
        Err(ControlError::unimplemented(
            "swarm networks are not implemented yet",
        ))
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
