//! What is to be allocated, and the writes that come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_allocator::{Allocator, Holder, is_ingress, is_over, is_overlay};
use skep_model::ext::ServiceExt as _;
use skep_model::{NetworkId, NodeId, Object, ServiceId, Task, TaskId, TaskState, Version};
use skep_proto as proto;
use skep_store::{Event, StoreError, Transaction, View};

/// SwarmKit's message of a task that has all it needs but a node.
const PENDING: &str = "pending task scheduling";

#[derive(Debug)]
pub(super) enum Write {
    Network(Box<proto::Network>),
    Service {
        id: ServiceId,
        version: Option<Version>,
        endpoint: proto::Endpoint,
    },
    Task {
        id: TaskId,
        networks: Vec<proto::NetworkAttachment>,
        endpoint: Option<Arc<proto::Endpoint>>,
    },
    /// Why a task waits.
    Explain {
        id: TaskId,
        reason: String,
    },
    Node {
        id: NodeId,
        attachments: Vec<proto::NetworkAttachment>,
    },
}

/// The premise no longer holds.
#[derive(Debug)]
pub(super) struct Stale;

impl From<StoreError> for Stale {
    fn from(_: StoreError) -> Self {
        Self
    }
}

#[derive(Default)]
pub(super) struct Picture {
    allocator: Allocator,
    networks: BTreeSet<NetworkId>,
    services: BTreeSet<ServiceId>,
    /// Tasks that are NEW.
    tasks: BTreeSet<TaskId>,
    nodes: BTreeSet<NodeId>,
    /// What could not be allocated for lack of something: tried again when something is freed.
    starved: bool,
    freed: bool,
}

impl Picture {
    pub(super) fn new(view: &View) -> Self {
        let cluster = view.the_cluster();
        let (pools, size) = cluster.map_or((Vec::new(), 0), |cluster| {
            (cluster.default_address_pool.clone(), cluster.subnet_size)
        });
        let mut picture = Self {
            allocator: Allocator::new(&pools, size),
            ..Self::default()
        };
        for network in view.networks() {
            picture.put_network(network);
        }
        for service in view.services() {
            picture.allocator.observe_service(service);
            picture.services.insert(service.id.as_str().into());
        }
        for task in view.tasks() {
            picture.put_task(task);
        }
        for node in view.nodes() {
            picture.allocator.observe_node(node);
            picture.nodes.insert(node.id.as_str().into());
        }
        picture
    }

    pub(super) fn observe(&mut self, event: &Event) {
        match (&event.old, &event.new) {
            (_, Some(Object::Network(network))) => {
                self.put_network(network);
                self.all_again();
            }
            (Some(Object::Network(network)), None) => {
                self.allocator.forget_network(&network.id);
                self.all_again();
            }
            (_, Some(Object::Service(service))) => {
                self.allocator.observe_service(service);
                self.services.insert(service.id.as_str().into());
            }
            (Some(Object::Service(service)), None) => {
                self.allocator.forget(&Holder::Service(service.id.clone()));
                self.freed = true;
            }
            (old, Some(Object::Task(task))) => {
                let old = match old {
                    Some(Object::Task(old)) => Some(&**old),
                    _ => None,
                };
                self.task_changed(old, task);
            }
            (Some(Object::Task(task)), None) => {
                self.allocator.forget(&Holder::Task(task.id.to_string()));
                self.tasks.remove(&task.id);
                self.leaves_node(task);
            }
            (_, Some(Object::Node(node))) => {
                self.allocator.observe_node(node);
                self.nodes.insert(node.id.as_str().into());
            }
            (Some(Object::Node(node)), None) => {
                self.allocator.forget(&Holder::Node(node.id.clone()));
                self.freed = true;
            }
            _ => {}
        }
    }

    fn task_changed(&mut self, old: Option<&Task>, task: &Task) {
        // The many steps of a task that comes up change nothing here.
        let same = old.is_some_and(|old| {
            old.networks == task.networks
                && is_over(old) == is_over(task)
                && old.node_id == task.node_id
                && (old.status.state == TaskState::New) == (task.status.state == TaskState::New)
        });
        if same {
            return;
        }
        self.put_task(task);
        self.leaves_node(task);
    }

