//! `docker network`, over the network crate.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models as m;
use skep_network::GATEWAY_BRIDGE;

use crate::engine::{Engine, to_its_end};
use crate::error::{EngineError, Result};
use crate::etc_files;
use crate::filters::Filters;

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
const PREDEFINED: &[&str] = &["bridge", "host", "none"];

impl Engine {
    pub(crate) fn network_event(&self, action: &str, id: &str, name: &str, container: &str) {
        let mut attributes = HashMap::from([("name".to_owned(), name.to_owned())]);
        let driver = self
            .networks
            .resolve(id)
            .map(|network| network.driver)
            .unwrap_or_default();
        attributes.insert("type".to_owned(), driver);
        if !container.is_empty() {
            attributes.insert("container".to_owned(), container.to_owned());
        }
        self.events
            .publish_local(m::EventMessageTypeEnum::NETWORK, action, id, attributes);
    }

    /// Lists this node's networks.
    pub async fn list_networks(&self, filters: Filters) -> Result<Vec<m::NetworkInspect>> {
        filters.check(FILTERS)?;
        let dangling = filters.boolean("dangling")?;
        for typ in filters.get("type") {
            if !matches!(typ, "custom" | "builtin") {
                return Err(EngineError::invalid(format!(
                    "invalid filter: 'type'='{typ}'"
                )));
            }
        }
        let mut networks = self.networks.list();
        networks.retain(|network| {
            let name = network.name.as_deref().unwrap_or_default();
            let labels = network.labels.clone().unwrap_or_default();
            let used = network
                .containers
                .as_ref()
                .is_some_and(|containers| !containers.is_empty());
            let builtin = PREDEFINED.contains(&name);
            filters.any("name", |wanted| name.contains(wanted))
                && filters.any("id", |wanted| {
                    network.id.as_deref().unwrap_or_default().contains(wanted)
                })
                && filters.any("driver", |wanted| network.driver.as_deref() == Some(wanted))
                && filters.any("scope", |wanted| network.scope.as_deref() == Some(wanted))
                && filters.any("type", |wanted| (wanted == "builtin") == builtin)
                && filters.labels("label", &labels)
                && dangling.is_none_or(|dangling| dangling != (used || builtin))
        });
        // The list does not tell who is connected.
        for network in &mut networks {
            network.containers = Some(HashMap::new());
        }
        Ok(networks)
    }

    /// One network with its containers.
    pub async fn inspect_network(&self, id: &str) -> Result<m::NetworkInspect> {
        Ok(self.networks.inspect(id)?)
    }

    /// Makes a network.
    pub async fn create_network(
        &self,
        request: m::NetworkCreateRequest,
    ) -> Result<m::NetworkCreateResponse> {
        let name = request.name.clone();
        let id = self.networks.create(request).await?;
        self.network_event("create", &id, &name, "");
        Ok(m::NetworkCreateResponse {
            id,
            warning: String::new(),
        })
    }

    /// Removes a network that nobody uses.
    pub async fn remove_network(&self, id: &str) -> Result<()> {
        let driver = self
            .networks
            .resolve(id)
            .map(|network| network.driver)
            .unwrap_or_default();
        let network = self.networks.remove(id).await?;
        let attributes = HashMap::from([
            ("name".to_owned(), network.name),
            ("type".to_owned(), driver),
        ]);
        self.events.publish_local(
            m::EventMessageTypeEnum::NETWORK,
            "destroy",
            network.id,
            attributes,
        );
        Ok(())
    }

