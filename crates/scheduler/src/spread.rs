//! Placement preferences: tasks divided evenly over the values of a label, within each value over
//! the values of the next label, and so on.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use skep_model::Task;
use skep_proto as proto;
use skep_proto::placement_preference::Preference;

use crate::NodeSet;
use crate::choose::{Candidates, Rank, Request};
use crate::constraint::label_by_descriptor;

/// The nodes as a tree of label values.
pub(crate) struct Spread {
    root: Branch,
    /// The path to the node given out last, so that it can be put back.
    path: Vec<String>,
}

#[derive(Default)]
struct Branch {
    /// Active tasks of the service below, on whatever nodes.
    tasks: u32,
    branches: BTreeMap<String, Branch>,
    /// On the lowest level: the nodes which take a task.
    candidates: Candidates,
}

impl Spread {
    /// `None` if the task has no preference that is understood.
    pub(crate) fn new(nodes: &NodeSet, request: &Request<'_>, task: &Task) -> Option<Self> {
        let descriptors: Vec<&str> = task
            .spec
            .placement
            .iter()
            .flat_map(|placement| &placement.preferences)
            .filter_map(descriptor)
            .filter(|d| label_by_descriptor(&proto::Node::default(), d).is_some())
            .collect();
        if descriptors.is_empty() {
            return None;
        }
        let mut root = Branch::default();
        for (number, info) in nodes.nodes.iter().enumerate() {
            let Some(info) = info else { continue };
            let number = number as u32;
            let siblings = nodes.siblings(request.service, number);
            let mut branch = &mut root;
            branch.tasks += siblings;
            for descriptor in &descriptors {
                // A node without the label stands under the empty value.
                let value = label_by_descriptor(info.node(), descriptor).unwrap_or_default();
                branch = branch.branches.entry(value.to_owned()).or_default();
                branch.tasks += siblings;
            }
            if nodes.is_fit(request, number) {
                branch.candidates.push(Reverse(nodes.rank(request, number)));
            }
        }
        Some(Self {
            root,
            path: Vec::new(),
        })
    }

    /// The next node: on each level the branch with the fewest tasks that still takes one.
    pub(crate) fn next(&mut self, nodes: &NodeSet, request: &Request<'_>) -> Option<u32> {
        self.path.clear();
        self.root.next(nodes, request, &mut self.path)
    }

    /// Returns the node that [`Spread::next`] gave, with its new rank, for more tasks.
    pub(crate) fn put_back(&mut self, rank: Reverse<Rank>) {
        let mut branch = &mut self.root;
        for value in &self.path {
            branch = branch
                .branches
                .get_mut(value)
                .expect("the path was walked a moment ago");
        }
        branch.candidates.push(rank);
    }
}

impl Branch {
    fn next(
        &mut self,
        nodes: &NodeSet,
        request: &Request<'_>,
        path: &mut Vec<String>,
    ) -> Option<u32> {
        if self.branches.is_empty() {
            let node = nodes.next(&mut self.candidates, request)?;
            self.tasks += 1;
            return Some(node);
        }
        loop {
            let least = self
                .branches
                .iter_mut()
                .min_by_key(|(_, branch)| branch.tasks);
            let (value, branch) = least?;
            let value = value.clone();
            path.push(value.clone());
            if let Some(node) = branch.next(nodes, request, path) {
                self.tasks += 1;
                return Some(node);
            }
            path.pop();
            // Full: within a group nothing becomes free again.
            self.branches.remove(&value);
        }
    }
}

fn descriptor(preference: &proto::PlacementPreference) -> Option<&str> {
    match preference.preference.as_ref()? {
        Preference::Spread(spread) => Some(&spread.spread_descriptor),
    }
}
