use std::ops::Deref;
use std::sync::Arc;

use imbl::OrdMap;
use skep_model::proto;
use skep_model::{
    ClusterId, ConfigId, NetworkId, NodeId, Object, ObjectKind, SecretId, ServiceId, Slot, Task,
    TaskId, TaskState, VolumeId,
};

use crate::Stored;
use crate::stored::Table;

/// One consistent state of everything. Iteration is in order of ids (tasks of a service: of slots,
/// then ids), so that equal states iterate alike on every manager.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(crate) version: u64,
    pub(crate) nodes: Table<proto::Node>,
    pub(crate) services: Table<proto::Service>,
    pub(crate) tasks: Table<Task>,
    pub(crate) networks: Table<proto::Network>,
    pub(crate) clusters: Table<proto::Cluster>,
    pub(crate) secrets: Table<proto::Secret>,
    pub(crate) configs: Table<proto::Config>,
    pub(crate) volumes: Table<proto::Volume>,
    pub(crate) resources: Table<proto::Resource>,
    pub(crate) extensions: Table<proto::Extension>,
    /// Each service's current task spec, in the allocation that its tasks share.
    pub(crate) task_specs: OrdMap<ServiceId, Arc<proto::TaskSpec>>,
}

/// A [`View`] of the committed state that stays as it is. Cheap to take, to clone and to keep.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(pub(crate) Arc<View>);

impl Deref for Snapshot {
    type Target = View;

    fn deref(&self) -> &View {
        &self.0
    }
}

/// Any kind.
impl View {
    /// The log index of the last change in here.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn get<T: Stored>(&self, id: impl AsRef<str>) -> Option<&Arc<T>> {
        T::table(self).get(id.as_ref())
    }

    pub fn all<T: Stored>(&self) -> impl Iterator<Item = &Arc<T>> {
        T::table(self).by_id.iter().map(|(_, object)| object)
    }

    pub fn count<T: Stored>(&self) -> usize {
        T::table(self).by_id.len()
    }

    /// Without regard to case. Always `None` for nodes and tasks, whose names are not unique; see
    /// [`Self::nodes_by_hostname`] and [`Self::task_by_name`].
    pub fn find_by_name<T: Stored>(&self, name: &str) -> Option<&Arc<T>> {
        T::table(self).by_name(name)
    }

    pub fn find_by_id_prefix<'a, T: Stored>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Arc<T>> {
        T::table(self).by_id_prefix(prefix)
    }

    pub fn object(&self, kind: ObjectKind, id: &str) -> Option<Object> {
        fn found<T: Stored>(view: &View, id: &str) -> Option<Object> {
            view.get::<T>(id)
                .map(|object| Arc::clone(object).into_object())
        }
        match kind {
            ObjectKind::Node => found::<proto::Node>(self, id),
            ObjectKind::Service => found::<proto::Service>(self, id),
            ObjectKind::Task => found::<Task>(self, id),
            ObjectKind::Network => found::<proto::Network>(self, id),
            ObjectKind::Cluster => found::<proto::Cluster>(self, id),
            ObjectKind::Secret => found::<proto::Secret>(self, id),
            ObjectKind::Config => found::<proto::Config>(self, id),
            ObjectKind::Volume => found::<proto::Volume>(self, id),
            ObjectKind::Resource => found::<proto::Resource>(self, id),
            ObjectKind::Extension => found::<proto::Extension>(self, id),
        }
    }
}

/// By the names of the kinds, for readers.
impl View {
    pub fn node(&self, id: &NodeId) -> Option<&Arc<proto::Node>> {
        self.get(id)
    }

    pub fn service(&self, id: &ServiceId) -> Option<&Arc<proto::Service>> {
        self.get(id)
    }

    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.get(id)
    }

    pub fn network(&self, id: &NetworkId) -> Option<&Arc<proto::Network>> {
        self.get(id)
    }

    pub fn secret(&self, id: &SecretId) -> Option<&Arc<proto::Secret>> {
        self.get(id)
    }

    pub fn config(&self, id: &ConfigId) -> Option<&Arc<proto::Config>> {
        self.get(id)
    }

    pub fn volume(&self, id: &VolumeId) -> Option<&Arc<proto::Volume>> {
        self.get(id)
    }

    pub fn cluster(&self, id: &ClusterId) -> Option<&Arc<proto::Cluster>> {
        self.get(id)
    }

    /// The swarm's own object. There is one, once the first leader has made it.
    pub fn the_cluster(&self) -> Option<&Arc<proto::Cluster>> {
        self.find_by_name(skep_model::defaults::CLUSTER_NAME)
            .or_else(|| self.all().next())
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Arc<proto::Node>> {
        self.all()
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<proto::Service>> {
        self.all()
    }

    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.all()
    }

    pub fn networks(&self) -> impl Iterator<Item = &Arc<proto::Network>> {
        self.all()
    }
}

/// Nodes.
impl View {
    /// Without regard to case; machines may share a name.
    pub fn nodes_by_hostname(
        &self,
        hostname: &str,
    ) -> impl Iterator<Item = &Arc<proto::Node>> + use<'_> {
        self.nodes.indexes.hostname.values(&hostname.to_lowercase())
    }

    pub fn nodes_with_role(
        &self,
        role: proto::NodeRole,
    ) -> impl Iterator<Item = &Arc<proto::Node>> + use<'_> {
        self.nodes.indexes.role.values(&(role as i32))
    }

    pub fn nodes_with_membership(
        &self,
        membership: proto::node_spec::Membership,
    ) -> impl Iterator<Item = &Arc<proto::Node>> + use<'_> {
        self.nodes.indexes.membership.values(&(membership as i32))
    }
}