    fn put_task(&mut self, task: &Task) {
        self.allocator.observe_task(task);
        if task.status.state == TaskState::New && !is_over(task) {
            self.tasks.insert(task.id.clone());
        } else {
            self.tasks.remove(&task.id);
        }
    }

    fn leaves_node(&mut self, task: &Task) {
        if !task.networks.is_empty() {
            self.nodes.extend(task.node_id.clone());
            self.freed |= is_over(task);
        }
    }

    fn put_network(&mut self, network: &proto::Network) {
        self.allocator.observe_network(network);
        if network.driver_state.is_none() {
            self.networks.insert(network.id.as_str().into());
        }
    }

    /// A network came or went: others may have waited for it.
    fn all_again(&mut self) {
        self.freed = true;
        self.starved = true;
    }

    /// Everything there is to do now.
    pub(super) fn decide(&mut self, view: &View) -> Vec<Write> {
        if self.starved && self.freed {
            self.services.extend(
                view.services()
                    .map(|service| ServiceId::from(service.id.as_str())),
            );
            self.networks.extend(
                view.networks()
                    .filter(|network| network.driver_state.is_none())
                    .map(|network| NetworkId::from(network.id.as_str())),
            );
            self.nodes
                .extend(view.nodes().map(|node| NodeId::from(node.id.as_str())));
            self.starved = false;
        }
        self.freed = false;
        let mut writes = Vec::new();
        let mut fresh: BTreeMap<String, proto::Network> = BTreeMap::new();
        self.decide_networks(view, &mut fresh, &mut writes);
        let find = |term: &str| find(view, &fresh, term);
        let ingress = view
            .networks()
            .map(|network| fresh.get(&network.id).unwrap_or(network))
            .find(|network| is_ingress(network));
        let tasks: Vec<Arc<Task>> = self
            .tasks
            .iter()
            .filter_map(|id| view.task(id))
            .cloned()
            .collect();
        // The snapshot may be ahead of the events: a task is never allocated by an endpoint that
        // its service no longer has.
        self.services
            .extend(tasks.iter().filter_map(|task| task.service_id.clone()));
        let mut endpoints: BTreeMap<ServiceId, proto::Endpoint> = BTreeMap::new();
        let mut unallocated: BTreeMap<ServiceId, String> = BTreeMap::new();
        for id in std::mem::take(&mut self.services) {
            let Some(service) = view.service(&id) else {
                continue;
            };
            match self.allocator.service(service, find, ingress) {
                Ok(None) => {}
                Ok(Some(endpoint)) => {
                    endpoints.insert(id.clone(), endpoint.clone());
                    writes.push(Write::Service {
                        id,
                        version: service.spec_version.map(Version::from),
                        endpoint,
                    });
                }
                Err(error) => {
                    tracing::warn!(service.id = %id, %error, "a service could not be allocated");
                    self.starved = true;
                    unallocated.insert(id, error.to_string());
                }
            }
        }
        for task in tasks {
            let blocked = task.service_id.as_ref().and_then(|id| unallocated.get(id));
            if let Some(reason) = blocked {
                if task.status.err != *reason {
                    let (id, reason) = (task.id.clone(), reason.clone());
                    writes.push(Write::Explain { id, reason });
                }
                continue;
            }
            let service = task.service_id.as_ref().and_then(|id| view.service(id));
            let service = service.map(|service| {
                let mut service = (**service).clone();
                let id = ServiceId::from(service.id.as_str());
                if let Some(endpoint) = endpoints.get(&id) {
                    service.endpoint = Some(endpoint.clone());
                }
                service
            });
            match self.allocator.task(&task, service.as_ref(), find, ingress) {
                Ok(networks) => {
                    self.tasks.remove(&task.id);
                    writes.push(Write::Task {
                        id: task.id.clone(),
                        networks,
                        endpoint: service.and_then(|service| service.endpoint).map(Arc::new),
                    });
                }
                Err(error) => {
                    self.starved = true;
                    let reason = error.to_string();
                    if task.status.err != reason {
                        let id = task.id.clone();
                        writes.push(Write::Explain { id, reason });
                    }
                }
            }
        }
        for id in std::mem::take(&mut self.nodes) {
            self.decide_node(view, &id, ingress, &fresh, &mut writes);
        }
        writes
    }

