//! Publishing a container's ports on the endpoint that is its gateway, and taking them away.

use std::net::IpAddr;

use crate::firewall::PortRule;
use crate::inner::Inner;
use crate::ports::HeldPort;
use crate::publish::Publication;
use crate::sandbox::{EndpointRecord, SandboxRecord};
use crate::state::State;
use crate::{Endpoint, NetworkError, PortRequest, PublishedPort};

impl Inner {
    /// Publishes the wanted ports on the gateway endpoint and on no other.
    pub(crate) fn move_ports(&self, sandbox: &SandboxRecord) -> Result<(), NetworkError> {
        let gateway = sandbox.gateway(true).or_else(|| sandbox.gateway(false));
        let publisher = gateway.map(|record| record.endpoint.id.clone());
        let mut before: Vec<PublishedPort> = Vec::new();
        for record in &sandbox.endpoints {
            let endpoint = &record.endpoint;
            if Some(&endpoint.id) != publisher.as_ref() && !endpoint.ports.is_empty() {
                before.extend(endpoint.ports.iter().cloned());
                self.unpublish(&sandbox.container_id, &endpoint.id)?;
            }
        }
        match gateway {
            Some(record) if record.endpoint.ports.is_empty() && !record.wanted_ports.is_empty() => {
                self.publish(&sandbox.container_id, record, &before)
            }
            _ => Ok(()),
        }
    }

