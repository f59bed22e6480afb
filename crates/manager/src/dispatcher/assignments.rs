//! What one node has been told to run, and what it is to be told next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::{Task, TaskId, TaskState, TaskStatus};
use skep_proto as proto;
use skep_proto::assignment::Item;
use skep_proto::assignment_change::AssignmentAction;
use skep_store::View;

/// Something that tasks need on their node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dependency {
    Secret(String),
    Config(String),
}

#[derive(Debug, Default)]
pub(super) struct AssignmentSet {
    tasks: BTreeMap<TaskId, Arc<Task>>,
    /// Which tasks need each dependency that the node has.
    users: BTreeMap<Dependency, BTreeSet<TaskId>>,
    /// Dependencies come before tasks, so that they are there when a task starts.
    dependency_changes: BTreeMap<Dependency, proto::AssignmentChange>,
    task_changes: BTreeMap<TaskId, proto::AssignmentChange>,
}

impl AssignmentSet {
    /// Enters a task of the node as it now is.
    pub(super) fn put(&mut self, view: &View, task: &Arc<Task>) {
        // Until the scheduler has confirmed it, the task is none of the node's business.
        if task.status.state < TaskState::Assigned {
            return;
        }
        let known = self.tasks.insert(task.id.clone(), Arc::clone(task));
        match known {
            // What the agent itself reported need not be told to it.
            Some(known)
                if task.status.state > TaskState::Assigned
                    && is_same_but_for_status(&known, task) =>
            {
                if task.status.state > TaskState::Running {
                    self.release(task);
                }
                return;
            }
            None if task.status.state <= TaskState::Running => self.require(view, task),
            _ => {}
        }
        let assigned = Item::Task((&**task).into());
        self.task_changes
            .insert(task.id.clone(), change(assigned, AssignmentAction::Update));
    }

    pub(super) fn remove(&mut self, task: &Task) {
        if self.tasks.remove(&task.id).is_none() {
            return;
        }
        let id_only = proto::Task {
            id: (&task.id).into(),
            ..Default::default()
        };
        let removed = change(Item::Task(id_only), AssignmentAction::Remove);
        self.task_changes.insert(task.id.clone(), removed);
        self.release(task);
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.task_changes.is_empty() || !self.dependency_changes.is_empty()
    }

    pub(super) fn take_changes(&mut self) -> Vec<proto::AssignmentChange> {
        let dependencies = std::mem::take(&mut self.dependency_changes).into_values();
        dependencies
            .chain(std::mem::take(&mut self.task_changes).into_values())
            .collect()
    }

    fn require(&mut self, view: &View, task: &Task) {
        for dependency in dependencies(task) {
            let users = self.users.entry(dependency.clone()).or_default();
            let first = users.is_empty();
            users.insert(task.id.clone());
            if first && let Some(item) = dependency.load(view) {
                let added = change(item, AssignmentAction::Update);
                self.dependency_changes.insert(dependency, added);
            }
        }
    }

    fn release(&mut self, task: &Task) {
        for dependency in dependencies(task) {
            let Some(users) = self.users.get_mut(&dependency) else {
                continue;
            };
            users.remove(&task.id);
            if users.is_empty() {
                self.users.remove(&dependency);
                let removed = change(dependency.id_only(), AssignmentAction::Remove);
                self.dependency_changes.insert(dependency, removed);
            }
        }
    }
}

impl Dependency {
    fn load(&self, view: &View) -> Option<Item> {
        match self {
            Self::Secret(id) => view
                .get::<proto::Secret>(id)
                .map(|secret| Item::Secret((**secret).clone())),
            Self::Config(id) => view
                .get::<proto::Config>(id)
                .map(|config| Item::Config((**config).clone())),
        }
    }

    fn id_only(&self) -> Item {
        match self.clone() {
            Self::Secret(id) => Item::Secret(proto::Secret {
                id,
                ..Default::default()
            }),
            Self::Config(id) => Item::Config(proto::Config {
                id,
                ..Default::default()
            }),
        }
    }
}

fn dependencies(task: &Task) -> BTreeSet<Dependency> {
    let container = task.container();
    let secrets = container.into_iter().flat_map(|c| &c.secrets);
    let configs = container.into_iter().flat_map(|c| &c.configs);
    let references = task
        .spec
        .resource_references
        .iter()
        .filter_map(|reference| {
            let id = reference.resource_id.clone();
            match reference.resource_type() {
                proto::ResourceType::Secret => Some(Dependency::Secret(id)),
                proto::ResourceType::Config => Some(Dependency::Config(id)),
                proto::ResourceType::Task | proto::ResourceType::Volume => None,
            }
        });
    secrets
        .map(|secret| Dependency::Secret(secret.secret_id.clone()))
        .chain(configs.map(|config| Dependency::Config(config.config_id.clone())))
        .chain(references)
        .collect()
}

fn is_same_but_for_status(a: &Task, b: &Task) -> bool {
    let stripped = |task: &Task| {
        let mut task = task.clone();
        task.status = TaskStatus::default();
        task.meta = skep_model::Meta::default();
        task
    };
    stripped(a) == stripped(b)
}

fn change(item: Item, action: AssignmentAction) -> proto::AssignmentChange {
    proto::AssignmentChange {
        assignment: Some(proto::Assignment { item: Some(item) }),
        action: action.into(),
    }
}
