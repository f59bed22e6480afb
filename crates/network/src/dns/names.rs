//! Whose name is what, as one container sees it: its own user-defined networks and no others.

use std::net::IpAddr;
use std::sync::Weak;

use rand::seq::SliceRandom as _;

use super::Zone;
use crate::inner::Inner;
use crate::overlay::{self, GATEWAY_BRIDGE};
use crate::sandbox::{EndpointRecord, SandboxRecord};
use crate::state::State;

/// What one container can ask for.
pub(crate) struct Names {
    inner: Weak<Inner>,
    container_id: String,
}

impl Names {
    pub(crate) fn new(inner: Weak<Inner>, container_id: &str) -> Self {
        Self {
            inner,
            container_id: container_id.to_owned(),
        }
    }
}

impl Zone for Names {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let inner = self.inner.upgrade()?;
        let mut addresses = addresses(&inner.state.lock(), &self.container_id, name)?;
        // Clients that take the first one are spread.
        addresses.shuffle(&mut rand::rng());
        Some(addresses)
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        let inner = self.inner.upgrade()?;
        name_of(&inner.state.lock(), &self.container_id, address)
    }
}

/// Networks are asked in the order of their names; the first that knows the name answers.
fn addresses(state: &State, container_id: &str, name: &str) -> Option<Vec<IpAddr>> {
    let asking = state.sandboxes.get(container_id)?;
    for record in named_networks(state, asking) {
        let network = &record.endpoint.network_name;
        // `name.network` is the same as `name`, on that network only.
        let suffix = format!(".{}", network.to_ascii_lowercase());
        let local = name.strip_suffix(&suffix);
        let found = [Some(name), local]
            .into_iter()
            .flatten()
            .find_map(|name| on_network(state, record, name));
        if found.is_some() {
            return found;
        }
    }
    None
}

fn on_network(state: &State, asking: &EndpointRecord, name: &str) -> Option<Vec<IpAddr>> {
    let network_id = &asking.endpoint.network_id;
    // `--link other:alias` holds for this container alone.
    let linked = asking.endpoint.links.iter().find_map(|link| {
        let (target, alias) = link.split_once(':').unwrap_or((link, link));
        alias
            .eq_ignore_ascii_case(name)
            .then(|| target.to_ascii_lowercase())
    });
    let name = linked.as_deref().unwrap_or(name);
    // A service's name is its virtual address, also for those of its tasks that are here.
    let swarm = state.feed.get(network_id);
    if let Some(found) = swarm.and_then(|network| overlay::addresses_of(network, name)) {
        return Some(found);
    }
    let mut addresses = Vec::new();
    let mut known = false;
    for sandbox in state.sandboxes.values() {
        let Some(record) = sandbox.endpoint(network_id) else {
            continue;
        };
        if has_name(sandbox, record, name) {
            known = true;
            addresses.extend(record.endpoint.ipv4.map(IpAddr::V4));
            addresses.extend(record.endpoint.ipv6.map(IpAddr::V6));
        }
    }
    known.then_some(addresses)
}

fn has_name(sandbox: &SandboxRecord, record: &EndpointRecord, name: &str) -> bool {
    let endpoint = &record.endpoint;
    endpoint.container_name.eq_ignore_ascii_case(name)
        || crate::store::short(&sandbox.container_id) == name
        || sandbox.hostname.eq_ignore_ascii_case(name)
        || endpoint
            .aliases
            .iter()
            .any(|alias| alias.eq_ignore_ascii_case(name))
}

fn name_of(state: &State, container_id: &str, address: IpAddr) -> Option<String> {
    let asking = state.sandboxes.get(container_id)?;
    let networks: Vec<_> = named_networks(state, asking).collect();
    networks.iter().find_map(|asking| {
        let network_id = &asking.endpoint.network_id;
        let swarm = state.feed.get(network_id);
        if let Some(found) = swarm.and_then(|network| overlay::name_of(network, address)) {
            return Some(found);
        }
        let has = |record: &&EndpointRecord| {
            let endpoint = &record.endpoint;
            endpoint.ipv4.map(IpAddr::V4) == Some(address)
                || endpoint.ipv6.map(IpAddr::V6) == Some(address)
        };
        state
            .sandboxes
            .values()
            .filter_map(|sandbox| sandbox.endpoint(network_id))
            .find(has)
            .map(|record| {
                let endpoint = &record.endpoint;
                format!("{}.{}", endpoint.container_name, endpoint.network_name)
            })
    })
}

/// The endpoints on networks whose containers know each other by name, by network name.
fn named_networks<'a>(
    state: &'a State,
    sandbox: &'a SandboxRecord,
) -> impl Iterator<Item = &'a EndpointRecord> {
    let mut records: Vec<_> = sandbox
        .endpoints
        .iter()
        .filter(|record| {
            let network = state.networks.get(&record.endpoint.network_id);
            network.is_some_and(|network| {
                let definition = &network.definition;
                let is_mesh = definition.overlay.as_ref().is_some_and(|one| one.ingress);
                !definition.predefined && !is_mesh && definition.name != GATEWAY_BRIDGE
            })
        })
        .collect();
    records.sort_by(|a, b| a.endpoint.network_name.cmp(&b.endpoint.network_name));
    records.into_iter()
}