    /// `before`: ports the container had on another endpoint, which it keeps.
    fn publish(
        &self,
        container_id: &str,
        record: &EndpointRecord,
        before: &[PublishedPort],
    ) -> Result<(), NetworkError> {
        let endpoint = &record.endpoint;
        let failed = |error: NetworkError| NetworkError::ExternalConnectivity {
            container: endpoint.container_name.clone(),
            endpoint: endpoint.id.clone(),
            source: Box::new(error),
        };
        let mut published: Vec<(PortRule, HeldPort)> = Vec::new();
        let mut outcome = Ok(());
        for wanted in &record.wanted_ports {
            match self.reserve(endpoint, &keep(wanted, before)) {
                Ok(some) => published.extend(some),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let rules: Vec<PortRule> = published.iter().map(|(rule, _)| rule.clone()).collect();
        if outcome.is_ok() {
            outcome = match self.translate(&rules, &[]) {
                // Somebody removed our table: it comes back, and then takes the ports.
                Err(NetworkError::Kernel(error)) if error.is_missing() => self
                    .apply_rules()
                    .and_then(|()| self.translate(&rules, &[])),
                other => other,
            };
        }
        if let Err(error) = outcome {
            let mut state = self.state.lock();
            for rule in &rules {
                state.ports.release(&rule.published);
            }
            return Err(failed(error));
        }
        let mut publications = Vec::new();
        for (rule, held) in published {
            let with_proxy = self.needs_proxy(&rule);
            let mut publication = Publication::recorded(rule);
            if let Err(error) = publication.serve(held, with_proxy, &self.host, &self.runtime) {
                outcome = Err(failed(error));
            }
            publications.push(publication);
        }
        let mut state = self.state.lock();
        state.publications.insert(endpoint.id.clone(), publications);
        set_ports(
            &mut state,
            container_id,
            &endpoint.id,
            rules.into_iter().map(|rule| rule.published).collect(),
        );
        outcome
    }

    fn reserve(
        &self,
        endpoint: &Endpoint,
        wanted: &PortRequest,
    ) -> Result<Vec<(PortRule, HeldPort)>, NetworkError> {
        let addresses = self.binding_addresses(endpoint, wanted.host_ip)?;
        let held = self
            .state
            .lock()
            .ports
            .reserve(&self.host, wanted, &addresses)?;
        let rules = held.into_iter().filter_map(|held| {
            let target = target(endpoint, held.port.host_ip)?;
            Some((
                PortRule {
                    published: held.port.clone(),
                    target,
                },
                held,
            ))
        });
        Ok(rules.collect())
    }

    /// Where a port is to answer. An address family that neither NAT nor proxy can serve is left
    /// out if nobody asked for it, and refused otherwise.
    fn binding_addresses(
        &self,
        endpoint: &Endpoint,
        wanted: Option<IpAddr>,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        let default = self
            .state
            .lock()
            .networks
            .get(&endpoint.network_id)
            .and_then(|network| network.definition.default_binding);
        let both = [IpAddr::from([0_u8; 4]), IpAddr::from([0_u8; 16])];
        let asked: Vec<IpAddr> = match wanted.or(default) {
            Some(address) => vec![address],
            None => both.to_vec(),
        };
        let can_serve = |host_ip: &IpAddr| {
            let Some(target) = target(endpoint, *host_ip) else {
                return false;
            };
            self.is_translated(*host_ip, target) || self.config.userland_proxy
        };
        let served: Vec<IpAddr> = asked.into_iter().filter(can_serve).collect();
        if served.is_empty() {
            let text =
                "cannot publish ports: neither NAT rules nor the userland proxy can serve them";
            return Err(NetworkError::Forbidden(text.to_owned()));
        }
        Ok(served)
    }

    pub(crate) fn needs_proxy(&self, rule: &PortRule) -> bool {
        let by_nat = self.is_translated(rule.published.host_ip, rule.target);
        // An IPv6 loopback connection cannot be translated; the wildcard's socket gets it.
        let loopback = rule.published.host_ip.is_ipv6();
        self.config.userland_proxy && (!by_nat || loopback)
    }

    /// Takes an endpoint's ports away. Tries everything.
    pub(crate) fn unpublish(
        &self,
        container_id: &str,
        endpoint_id: &str,
    ) -> Result<(), NetworkError> {
        let publications = {
            let mut state = self.state.lock();
            set_ports(&mut state, container_id, endpoint_id, Vec::new());
            state.publications.remove(endpoint_id).unwrap_or_default()
        };
        if publications.is_empty() {
            return Ok(());
        }
        let rules: Vec<PortRule> = publications.iter().map(|one| one.rule.clone()).collect();
        let removed = match self.translate(&[], &rules) {
            // Somebody emptied the table: what we want gone is gone, the rest comes back.
            Err(NetworkError::Kernel(error)) if error.is_missing() => self.apply_rules(),
            other => other,
        };
        for mut publication in publications {
            publication.stop(&self.runtime);
        }
        let mut state = self.state.lock();
        for rule in &rules {
            state.ports.release(&rule.published);
        }
        removed
    }
}

/// Which of the container's addresses a host address leads to: one of the same family if it has
/// one, else the other through the proxy.
pub(crate) fn target(endpoint: &Endpoint, host_ip: IpAddr) -> Option<IpAddr> {
    let (ipv4, ipv6) = (endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6));
    if host_ip.is_ipv4() {
        ipv4.or(ipv6)
    } else {
        ipv6.or(ipv4)
    }
}

/// The same host port as before, if the container had one already.
fn keep(wanted: &PortRequest, before: &[PublishedPort]) -> PortRequest {
    let earlier = before.iter().find(|port| {
        port.container_port == wanted.container_port
            && port.protocol == wanted.protocol
            && wanted.host_ip.is_none_or(|ip| ip == port.host_ip)
            && (wanted.host_ports == (0, 0)
                || (wanted.host_ports.0..=wanted.host_ports.1).contains(&port.host_port))
    });
    let mut wanted = wanted.clone();
    if let Some(port) = earlier {
        wanted.host_ports = (port.host_port, port.host_port);
    }
    wanted
}

fn set_ports(state: &mut State, container_id: &str, endpoint_id: &str, ports: Vec<PublishedPort>) {
    let sandbox = state.sandboxes.get_mut(container_id);
    let endpoints = sandbox.map(|sandbox| sandbox.endpoints.iter_mut());
    if let Some(record) = endpoints
        .into_iter()
        .flatten()
        .find(|record| record.endpoint.id == endpoint_id)
    {
        record.endpoint.ports = ports;
    }
}