    /// Connects a container, now and at every later start.
    pub async fn connect_network(
        self: &Arc<Self>,
        id: &str,
        request: m::NetworkConnectRequest,
    ) -> Result<()> {
        let network = self.networks.resolve(id)?;
        let container = self.containers.get(&request.container)?;
        let settings = request.endpoint_config.unwrap_or_default();
        let engine = self.clone();
        to_its_end(async move {
            let _operation = container.operation.lock().await;
            let (record, up) = {
                let record = container.record();
                (record.clone(), record.state.is_up())
            };
            let mode = record.network_mode();
            if mode.starts_with("container:") {
                return Err(EngineError::invalid("container sharing network namespace with another container or host cannot be connected to any other network"));
            }
            if mode == "host" || network.name == "host" {
                return Err(EngineError::invalid("cannot connect container to host network - container must be created in host network mode"));
            }
            if up {
                let mut wish = Self::endpoint_request(&network.name, &record, &settings)?;
                wish.ports = crate::create::ports::requests(&record.host_config, record.config.exposed_ports.as_ref());
                let endpoint = engine.networks.connect(&container.id, &wish).await?;
                let first = !record.endpoints.values().any(etc_files::has_names);
                if first && etc_files::has_names(&endpoint) {
                    engine.serve_names(&record).await?;
                    etc_files::use_resolver(&record, &container.dir, &engine.config.network)?;
                }
                container.record().endpoints.insert(endpoint.network_name.clone(), endpoint);
            } else if record.networks.contains_key(&network.name) {
                return Err(EngineError::new(
                    crate::error::ErrorKind::Forbidden,
                    format!("endpoint with name {} already exists in network {}", record.name, network.name),
                ));
            }
            container.record().networks.insert(network.name.clone(), settings);
            container.save()?;
            if up {
                engine.network_event("connect", &network.id, &network.name, &container.id);
            }
            Ok(())
        })
        .await
    }

    /// Takes a container off a network.
    pub async fn disconnect_network(
        self: &Arc<Self>,
        id: &str,
        request: m::NetworkDisconnectRequest,
    ) -> Result<()> {
        let network = self.networks.resolve(id)?;
        let container = self.containers.get(&request.container)?;
        let force = request.force.unwrap_or(false);
        let engine = self.clone();
        to_its_end(async move {
            let _operation = container.operation.lock().await;
            let (known, up) = {
                let record = container.record();
                (record.networks.contains_key(&network.name), record.state.is_up())
            };
            if container.record().network_mode() == "host" {
                return Err(EngineError::invalid("container cannot be disconnected from host network or connected to host network"));
            }
            if !known && !force {
                return Err(EngineError::new(
                    crate::error::ErrorKind::Forbidden,
                    format!("container {} is not connected to network {}", container.id, network.name),
                ));
            }
            if up {
                match engine.networks.disconnect(&container.id, &network.name).await {
                    Err(error) if !force => return Err(error.into()),
                    _ => {}
                }
            }
            {
                let mut record = container.record();
                record.networks.remove(&network.name);
                record.endpoints.remove(&network.name);
            }
            container.save()?;
            if up {
                engine.network_event("disconnect", &network.id, &network.name, &container.id);
            }
            Ok(())
        })
        .await
    }

    /// Removes user-defined networks without containers.
    pub async fn prune_networks(&self, filters: Filters) -> Result<m::NetworkPruneResponse> {
        filters.check(&["label", "label!", "until"])?;
        let until = crate::prune::until(&filters)?;
        let wanted: std::collections::HashSet<String> = self
            .containers
            .all()
            .iter()
            .flat_map(|container| {
                container
                    .record()
                    .networks
                    .keys()
                    .cloned()
                    .collect::<Vec<_>>()
            })
            .collect();
        let mut deleted = Vec::new();
        for network in self.networks.list() {
            let name = network.name.unwrap_or_default();
            let labels = network.labels.unwrap_or_default();
            let created = network.created.as_deref().map(crate::exit::parse_time);
            let keep = PREDEFINED.contains(&name.as_str())
                || network.scope.as_deref() == Some("swarm")
                || name == GATEWAY_BRIDGE
                || wanted.contains(&name)
                || !filters.labels("label", &labels)
                || (filters.contains("label!") && !filters.labels_absent("label!", &labels))
                || until.is_some_and(|until| created.is_none_or(|created| created > until));
            if keep {
                continue;
            }
            match self
                .remove_network(network.id.as_deref().unwrap_or(&name))
                .await
            {
                Ok(()) => deleted.push(name),
                Err(error) => tracing::debug!(network = %name, %error, "network kept"),
            }
        }
        self.events.publish_local(
            m::EventMessageTypeEnum::NETWORK,
            "prune",
            "",
            HashMap::from([("reclaimed".to_owned(), "0".to_owned())]),
        );
        Ok(m::NetworkPruneResponse {
            networks_deleted: Some(deleted),
        })
    }
}
