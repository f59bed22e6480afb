//! From waiting tasks to decisions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use skep_model::labels::Strategy;
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
    /// What the strategy compares first: for spread, tasks of the same service.
    first: u32,
    /// For spread, all tasks.
    second: u32,
    /// Only for a defined order.
    pub(crate) node: u32,
}

/// Nodes that passed the filters, best first.
pub(crate) type Candidates = BinaryHeap<Reverse<Rank>>;

/// Where the next node comes from.
enum Source {
    Spread(Spread),
    Ranked(Candidates),
    Random(Vec<u32>),
}

/// What all tasks of a group have in common.
pub(crate) struct Request<'a> {
    pub(crate) filters: Filters<'a>,
    pub(crate) service: Option<&'a ServiceId>,
    strategy: Strategy,
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
        let mut source = match (Spread::new(self, &request, first), request.strategy) {
            (Some(spread), _) => Source::Spread(spread),
            (None, Strategy::Spread) => Source::Ranked(self.candidates(&request, tasks.len())),
            (None, Strategy::Binpack) => Source::Ranked(self.all_fit(&request).collect()),
            (None, Strategy::Random) => {
                let ranked = self.all_fit(&request);
                Source::Random(ranked.map(|Reverse(rank)| rank.node).collect())
            }
        };
        for (index, task) in tasks.iter().enumerate() {
            let node = match &mut source {
                Source::Spread(spread) => spread.next(self, &request),
                Source::Ranked(candidates) => self.next(candidates, &request),
                Source::Random(nodes) => self.any(nodes, &request, task),
            };
            let Some(node) = node else {
                self.explain(&request, &tasks[index..], decisions);
                return;
            };
            decisions.push(self.assign(&request, task, node));
            let rank = Reverse(self.rank(&request, node));
            match &mut source {
                Source::Spread(spread) => spread.put_back(rank),
                Source::Ranked(candidates) => candidates.push(rank),
                Source::Random(_) => {}
            }
        }
    }

    fn all_fit(&self, request: &Request<'_>) -> impl Iterator<Item = Reverse<Rank>> {
        let ready = self.by_load.iter().map(|(_, node)| *node);
        ready
            .filter(|node| self.is_fit(request, *node))
            .map(|node| Reverse(self.rank(request, node)))
    }

    /// One of the nodes, as good as by chance: a task's id is random. Nodes where the service kept
    /// failing are taken only if there is no other.
    fn any(&self, nodes: &mut Vec<u32>, request: &Request<'_>, task: &Task) -> Option<u32> {
        let mut seed = task
            .id
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let mut avoided = Vec::new();
        let found = loop {
            if nodes.is_empty() {
                break avoided.first().copied();
            }
            seed = seed.rotate_left(17).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let at = (seed >> 32) as usize % nodes.len();
            let node = nodes[at];
            if !self.is_fit(request, node) {
                nodes.swap_remove(at);
            } else if request.avoided.contains_key(&node) {
                avoided.push(nodes.swap_remove(at));
            } else {
                break Some(node);
            }
        };
        nodes.append(&mut avoided);
        found
    }

    fn request<'a>(&self, task: &'a Task, now: Timestamp) -> Request<'a> {
        let versioned = (task.service_id.clone(), task.spec_version);
        Request {
            filters: Filters::new(task),
            service: task.service_id.as_ref(),
            strategy: Strategy::of(&task.service_annotations.labels).unwrap_or(self.strategy),
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
        let info = self.info(node);
        let active = info.map_or(0, crate::node::NodeInfo::active);
        let (first, second) = match request.strategy {
            Strategy::Binpack => {
                let fullness = info.map_or(0, crate::node::NodeInfo::fullness);
                (u32::MAX - fullness, u32::MAX - active)
            }
            // Random comes here only below a preference: there it spreads.
            Strategy::Spread | Strategy::Random => (self.siblings(request.service, node), active),
        };
        Rank {
            failures: request.avoided.get(&node).copied().unwrap_or(0),
            first,
            second,
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
