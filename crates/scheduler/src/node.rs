//! What the scheduler knows of one node.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::{NodeId, Task};
use skep_proto as proto;

use crate::resources::{Reserved, Totals, Use};

/// A port of the node's own address, as (protocol, number).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    protocol: i32,
    port: u32,
}

/// The host-mode ports a task publishes under a chosen number.
pub(crate) fn host_ports(task: &Task) -> Vec<HostPort> {
    let ports = task
        .endpoint
        .as_ref()
        .map_or(&[][..], |endpoint| &endpoint.ports);
    ports
        .iter()
        .filter(|p| {
            p.publish_mode() == proto::port_config::PublishMode::Host && p.published_port != 0
        })
        .map(|p| HostPort {
            protocol: p.protocol,
            port: p.published_port,
        })
        .collect()
}

/// What one task takes of its node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Footprint {
    /// Wanted to run or to complete. A task that is being stopped still holds its resources, but no
    /// longer counts when load is compared.
    pub(crate) active: bool,
    pub(crate) reserved: Reserved,
    pub(crate) generic: Vec<proto::GenericResource>,
    pub(crate) ports: Vec<HostPort>,
}

#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    id: NodeId,
    node: Arc<proto::Node>,
    totals: Totals,
    used: Use,
    /// Counted, because a stopping task and its successor can name the same port for a moment.
    ports: BTreeMap<HostPort, u32>,
    active: u32,
}

impl NodeInfo {
    pub(crate) fn new(id: NodeId, node: Arc<proto::Node>) -> Self {
        let totals = totals(&node);
        Self {
            id,
            node,
            totals,
            used: Use::default(),
            ports: BTreeMap::new(),
            active: 0,
        }
    }

    pub(crate) fn update(&mut self, node: Arc<proto::Node>) {
        self.totals = totals(&node);
        self.node = node;
    }

    pub(crate) fn id(&self) -> &NodeId {
        &self.id
    }

    pub(crate) fn node(&self) -> &proto::Node {
        &self.node
    }

    /// How many active tasks it has, of all services.
    pub(crate) fn active(&self) -> u32 {
        self.active
    }

    pub(crate) fn is_ready(&self) -> bool {
        let state = self.node.status.as_ref().map(proto::NodeStatus::state);
        let availability = self.node.spec.as_ref().map(proto::NodeSpec::availability);
        state == Some(proto::node_status::State::Ready)
            && availability.unwrap_or_default() == proto::node_spec::Availability::Active
    }

    /// The reserved share of processors and of memory together, in thousandths of each.
    pub(crate) fn fullness(&self) -> u32 {
        self.totals.reserved_share(&self.used)
    }

    pub(crate) fn fits(&self, wanted: &proto::Resources) -> bool {
        self.totals.fits(&self.used, wanted)
    }

    pub(crate) fn pick(&self, wanted: &proto::Resources) -> Vec<proto::GenericResource> {
        self.totals.pick(&self.used, wanted)
    }

    pub(crate) fn uses_port(&self, port: HostPort) -> bool {
        self.ports.contains_key(&port)
    }

    pub(crate) fn add(&mut self, footprint: &Footprint) {
        self.active += u32::from(footprint.active);
        self.used.take(footprint.reserved, &footprint.generic);
        for port in &footprint.ports {
            *self.ports.entry(*port).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, footprint: &Footprint) {
        self.active -= u32::from(footprint.active);
        self.used.give_back(footprint.reserved, &footprint.generic);
        for port in &footprint.ports {
            if let Some(count) = self.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }
}

fn totals(node: &proto::Node) -> Totals {
    Totals::new(node.description.as_ref().and_then(|d| d.resources.as_ref()))
}