/// Services.
impl View {
    /// The service's current task spec. Tasks made from it should hold this very allocation.
    pub fn task_spec(&self, service: &ServiceId) -> Option<&Arc<proto::TaskSpec>> {
        self.task_specs.get(service)
    }

    pub fn services_on_network(
        &self,
        network: &NetworkId,
    ) -> impl Iterator<Item = &Arc<proto::Service>> + use<'_> {
        self.services.indexes.network.values(network)
    }

    pub fn services_using_secret(
        &self,
        secret: &SecretId,
    ) -> impl Iterator<Item = &Arc<proto::Service>> + use<'_> {
        self.services.indexes.secret.values(secret)
    }

    pub fn services_using_config(
        &self,
        config: &ConfigId,
    ) -> impl Iterator<Item = &Arc<proto::Service>> + use<'_> {
        self.services.indexes.config.values(config)
    }
}

/// Tasks.
impl View {
    /// In order of slots.
    pub fn tasks_of_service(
        &self,
        service: &ServiceId,
    ) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.indexes.service.values(service)
    }

    pub fn tasks_of_slot(
        &self,
        service: &ServiceId,
        slot: Slot,
    ) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks
            .indexes
            .service
            .get(service)
            .into_iter()
            .flat_map(move |tasks| {
                tasks
                    .range((slot, TaskId::default())..)
                    .take_while(move |((other, _), _)| *other == slot)
                    .map(|(_, task)| task)
            })
    }

    pub fn tasks_on_node(&self, node: &NodeId) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.indexes.node.values(node)
    }

    pub fn count_tasks_on_node(&self, node: &NodeId) -> usize {
        self.tasks.indexes.node.len(node)
    }

    /// By observed state.
    pub fn tasks_in_state(&self, state: TaskState) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.indexes.state.values(&state)
    }

    pub fn tasks_desired(&self, state: TaskState) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.indexes.desired_state.values(&state)
    }

    /// Tasks that ask for the network or are attached to it.
    pub fn tasks_on_network(
        &self,
        network: &NetworkId,
    ) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.indexes.network.values(network)
    }

    pub fn tasks_using_secret(
        &self,
        secret: &SecretId,
    ) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.indexes.secret.values(secret)
    }

    pub fn tasks_using_config(
        &self,
        config: &ConfigId,
    ) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.indexes.config.values(config)
    }

    pub fn tasks_using_volume(
        &self,
        volume: &VolumeId,
    ) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.indexes.volume.values(volume)
    }

    /// The task people call so, without regard to case.
    pub fn task_by_name(&self, name: &str) -> Option<&Arc<Task>> {
        // A made-up name ends in the id; only names given on purpose need the search.
        let by_id = name
            .rsplit('.')
            .next()
            .and_then(|id| self.get::<Task>(id.to_lowercase()));
        by_id
            .filter(|task| task.name().eq_ignore_ascii_case(name))
            .or_else(|| {
                let given = |task: &&Arc<Task>| task.annotations.name.eq_ignore_ascii_case(name);
                self.tasks().find(given).filter(|_| !name.is_empty())
            })
    }
}

/// Resources.
impl View {
    pub fn resources_of_kind(
        &self,
        kind: &str,
    ) -> impl Iterator<Item = &Arc<proto::Resource>> + use<'_> {
        self.resources.indexes.kind.values(&kind.to_owned())
    }
}

/// Whole-state conversions.
impl View {
    pub(crate) fn save(&self) -> proto::StoreSnapshot {
        fn wire<T: Stored>(view: &View) -> Vec<T> {
            view.all::<T>().map(|object| (**object).clone()).collect()
        }
        proto::StoreSnapshot {
            nodes: wire(self),
            services: wire(self),
            networks: wire(self),
            tasks: self.tasks().map(|task| (&**task).into()).collect(),
            clusters: wire(self),
            secrets: wire(self),
            resources: wire(self),
            extensions: wire(self),
            configs: wire(self),
            volumes: wire(self),
        }
    }

    pub(crate) fn restore(
        snapshot: proto::StoreSnapshot,
        version: u64,
    ) -> Result<Self, crate::ApplyError> {
        let mut view = Self {
            version,
            ..Self::default()
        };
        // Services before tasks: tasks share their services' specs.
        fn insert<T: Stored>(view: &mut View, objects: Vec<T>) {
            for object in objects {
                view.insert(Arc::new(object));
            }
        }
        insert(&mut view, snapshot.clusters);
        insert(&mut view, snapshot.nodes);
        insert(&mut view, snapshot.networks);
        insert(&mut view, snapshot.secrets);
        insert(&mut view, snapshot.configs);
        insert(&mut view, snapshot.volumes);
        insert(&mut view, snapshot.extensions);
        insert(&mut view, snapshot.resources);
        insert(&mut view, snapshot.services);
        for task in snapshot.tasks {
            view.insert(Arc::new(Task::try_from(task)?));
        }
        Ok(view)
    }
}