    fn decide_networks(
        &mut self,
        view: &View,
        fresh: &mut BTreeMap<String, proto::Network>,
        writes: &mut Vec<Write>,
    ) {
        for id in std::mem::take(&mut self.networks) {
            let Some(network) = view.network(&id) else {
                continue;
            };
            if !is_overlay(network) {
                continue;
            }
            match self.allocator.network(network) {
                Ok(allocated) => {
                    fresh.insert(allocated.id.clone(), allocated.clone());
                    writes.push(Write::Network(Box::new(allocated)));
                }
                Err(error) => {
                    tracing::warn!(network.id = %id, %error, "a network could not be allocated");
                    self.starved = true;
                }
            }
        }
    }

    /// A node has an address of its own on the mesh, and on every network that it has tasks on.
    fn decide_node(
        &mut self,
        view: &View,
        id: &NodeId,
        ingress: Option<&proto::Network>,
        fresh: &BTreeMap<String, proto::Network>,
        writes: &mut Vec<Write>,
    ) {
        let Some(node) = view.node(id) else {
            return;
        };
        let mut wanted: BTreeMap<&str, &proto::Network> = BTreeMap::new();
        for task in view.tasks_on_node(id).filter(|task| !is_over(task)) {
            let attached = task.networks.iter().filter_map(|one| one.network.as_ref());
            for network in attached.filter(|network| is_overlay(network)) {
                let now = find(view, fresh, &network.id).unwrap_or(network);
                wanted.insert(&now.id, now);
            }
        }
        let ingress = ingress.filter(|network| network.driver_state.is_some());
        wanted.extend(ingress.map(|network| (network.id.as_str(), network)));
        match self.allocator.node(node, wanted.into_values()) {
            Ok(attachments) if attachments == node.attachments => {}
            Ok(attachments) => writes.push(Write::Node {
                id: id.clone(),
                attachments,
            }),
            Err(error) => {
                tracing::warn!(node.id = %id, %error, "a node could not be given its addresses");
                self.starved = true;
            }
        }
    }
}

/// By id or name, as it will be.
fn find<'a>(
    view: &'a View,
    fresh: &'a BTreeMap<String, proto::Network>,
    term: &str,
) -> Option<&'a proto::Network> {
    let found = view
        .network(&NetworkId::from(term))
        .or_else(|| view.find_by_name::<proto::Network>(term))?;
    Some(fresh.get(&found.id).unwrap_or(found))
}

pub(super) fn apply(tx: &mut Transaction, write: &Write) -> Result<(), Stale> {
    match write {
        Write::Network(network) => {
            let current = tx.get::<proto::Network>(&network.id).ok_or(Stale)?;
            if current.driver_state.is_some() {
                return Err(Stale);
            }
            let allocated = (**network).clone();
            tx.modify::<proto::Network>(&network.id, |current| {
                current.driver_state = allocated.driver_state;
                current.ipam = allocated.ipam;
            })?;
        }
        Write::Service {
            id,
            version,
            endpoint,
        } => {
            let current = tx.service(id).ok_or(Stale)?;
            let unchanged = current.spec_version.map(Version::from) == *version
                && current.spec().endpoint == endpoint.spec;
            if !unchanged {
                return Err(Stale);
            }
            tx.modify::<proto::Service>(id, |service| service.endpoint = Some(endpoint.clone()))?;
        }
        Write::Task {
            id,
            networks,
            endpoint,
        } => {
            let now = tx.now();
            waiting(tx, id)?;
            tx.modify::<Task>(id, |task| {
                task.networks.clone_from(networks);
                if endpoint.is_some() {
                    task.endpoint.clone_from(endpoint);
                }
                task.status.state = TaskState::Pending;
                task.status.timestamp = Some(now);
                PENDING.clone_into(&mut task.status.message);
                task.status.err.clear();
            })?;
        }
        Write::Explain { id, reason } => {
            waiting(tx, id)?;
            tx.modify::<Task>(id, |task| task.status.err.clone_from(reason))?;
        }
        Write::Node { id, attachments } => {
            tx.modify::<proto::Node>(id, |node| node.attachments.clone_from(attachments))?;
        }
    }
    Ok(())
}

fn waiting(tx: &Transaction, id: &TaskId) -> Result<(), Stale> {
    match tx.task(id) {
        Some(task) if task.status.state == TaskState::New => Ok(()),
        _ => Err(Stale),
    }
}
