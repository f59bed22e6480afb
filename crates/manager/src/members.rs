//! The managers, as the raft layer knows them.

use std::sync::Arc;

use skep_model::NodeId;
use skep_proto as proto;
use skep_proto::raft_member_status::Reachability;
use tokio::sync::watch;

/// One manager in the raft group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub raft_id: u64,
    pub node_id: NodeId,
    pub addr: String,
    pub leader: bool,
    pub reachability: Reachability,
}

/// All of them, whenever that changes.
pub type Members = watch::Receiver<Arc<Vec<Member>>>;

/// SwarmKit's weight for a manager that nothing is known against.
const WEIGHT: i64 = 10;

pub(crate) fn status_of(members: &[Member], node: &str) -> Option<proto::ManagerStatus> {
    let member = members.iter().find(|member| member.node_id == node)?;
    Some(proto::ManagerStatus {
        raft_id: member.raft_id,
        addr: member.addr.clone(),
        leader: member.leader,
        reachability: member.reachability.into(),
    })
}

/// Where agents may go instead of here.
pub(crate) fn weighted_peers(members: &[Member]) -> Vec<proto::WeightedPeer> {
    let peer = |member: &Member| proto::WeightedPeer {
        peer: Some(proto::Peer {
            node_id: (&member.node_id).into(),
            addr: member.addr.clone(),
        }),
        weight: WEIGHT,
    };
    members.iter().map(peer).collect()
}

/// Whether the others still have a majority among them without this one.
pub(crate) fn can_remove(members: &[Member], raft_id: u64) -> bool {
    let others = || members.iter().filter(|member| member.raft_id != raft_id);
    let reachable = others()
        .filter(|m| m.reachability == Reachability::Reachable)
        .count();
    let left = others().count();
    left > 0 && reachable > left / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(raft_id: u64, reachable: bool) -> Member {
        Member {
            raft_id,
            node_id: format!("n{raft_id}").into(),
            addr: String::new(),
            leader: raft_id == 1,
            reachability: if reachable {
                Reachability::Reachable
            } else {
                Reachability::Unreachable
            },
        }
    }

    #[test]
    fn a_member_can_go_only_if_the_rest_is_a_quorum() {
        let three = [member(1, true), member(2, true), member(3, false)];
        assert!(can_remove(&three, 3));
        assert!(!can_remove(&three, 2));
        assert!(!can_remove(&three[..1], 1), "the last one never");
    }
}
