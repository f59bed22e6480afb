//! Where a service kept failing lately, so that other nodes are tried first.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_model::{ServiceId, TaskId, Timestamp, Version};

/// How far back failures count.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// From how many failures on a node is avoided.
const LIMIT: usize = 5;

/// A service's spec; failures of an older one say nothing about it.
type VersionedService = (Option<ServiceId>, Option<Version>);
/// Keyed by task, so that telling twice of a failure counts once.
type FailuresByNode = BTreeMap<u32, BTreeMap<TaskId, Timestamp>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    recent: BTreeMap<VersionedService, FailuresByNode>,
    swept_at: Timestamp,
}

impl Failures {
    pub(crate) fn record(
        &mut self,
        service: VersionedService,
        node: u32,
        task: &TaskId,
        at: Timestamp,
        now: Timestamp,
    ) {
        if is_old(at, now) {
            return;
        }
        self.sweep(now);
        let tasks = self
            .recent
            .entry(service)
            .or_default()
            .entry(node)
            .or_default();
        tasks.insert(task.clone(), at);
    }

    /// The nodes to avoid for a service, with how often it failed there.
    pub(crate) fn avoided(&self, service: &VersionedService, now: Timestamp) -> BTreeMap<u32, u32> {
        let Some(nodes) = self.recent.get(service) else {
            return BTreeMap::new();
        };
        let recent = |tasks: &BTreeMap<TaskId, Timestamp>| {
            tasks.values().filter(|at| !is_old(**at, now)).count()
        };
        nodes
            .iter()
            .map(|(node, tasks)| (*node, recent(tasks)))
            .filter(|(_, count)| *count >= LIMIT)
            .map(|(node, count)| (node, count as u32))
            .collect()
    }

    pub(crate) fn forget_node(&mut self, node: u32) {
        for nodes in self.recent.values_mut() {
            nodes.remove(&node);
        }
    }

    /// Drops what no longer counts, once in a window, so that the record stays small.
    fn sweep(&mut self, now: Timestamp) {
        if !is_old(self.swept_at, now) {
            return;
        }
        self.swept_at = now;
        self.recent.retain(|_, nodes| {
            nodes.retain(|_, tasks| {
                tasks.retain(|_, at| !is_old(*at, now));
                !tasks.is_empty()
            });
            !nodes.is_empty()
        });
    }
}

fn is_old(at: Timestamp, now: Timestamp) -> bool {
    now.saturating_since(at) > WINDOW
}
