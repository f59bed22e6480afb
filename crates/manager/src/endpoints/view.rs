//! From the store's objects to what one node needs to know. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_allocator::{is_ingress, is_over, is_overlay};
use skep_model::ext::{ServiceExt as _, ServiceSpecExt as _};
use skep_model::{NetworkId, NodeId, ServiceId, Task, TaskState};
use skep_proto as proto;
use skep_proto::feed;
use skep_store::View;

/// Every network that the node has tasks on, and the mesh's.
pub(super) fn networks_of(view: &View, node: &NodeId) -> BTreeMap<String, feed::NetworkState> {
    let mut ids: BTreeSet<String> = BTreeSet::new();
    for task in view.tasks_on_node(node).filter(|task| is_here(task)) {
        let networks = task.networks.iter().filter_map(|one| one.network.as_ref());
        ids.extend(
            networks
                .filter(|one| is_overlay(one))
                .map(|one| one.id.clone()),
        );
    }
    ids.extend(
        view.networks()
            .filter(|one| is_ingress(one))
            .map(|one| one.id.clone()),
    );
    let networks = ids
        .into_iter()
        .filter_map(|id| view.network(&NetworkId::from(id)));
    networks
        .filter(|network| network.driver_state.is_some())
        .map(|network| (network.id.clone(), state(view, network)))
        .collect()
}

/// Whether the task has, or will have, a container on its node.
fn is_here(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && !is_over(task)
}

fn state(view: &View, network: &proto::Network) -> feed::NetworkState {
    let name = network
        .spec
        .as_ref()
        .and_then(|spec| spec.annotations.as_ref())
        .map(|annotations| annotations.name.clone());
    let mut endpoints = Vec::new();
    let mut services = BTreeMap::new();
    let mut nodes = BTreeSet::new();
    for task in view.tasks_on_network(&NetworkId::from(network.id.as_str())) {
        if !is_here(task) {
            continue;
        }
        endpoints.extend(endpoint(task, network));
        nodes.extend(task.node_id.clone());
    }
    // Also services without a task: a virtual address that refuses is better than a name that is
    // not known.
    for service in view.services() {
        if let Some(face) = face(service, network) {
            services.insert(ServiceId::from(service.id.as_str()), face);
        }
    }
    if is_ingress(network) {
        nodes.extend(view.nodes().map(|node| NodeId::from(node.id.as_str())));
    }
    endpoints.sort_by(|a, b| a.task_id.cmp(&b.task_id));
    let peers = nodes.iter().filter_map(|id| peer(view, id, network));
    feed::NetworkState {
        id: network.id.clone(),
        name: name.unwrap_or_default(),
        ingress: is_ingress(network),
        endpoints,
        services: services.into_values().collect(),
        peers: peers.collect(),
    }
}

fn endpoint(task: &Arc<Task>, network: &proto::Network) -> Option<feed::Endpoint> {
    let is_this = |one: &&proto::NetworkAttachment| {
        one.network
            .as_ref()
            .is_some_and(|other| other.id == network.id)
    };
    let attachment = task.networks.iter().find(is_this)?;
    let ready = task.status.state == TaskState::Running && task.desired_state <= TaskState::Running;
    let text = |id: Option<String>| id.unwrap_or_default();
    Some(feed::Endpoint {
        task_id: task.id.to_string(),
        name: task.name(),
        service_id: text(task.service_id.as_ref().map(ToString::to_string)),
        node_id: text(task.node_id.as_ref().map(ToString::to_string)),
        addresses: attachment.addresses.iter().map(|text| bare(text)).collect(),
        aliases: attachment.aliases.clone(),
        ready,
    })
}

/// The service as this network sees it; `None` if it is not on it.
fn face(service: &proto::Service, network: &proto::Network) -> Option<feed::Service> {
    let spec = service.spec();
    let endpoint = service.endpoint.as_ref();
    let vip = endpoint
        .into_iter()
        .flat_map(|endpoint| &endpoint.virtual_ips)
        .find(|vip| vip.network_id == network.id);
    let name = &spec.annotations().name;
    let names_it = skep_allocator::wanted_networks(spec)
        .iter()
        .any(|config| config.target == network.id);
    if vip.is_none() && !names_it {
        return None;
    }
    Some(feed::Service {
        id: service.id.clone(),
        name: name.clone(),
        virtual_ip: vip.map_or_else(String::new, |vip| bare(&vip.addr)),
        ports: endpoint.map_or_else(Vec::new, |endpoint| endpoint.ports.clone()),
        labels: spec
            .annotations()
            .labels
            .iter()
            .filter(|(key, _)| key.starts_with("skep."))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    })
}

fn peer(view: &View, id: &NodeId, network: &proto::Network) -> Option<feed::Peer> {
    let node = view.node(id)?;
    let attachment = node.attachments.iter().find(|one| {
        one.network
            .as_ref()
            .is_some_and(|other| other.id == network.id)
    });
    let address = attachment.and_then(|one| one.addresses.first());
    let status = node.status.as_ref();
    Some(feed::Peer {
        node_id: node.id.clone(),
        address: status.map_or_else(String::new, |status| status.addr.clone()),
        network_address: address.map_or_else(String::new, |text| bare(text)),
    })
}

/// Without the prefix length.
fn bare(text: &str) -> String {
    text.split('/').next().unwrap_or_default().to_owned()
}
