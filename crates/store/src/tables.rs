//! What each kind is indexed by.

use std::sync::Arc;

use skep_model::proto;
use skep_model::{ConfigId, StoreObject as _, VolumeId};
use skep_model::{
    NetworkId, NodeId, ObjectKind, SecretId, ServiceId, Slot, Task, TaskId, TaskState,
};

use crate::StoreError;
use crate::index::Index;
use crate::snapshot::View;
use crate::stored::sealed::Sealed;
use crate::stored::{Indexes, NoIndexes, Stored, Table};

macro_rules! tables {
    ($($field:ident: $type:ty, $indexes:ty;)*) => {$(
        impl Sealed for $type {
            type Indexes = $indexes;

            fn table(view: &View) -> &Table<Self> {
                &view.$field
            }

            fn table_mut(view: &mut View) -> &mut Table<Self> {
                &mut view.$field
            }
        }
    )*};
}

tables! {
    networks: proto::Network, NoIndexes;
    clusters: proto::Cluster, NoIndexes;
    secrets: proto::Secret, NoIndexes;
    configs: proto::Config, NoIndexes;
    volumes: proto::Volume, NoIndexes;
}

impl Stored for proto::Node {}
impl Stored for proto::Service {}
impl Stored for Task {}
impl Stored for proto::Network {}
impl Stored for proto::Cluster {}
impl Stored for proto::Secret {}
impl Stored for proto::Config {}
impl Stored for proto::Volume {}
impl Stored for proto::Resource {}
impl Stored for proto::Extension {}

impl Sealed for proto::Node {
    /// Nodes are named by their machines, which do not ask each other.
    const UNIQUE_NAMES: bool = false;

    type Indexes = NodeIndexes;

    fn table(view: &View) -> &Table<Self> {
        &view.nodes
    }

    fn table_mut(view: &mut View) -> &mut Table<Self> {
        &mut view.nodes
    }
}

#[derive(Clone, Debug, Default)]
pub struct NodeIndexes {
    /// Lower case.
    pub(crate) hostname: Index<String, String, proto::Node>,
    pub(crate) role: Index<i32, String, proto::Node>,
    pub(crate) membership: Index<i32, String, proto::Node>,
}

fn hostname(node: &proto::Node) -> Option<String> {
    node.description
        .as_ref()
        .map(|description| description.hostname.to_lowercase())
}

fn membership(node: &proto::Node) -> i32 {
    node.spec.as_ref().map_or(0, |spec| spec.membership)
}

impl Indexes<proto::Node> for NodeIndexes {
    fn insert(&mut self, node: &Arc<proto::Node>) {
        if let Some(hostname) = hostname(node) {
            self.hostname.insert(hostname, node.id.clone(), node);
        }
        self.role.insert(node.role, node.id.clone(), node);
        self.membership
            .insert(membership(node), node.id.clone(), node);
    }

    fn remove(&mut self, node: &proto::Node) {
        if let Some(hostname) = hostname(node) {
            self.hostname.remove(&hostname, &node.id);
        }
        self.role.remove(&node.role, &node.id);
        self.membership.remove(&membership(node), &node.id);
    }
}

impl Sealed for proto::Service {
    type Indexes = ServiceIndexes;

    fn table(view: &View) -> &Table<Self> {
        &view.services
    }

    fn table_mut(view: &mut View) -> &mut Table<Self> {
        &mut view.services
    }

    fn inserted(service: &Arc<Self>, view: &mut View) {
        let spec = service.spec.as_ref().and_then(|spec| spec.task.as_ref());
        let id = ServiceId::from(&*service.id);
        match (spec, view.task_specs.get(&id)) {
            // The same spec as before must stay the same allocation.
            (Some(spec), Some(known)) if **known == *spec => {}
            (Some(spec), _) => {
                view.task_specs.insert(id, Arc::new(spec.clone()));
            }
            (None, _) => {
                view.task_specs.remove(&id);
            }
        }
    }

    fn removed(service: &Arc<Self>, view: &mut View) {
        view.task_specs.remove(&*service.id);
    }
}

#[derive(Clone, Debug, Default)]
pub struct ServiceIndexes {
    pub(crate) network: Index<NetworkId, String, proto::Service>,
    pub(crate) secret: Index<SecretId, String, proto::Service>,
    pub(crate) config: Index<ConfigId, String, proto::Service>,
}

