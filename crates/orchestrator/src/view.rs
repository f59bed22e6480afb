//! What decisions look at.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::ext::{NodeExt as _, ServiceExt as _};
use skep_model::{NodeId, Task, Timestamp, Version, defaults};
use skep_proto as proto;
use skep_proto::service_spec::Mode;

/// All nodes of the cluster.
pub type Nodes = BTreeMap<NodeId, Arc<proto::Node>>;

/// One service at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ServiceView<'a> {
    pub service: &'a proto::Service,
    /// All tasks of the service, ended ones too, in any order.
    pub tasks: &'a [Arc<Task>],
    pub nodes: &'a Nodes,
    /// How many tasks of a slot are kept, the running one included; negative: all.
    pub history_limit: i64,
    pub now: Timestamp,
}

impl<'a> ServiceView<'a> {
    pub(crate) fn node_of(&self, task: &Task) -> Option<&'a proto::Node> {
        self.nodes.get(task.node_id.as_ref()?).map(Arc::as_ref)
    }

    /// Whether the task was given to a node which cannot be counted on.
    pub(crate) fn lost_its_node(&self, task: &Task) -> bool {
        task.node_id.is_some() && is_invalid(self.node_of(task))
    }

    pub(crate) fn is_job(&self) -> bool {
        matches!(
            self.service.spec().mode,
            Some(Mode::ReplicatedJob(_) | Mode::GlobalJob(_))
        )
    }

    pub(crate) fn is_by_node(&self) -> bool {
        matches!(
            self.service.spec().mode,
            Some(Mode::Global(_) | Mode::GlobalJob(_))
        )
    }

    pub(crate) fn update_state(&self) -> Option<proto::update_status::UpdateState> {
        self.service
            .update_status
            .as_ref()
            .map(proto::UpdateStatus::state)
    }

    pub(crate) fn spec_version(&self) -> Option<Version> {
        self.service.spec_version.map(Version::from)
    }
}

/// Whether tasks on this node are to move: it is gone, down or being drained.
pub fn is_invalid(node: Option<&proto::Node>) -> bool {
    node.is_none_or(|node| is_down(node) || is_drained(node))
}

pub(crate) fn is_down(node: &proto::Node) -> bool {
    node.status().state() == proto::node_status::State::Down
}

pub(crate) fn is_drained(node: &proto::Node) -> bool {
    node.spec().availability() == proto::node_spec::Availability::Drain
}

pub(crate) fn is_paused(node: &proto::Node) -> bool {
    node.spec().availability() == proto::node_spec::Availability::Pause
}

/// When the task's status was last heard of. The manager's clock is preferred: nodes' clocks may be
/// anything.
pub(crate) fn status_time(task: &Task) -> Timestamp {
    task.status
        .applied_at
        .or(task.status.timestamp)
        .unwrap_or_default()
}

pub(crate) fn created_at(task: &Task) -> Timestamp {
    task.meta.created_at.unwrap_or_default()
}

pub(crate) fn duration(
    wire: Option<&prost_types::Duration>,
    default: std::time::Duration,
) -> std::time::Duration {
    wire.map_or(default, |wire| {
        defaults::duration_from_wire(wire).unwrap_or_default()
    })
}

/// When a wait of `span` that began at `from` is over, if it is not over yet. A wait that would end
/// later than one that began now did not begin in the past: the clock was set back, and nobody is to
/// wait for it to catch up.
pub(crate) fn wait_until(
    from: Timestamp,
    span: std::time::Duration,
    now: Timestamp,
) -> Option<Timestamp> {
    let until = from + span;
    (until > now && from <= now).then_some(until)
}
