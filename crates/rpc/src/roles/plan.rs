//! What has to be done for members and roles to agree.

use std::collections::BTreeMap;

use skep_proto as proto;
use skep_proto::NodeRole;
use skep_raft::Members;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    SetRole {
        node: String,
        role: NodeRole,
    },
    /// This manager has to go: another one shall lead first, and remove it.
    HandOver {
        raft_id: u64,
    },
    Remove {
        raft_id: u64,
    },
}

/// A node loses its role only once it is no longer a member: as long as it is one it needs the
/// certificate of a manager.
pub(super) fn plan<'a>(
    nodes: impl Iterator<Item = &'a proto::Node>,
    members: &Members,
    this: u64,
) -> Vec<Action> {
    let mut homeless: BTreeMap<&str, u64> = members
        .iter()
        .map(|member| (member.node_id.as_str(), member.raft_id))
        .collect();
    let mut actions = Vec::new();
    for node in nodes {
        let member = homeless.remove(node.id.as_str());
        let desired = node
            .spec
            .as_ref()
            .map(proto::NodeSpec::desired_role)
            .unwrap_or_default();
        match (node.role(), desired, member) {
            (NodeRole::Worker, NodeRole::Manager, _)
            | (NodeRole::Manager, NodeRole::Worker, None) => actions.push(Action::SetRole {
                node: node.id.clone(),
                role: desired,
            }),
            (NodeRole::Manager, NodeRole::Worker, Some(raft_id)) => {
                actions.push(removal(raft_id, this));
            }
            _ => {}
        }
    }
    // Their nodes were removed. A member's node is always there before the member.
    actions.extend(homeless.into_values().map(|raft_id| removal(raft_id, this)));
    actions
}

fn removal(raft_id: u64, this: u64) -> Action {
    if raft_id == this {
        Action::HandOver { raft_id }
    } else {
        Action::Remove { raft_id }
    }
}