/// A service's networks are its task's; those on the service itself are the older place for them,
/// used only if the task names none.
fn service_networks(service: &proto::Service) -> impl Iterator<Item = NetworkId> {
    let spec = service.spec.as_ref();
    let of_task = spec
        .and_then(|spec| spec.task.as_ref())
        .map_or(&[][..], |task| &task.networks);
    let of_service = spec.map_or(&[][..], |spec| &spec.networks);
    let networks = if of_task.is_empty() {
        of_service
    } else {
        of_task
    };
    networks
        .iter()
        .map(|network| NetworkId::from(&*network.target))
}

fn service_container(service: &proto::Service) -> Option<&proto::ContainerSpec> {
    match &service.spec.as_ref()?.task.as_ref()?.runtime {
        Some(proto::task_spec::Runtime::Container(container)) => Some(container),
        _ => None,
    }
}

fn secrets(container: Option<&proto::ContainerSpec>) -> impl Iterator<Item = SecretId> {
    container
        .into_iter()
        .flat_map(|container| &container.secrets)
        .map(|secret| SecretId::from(&*secret.secret_id))
}

fn configs(container: Option<&proto::ContainerSpec>) -> impl Iterator<Item = ConfigId> {
    container
        .into_iter()
        .flat_map(|container| &container.configs)
        .map(|config| ConfigId::from(&*config.config_id))
}

impl Indexes<proto::Service> for ServiceIndexes {
    fn insert(&mut self, service: &Arc<proto::Service>) {
        for network in service_networks(service) {
            self.network.insert(network, service.id.clone(), service);
        }
        for secret in secrets(service_container(service)) {
            self.secret.insert(secret, service.id.clone(), service);
        }
        for config in configs(service_container(service)) {
            self.config.insert(config, service.id.clone(), service);
        }
    }

    fn remove(&mut self, service: &proto::Service) {
        for network in service_networks(service) {
            self.network.remove(&network, &service.id);
        }
        for secret in secrets(service_container(service)) {
            self.secret.remove(&secret, &service.id);
        }
        for config in configs(service_container(service)) {
            self.config.remove(&config, &service.id);
        }
    }
}

impl Sealed for Task {
    /// A task's name contains its id.
    const UNIQUE_NAMES: bool = false;

    type Indexes = TaskIndexes;

    fn table(view: &View) -> &Table<Self> {
        &view.tasks
    }

    fn table_mut(view: &mut View) -> &mut Table<Self> {
        &mut view.tasks
    }

    /// A task read from the log or a snapshot has its own copy of everything; let go of what its
    /// service, its own last state or a sibling already has in memory.
    fn adopt(self: Arc<Self>, old: Option<&Self>, view: &View) -> Arc<Self> {
        let Some(service) = &self.service_id else {
            return self;
        };
        let sibling = view.tasks_of_service(service).next();
        let spec = view.task_specs.get(service);
        let mut task = Arc::unwrap_or_clone(self);
        if let Some(spec) = spec {
            share(&mut task.spec, spec);
        }
        for other in [old, sibling.map(|sibling| &**sibling)]
            .into_iter()
            .flatten()
        {
            share(&mut task.spec, &other.spec);
            share(&mut task.annotations, &other.annotations);
            share(&mut task.service_annotations, &other.service_annotations);
            if let (Some(endpoint), Some(known)) = (&mut task.endpoint, &other.endpoint) {
                share(endpoint, known);
            }
        }
        Arc::new(task)
    }
}

fn share<T: PartialEq>(mine: &mut Arc<T>, known: &Arc<T>) {
    if !Arc::ptr_eq(mine, known) && mine == known {
        *mine = Arc::clone(known);
    }
}

#[derive(Clone, Debug, Default)]
pub struct TaskIndexes {
    /// By slot within the service, so that one index answers for both.
    pub(crate) service: Index<ServiceId, (Slot, TaskId), Task>,
    pub(crate) node: Index<NodeId, TaskId, Task>,
    pub(crate) state: Index<TaskState, TaskId, Task>,
    pub(crate) desired_state: Index<TaskState, TaskId, Task>,
    pub(crate) network: Index<NetworkId, TaskId, Task>,
    pub(crate) secret: Index<SecretId, TaskId, Task>,
    pub(crate) config: Index<ConfigId, TaskId, Task>,
    pub(crate) volume: Index<VolumeId, TaskId, Task>,
}

