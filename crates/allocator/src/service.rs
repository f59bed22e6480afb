//! A service's virtual addresses and published ports.

use std::collections::BTreeSet;

use skep_proto as proto;
use skep_proto::endpoint::VirtualIp;
use skep_proto::endpoint_spec::ResolutionMode;

use crate::attachment::{publishes_on_mesh, wanted_networks};
use crate::{AllocationError, Allocator, Holder, is_overlay};

impl Allocator {
    /// The service's endpoint; `None` if the one it has is right. `objects` finds a network by id
    /// or name.
    pub fn service<'a>(
        &mut self,
        service: &proto::Service,
        objects: impl Fn(&str) -> Option<&'a proto::Network>,
        ingress: Option<&'a proto::Network>,
    ) -> Result<Option<proto::Endpoint>, AllocationError> {
        let empty = proto::ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&empty);
        let before = service.endpoint.clone().unwrap_or_default();
        let wanted = spec.endpoint.clone().unwrap_or_default();
        let ports = self
            .ports
            .allocate(&service.id, &wanted.ports, &before.ports)?;
        let networks = networks(spec, objects, ingress)?;
        let mut addresses: Vec<VirtualIp> = Vec::new();
        let vips = wanted.mode() == ResolutionMode::Vip;
        for network in networks.into_iter().filter(|_| vips) {
            let has = |one: &&VirtualIp| one.network_id == network.id && !one.addr.is_empty();
            let address = match before.virtual_ips.iter().find(has) {
                Some(address) => Ok(address.clone()),
                None => self.virtual_address(network),
            };
            match address {
                Ok(address) => addresses.push(address),
                Err(error) => {
                    // Held and let go again: what was taken before the failure is free.
                    let endpoint = proto::Endpoint {
                        virtual_ips: addresses,
                        ..proto::Endpoint::default()
                    };
                    self.hold_service(service, &endpoint);
                    self.hold_service(service, &before);
                    return Err(error);
                }
            }
        }
        let endpoint = proto::Endpoint {
            spec: spec.endpoint.clone(),
            ports,
            virtual_ips: addresses,
        };
        self.hold_service(service, &endpoint);
        let unchanged = match &service.endpoint {
            Some(before) => *before == endpoint,
            None => endpoint == proto::Endpoint::default(),
        };
        Ok((!unchanged).then_some(endpoint))
    }

    fn virtual_address(&mut self, network: &proto::Network) -> Result<VirtualIp, AllocationError> {
        let addresses = self
            .networks
            .get_mut(&network.id)
            .ok_or_else(|| AllocationError::Waiting(network.id.clone()))?;
        Ok(VirtualIp {
            network_id: network.id.clone(),
            addr: addresses.allocate()?.to_string(),
        })
    }

    pub(crate) fn hold_service(&mut self, service: &proto::Service, endpoint: &proto::Endpoint) {
        let name = service
            .spec
            .as_ref()
            .and_then(|spec| spec.annotations.as_ref())
            .map_or("", |annotations| &annotations.name);
        self.ports.release(&service.id);
        self.ports.take(&service.id, name, &endpoint.ports);
        let addresses: Vec<(String, String)> = endpoint
            .virtual_ips
            .iter()
            .map(|one| (one.network_id.clone(), one.addr.clone()))
            .collect();
        self.hold_addresses(Holder::Service(service.id.clone()), &addresses);
    }
}

/// The overlay networks a service has virtual addresses on: the mesh's first.
fn networks<'a>(
    spec: &proto::ServiceSpec,
    objects: impl Fn(&str) -> Option<&'a proto::Network>,
    ingress: Option<&'a proto::Network>,
) -> Result<Vec<&'a proto::Network>, AllocationError> {
    let mut found = Vec::new();
    if publishes_on_mesh(spec) {
        found.push(ingress.ok_or_else(|| AllocationError::NoNetwork("ingress".to_owned()))?);
    }
    for config in wanted_networks(spec) {
        let network = objects(&config.target)
            .ok_or_else(|| AllocationError::NoNetwork(config.target.clone()))?;
        if is_overlay(network) {
            found.push(network);
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|network| seen.insert(network.id.clone()));
    Ok(found)
}
