//! From waiting tasks to decisions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use skep_model::{NodeId, ServiceId, Task, TaskId, Timestamp};
use skep_proto as proto;

use crate::NodeSet;
use crate::filter::{Filters, Refusals};
use crate::spread::Spread;

/// What was decided for a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Assign {
        task: TaskId,
        node: NodeId,
        /// Which of the node's generic resources it gets.
        generic: Vec<proto::GenericResource>,
    },
    /// The task has to wait; `reason` is its status' error.
    Wait { task: TaskId, reason: String },
}

/// How good a node is for one more task; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Failures of the service there; 0 unless they are so many that the node is to be avoided.
    failures: u32,
    siblings: u32,
    active: u32,
    /// Only for a defined order.
    pub(crate) node: u32,
}

/// Nodes that passed the filters, best first.
pub(crate) type Candidates = BinaryHeap<Reverse<Rank>>;

/// What all tasks of a group have in common.
pub(crate) struct Request<'a> {
    pub(crate) filters: Filters<'a>,
    pub(crate) service: Option<&'a ServiceId>,
    avoided: BTreeMap<u32, u32>,
}

impl NodeSet {
    /// Chooses nodes for tasks which wait for one. Each group holds tasks of one service and one
    /// version of its spec, so they ask the same of a node; a task of no service is its own group.
    pub fn schedule<'a>(
        &mut self,
        groups: impl IntoIterator<Item = &'a [&'a Task]>,
        now: Timestamp,
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for group in groups {
            self.schedule_group(group, now, &mut decisions);
        }
        decisions
    }

    /// Checks a task whose node was chosen already (a global service's). `None` if that node is not
    /// known, so that there is nothing to say yet.
    pub fn confirm(&mut self, task: &Task, now: Timestamp) -> Option<Decision> {
        let node = self.number(task.node_id.as_ref()?)?;
        let request = self.request(task, now);
        let siblings = self.siblings(request.service, node);
        if let Some(refusal) = request.filters.refusal(self.info(node)?, siblings) {
            let mut refusals = Refusals::default();
            refusals.count(refusal);
            return Some(Decision::Wait {
                task: task.id.clone(),
                reason: refusals.explain(),
            });
        }
        Some(self.assign(&request, task, node))
    }

    fn schedule_group(&mut self, tasks: &[&Task], now: Timestamp, decisions: &mut Vec<Decision>) {
        let Some(first) = tasks.first() else { return };
        let request = self.request(first, now);
        let mut spread = Spread::new(self, &request, first);
        let mut candidates = match &spread {
            Some(_) => Candidates::new(),
            None => self.candidates(&request, tasks.len()),
        };
        for (index, task) in tasks.iter().enumerate() {
            let node = match &mut spread {
                Some(spread) => spread.next(self, &request),
                None => self.next(&mut candidates, &request),
            };
            let Some(node) = node else {
                self.explain(&request, &tasks[index..], decisions);
                return;
            };
            decisions.push(self.assign(&request, task, node));
            let rank = Reverse(self.rank(&request, node));
            match &mut spread {
                Some(spread) => spread.put_back(rank),
                None => candidates.push(rank),
            }
        }
    }

    fn request<'a>(&self, task: &'a Task, now: Timestamp) -> Request<'a> {
        let versioned = (task.service_id.clone(), task.spec_version);
        Request {
            filters: Filters::new(task),
            service: task.service_id.as_ref(),
            avoided: self.failures.avoided(&versioned, now),
        }
    }

    /// At most `want` nodes without a task of the service, least loaded first, and all nodes that
    /// have one. Since a node that fits takes at least one task, `want` tasks need no more.
    fn candidates(&self, request: &Request<'_>, want: usize) -> Candidates {
        let none = BTreeMap::new();
        let hosts = request
            .service
            .and_then(|s| self.services.get(s))
            .unwrap_or(&none);
        let special = |node: &u32| hosts.contains_key(node) || request.avoided.contains_key(node);
        let fresh = self
            .by_load
            .iter()
            .map(|(_, node)| *node)
            .filter(|node| !special(node) && self.is_fit(request, *node))
            .take(want);
        let others = hosts
            .keys()
            .chain(
                request
                    .avoided
                    .keys()
                    .filter(|node| !hosts.contains_key(node)),
            )
            .copied()
            .filter(|node| self.is_fit(request, *node));
        fresh
            .chain(others)
            .map(|node| Reverse(self.rank(request, node)))
            .collect()
    }

    /// The best node that still takes a task. Those that no longer do are dropped: within a group
    /// nothing becomes free again.
    pub(crate) fn next(&self, candidates: &mut Candidates, request: &Request<'_>) -> Option<u32> {
        while let Some(Reverse(rank)) = candidates.pop() {
            if self.is_fit(request, rank.node) {
                return Some(rank.node);
            }
        }
        None
    }

    pub(crate) fn is_fit(&self, request: &Request<'_>, node: u32) -> bool {
        let siblings = self.siblings(request.service, node);
        self.info(node)
            .is_some_and(|info| request.filters.refusal(info, siblings).is_none())
    }

    pub(crate) fn rank(&self, request: &Request<'_>, node: u32) -> Rank {
        Rank {
            failures: request.avoided.get(&node).copied().unwrap_or(0),
            siblings: self.siblings(request.service, node),
            active: self.info(node).map_or(0, crate::node::NodeInfo::active),
            node,
        }
    }

    fn assign(&mut self, request: &Request<'_>, task: &Task, number: u32) -> Decision {
        let info = self
            .info(number)
            .expect("a node that passed the filters is there");
        let node = info.id().clone();
        let wanted = request.filters.reservations();
        let generic = wanted.map(|wanted| info.pick(wanted)).unwrap_or_default();
        self.reserve(number, task, generic.clone());
        Decision::Assign {
            task: task.id.clone(),
            node,
            generic,
        }
    }

    fn explain(&self, request: &Request<'_>, tasks: &[&Task], decisions: &mut Vec<Decision>) {
        let mut refusals = Refusals::default();
        for (number, info) in self.nodes.iter().enumerate() {
            let siblings = self.siblings(request.service, number as u32);
            let refusal = info
                .as_ref()
                .and_then(|i| request.filters.refusal(i, siblings));
            if let Some(refusal) = refusal {
                refusals.count(refusal);
            }
        }
        let reasons = refusals.explain();
        let reason = match reasons.as_str() {
            "" => "no suitable node".to_owned(),
            reasons => format!("no suitable node ({reasons})"),
        };
        decisions.extend(tasks.iter().map(|t| Decision::Wait {
            task: t.id.clone(),
            reason: reason.clone(),
        }));
    }
}
