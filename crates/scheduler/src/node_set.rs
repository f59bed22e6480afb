//! All nodes and what runs on them, kept up to date change by change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::labels::Strategy;
use skep_model::{NodeId, ServiceId, Task, TaskId, TaskState, Timestamp};
use skep_proto as proto;

use crate::failures::Failures;
use crate::node::{Footprint, NodeInfo, host_ports};
use crate::resources::Reserved;

/// The scheduler's picture of the cluster. Feed it every change of nodes and tasks; what
/// [`NodeSet::schedule`] decides is entered at once, and corrected by the next change of the task if
/// the decision was not committed.
#[derive(Clone, Debug, Default)]
pub struct NodeSet {
    /// Nodes by a small number, which everything else here uses; a removed node leaves a hole.
    pub(crate) nodes: Vec<Option<NodeInfo>>,
    holes: Vec<u32>,
    numbers: BTreeMap<NodeId, u32>,
    placed: BTreeMap<TaskId, Placed>,
    /// Active tasks of each service by node.
    pub(crate) services: BTreeMap<ServiceId, BTreeMap<u32, u32>>,
    /// Ready nodes by how many active tasks they have.
    pub(crate) by_load: BTreeSet<(u32, u32)>,
    pub(crate) failures: Failures,
    /// Of services that do not choose one.
    pub(crate) strategy: Strategy,
}

/// A task that holds something of a node.
#[derive(Clone, Debug, PartialEq)]
struct Placed {
    node: u32,
    service: Option<ServiceId>,
    footprint: Footprint,
}

impl NodeSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// How nodes are chosen for services that do not say it by a label.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.strategy = strategy;
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Enters a node, or what changed of it.
    pub fn upsert_node(&mut self, node: Arc<proto::Node>) {
        let id = NodeId::from(node.id.as_str());
        if let Some(&number) = self.numbers.get(&id) {
            self.change(number, |info| info.update(node));
            return;
        }
        let info = NodeInfo::new(id.clone(), node);
        let number = self.holes.pop().unwrap_or(self.nodes.len() as u32);
        if info.is_ready() {
            self.by_load.insert((info.active(), number));
        }
        if number as usize == self.nodes.len() {
            self.nodes.push(Some(info));
        } else {
            self.nodes[number as usize] = Some(info);
        }
        self.numbers.insert(id, number);
    }

    /// Forgets a node and what was on it.
    pub fn remove_node(&mut self, id: &NodeId) {
        let Some(number) = self.numbers.remove(id) else {
            return;
        };
        let gone: Vec<TaskId> = self
            .placed
            .iter()
            .filter(|(_, placed)| placed.node == number)
            .map(|(task, _)| task.clone())
            .collect();
        for task in gone {
            self.remove_task(&task);
        }
        if let Some(info) = self.nodes[number as usize].take() {
            self.by_load.remove(&(info.active(), number));
        }
        self.failures.forget_node(number);
        self.holes.push(number);
    }

    /// Enters a task as it now is. True if something became free on a node, which a waiting task
    /// may be glad of.
    pub fn upsert_task(&mut self, task: &Task, now: Timestamp) -> bool {
        let node = task
            .node_id
            .as_ref()
            .and_then(|id| self.numbers.get(id))
            .copied();
        if let Some(node) = node
            && matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
        {
            let at = task
                .status
                .applied_at
                .or(task.status.timestamp)
                .unwrap_or(now);
            let service = (task.service_id.clone(), task.spec_version);
            self.failures.record(service, node, &task.id, at, now);
        }
        // Before ASSIGNED the scheduler has not confirmed it; after RUNNING it holds nothing.
        let holds = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
        match node.filter(|_| holds) {
            None => self.remove_task(&task.id),
            Some(node) => {
                let placed = Placed::new(node, task);
                if self.placed.get(&task.id) == Some(&placed) {
                    return false;
                }
                let freed = self.remove_task(&task.id);
                self.place(task.id.clone(), placed);
                freed
            }
        }
    }

    /// Forgets a task; true if it held something.
    pub fn remove_task(&mut self, id: &TaskId) -> bool {
        let Some(placed) = self.placed.remove(id) else {
            return false;
        };
        self.change(placed.node, |info| info.remove(&placed.footprint));
        if placed.footprint.active
            && let Some(service) = &placed.service
            && let Some(nodes) = self.services.get_mut(service)
        {
            if let Some(count) = nodes.get_mut(&placed.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&placed.node);
                }
            }
            if nodes.is_empty() {
                self.services.remove(service);
            }
        }
        true
    }

    /// Enters a decision: the task as it will be once committed.
    pub(crate) fn reserve(&mut self, node: u32, task: &Task, generic: Vec<proto::GenericResource>) {
        self.remove_task(&task.id);
        let mut placed = Placed::new(node, task);
        placed.footprint.generic = generic;
        self.place(task.id.clone(), placed);
    }

    pub(crate) fn number(&self, id: &NodeId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    pub(crate) fn info(&self, number: u32) -> Option<&NodeInfo> {
        self.nodes.get(number as usize)?.as_ref()
    }

    /// How many active tasks of the service the node has.
    pub(crate) fn siblings(&self, service: Option<&ServiceId>, node: u32) -> u32 {
        let nodes = service.and_then(|service| self.services.get(service));
        nodes
            .and_then(|nodes| nodes.get(&node))
            .copied()
            .unwrap_or(0)
    }

    fn place(&mut self, task: TaskId, placed: Placed) {
        self.change(placed.node, |info| info.add(&placed.footprint));
        if placed.footprint.active
            && let Some(service) = &placed.service
        {
            let nodes = self.services.entry(service.clone()).or_default();
            *nodes.entry(placed.node).or_default() += 1;
        }
        self.placed.insert(task, placed);
    }

    /// Changes a node and its place in the order of load.
    fn change(&mut self, number: u32, change: impl FnOnce(&mut NodeInfo)) {
        let Some(info) = self.nodes.get_mut(number as usize).and_then(Option::as_mut) else {
            return;
        };
        let before = (info.is_ready(), info.active());
        change(info);
        let after = (info.is_ready(), info.active());
        if before != after {
            self.by_load.remove(&(before.1, number));
            if after.0 {
                self.by_load.insert((after.1, number));
            }
        }
    }
}

impl Placed {
    fn new(node: u32, task: &Task) -> Self {
        Self {
            node,
            service: task.service_id.clone(),
            footprint: Footprint {
                active: task.desired_state <= TaskState::Complete,
                reserved: Reserved::of(&task.spec),
                generic: task.assigned_generic_resources.clone(),
                ports: host_ports(task),
            },
        }
    }
}