fn task_networks(task: &Task) -> impl Iterator<Item = NetworkId> {
    let wanted = task.spec.networks.iter().map(|network| &*network.target);
    let attached = task
        .networks
        .iter()
        .filter_map(|attachment| Some(&*attachment.network.as_ref()?.id));
    wanted.chain(attached).map(NetworkId::from)
}

impl Indexes<Task> for TaskIndexes {
    fn insert(&mut self, task: &Arc<Task>) {
        if let Some(service) = &task.service_id {
            self.service
                .insert(service.clone(), (task.slot, task.id.clone()), task);
        }
        if let Some(node) = &task.node_id {
            self.node.insert(node.clone(), task.id.clone(), task);
        }
        self.state.insert(task.status.state, task.id.clone(), task);
        self.desired_state
            .insert(task.desired_state, task.id.clone(), task);
        for network in task_networks(task) {
            self.network.insert(network, task.id.clone(), task);
        }
        for secret in secrets(task.container()) {
            self.secret.insert(secret, task.id.clone(), task);
        }
        for config in configs(task.container()) {
            self.config.insert(config, task.id.clone(), task);
        }
        for volume in &task.volumes {
            self.volume
                .insert(VolumeId::from(&*volume.id), task.id.clone(), task);
        }
    }

    fn remove(&mut self, task: &Task) {
        if let Some(service) = &task.service_id {
            self.service.remove(service, &(task.slot, task.id.clone()));
        }
        if let Some(node) = &task.node_id {
            self.node.remove(node, &task.id);
        }
        self.state.remove(&task.status.state, &task.id);
        self.desired_state.remove(&task.desired_state, &task.id);
        for network in task_networks(task) {
            self.network.remove(&network, &task.id);
        }
        for secret in secrets(task.container()) {
            self.secret.remove(&secret, &task.id);
        }
        for config in configs(task.container()) {
            self.config.remove(&config, &task.id);
        }
        for volume in &task.volumes {
            self.volume.remove(&VolumeId::from(&*volume.id), &task.id);
        }
    }
}

impl Sealed for proto::Resource {
    type Indexes = ResourceIndexes;

    fn table(view: &View) -> &Table<Self> {
        &view.resources
    }

    fn table_mut(view: &mut View) -> &mut Table<Self> {
        &mut view.resources
    }

    fn check(&self, _old: Option<&Self>, view: &View) -> Result<(), StoreError> {
        match view.find_by_name::<proto::Extension>(&self.kind) {
            Some(_) => Ok(()),
            None => Err(StoreError::UnregisteredKind(self.kind.clone())),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct ResourceIndexes {
    pub(crate) kind: Index<String, String, proto::Resource>,
}

impl Indexes<proto::Resource> for ResourceIndexes {
    fn insert(&mut self, resource: &Arc<proto::Resource>) {
        self.kind
            .insert(resource.kind.clone(), resource.id.clone(), resource);
    }

    fn remove(&mut self, resource: &proto::Resource) {
        self.kind.remove(&resource.kind, &resource.id);
    }
}

impl Sealed for proto::Extension {
    type Indexes = NoIndexes;

    fn table(view: &View) -> &Table<Self> {
        &view.extensions
    }

    fn table_mut(view: &mut View) -> &mut Table<Self> {
        &mut view.extensions
    }

    fn check(&self, old: Option<&Self>, _view: &View) -> Result<(), StoreError> {
        if old.is_some() {
            return Err(StoreError::ExtensionImmutable);
        }
        if ObjectKind::ALL
            .iter()
            .any(|kind| kind.as_str() == self.name())
        {
            return Err(StoreError::NameConflict);
        }
        Ok(())
    }

    fn check_delete(&self, view: &View) -> Result<(), StoreError> {
        match view.resources.indexes.kind.len(&self.name().to_owned()) {
            0 => Ok(()),
            _ => Err(StoreError::ExtensionInUse),
        }
    }
}
