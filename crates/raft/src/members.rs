//! Who the members of the raft group are, and where. Changed only by applied entries.

use prost::Message as _;
use skep_proto::RaftMember;
use std::collections::{BTreeMap, BTreeSet};

/// A version of the membership.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members {
    members: BTreeMap<u64, RaftMember>,
    /// A removed id never comes back: a message from it is refused.
    removed: BTreeSet<u64>,
}

impl Members {
    pub fn get(&self, raft_id: u64) -> Option<&RaftMember> {
        self.members.get(&raft_id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &RaftMember> {
        self.members.values()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn is_removed(&self, raft_id: u64) -> bool {
        self.removed.contains(&raft_id)
    }

    pub fn removed(&self) -> impl Iterator<Item = u64> {
        self.removed.iter().copied()
    }

    pub(crate) fn of(members: impl IntoIterator<Item = RaftMember>) -> Self {
        let members = members
            .into_iter()
            .map(|member| (member.raft_id, member))
            .collect();
        Self {
            members,
            removed: BTreeSet::new(),
        }
    }

    pub(crate) fn put(&mut self, member: RaftMember) {
        self.members.insert(member.raft_id, member);
    }

    pub(crate) fn remove(&mut self, raft_id: u64) {
        self.members.remove(&raft_id);
        self.removed.insert(raft_id);
    }
}

/// SwarmKit's `Snapshot`, with the store's part left as bytes: a message and a bytes field look the
/// same on the wire, and this crate does not look inside.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ClusterState {
    /// V0.
    #[prost(int32, tag = "1")]
    version: i32,
    #[prost(message, optional, tag = "2")]
    membership: Option<skep_proto::ClusterSnapshot>,
    #[prost(bytes = "vec", tag = "3")]
    store: Vec<u8>,
}

impl ClusterState {
    pub(crate) fn encode(members: &Members, store: Vec<u8>) -> Vec<u8> {
        let membership = skep_proto::ClusterSnapshot {
            members: members.members.values().cloned().collect(),
            removed: members.removed.iter().copied().collect(),
        };
        Self {
            version: 0,
            membership: Some(membership),
            store,
        }
        .encode_to_vec()
    }

    /// The membership and the store's part.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Members, Vec<u8>), String> {
        let state = <Self as prost::Message>::decode(bytes).map_err(|error| error.to_string())?;
        if state.version != 0 {
            return Err(format!("unrecognized snapshot version {}", state.version));
        }
        let membership = state.membership.unwrap_or_default();
        let mut members = Members::of(membership.members);
        members.removed = membership.removed.into_iter().collect();
        Ok((members, state.store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(raft_id: u64) -> RaftMember {
        RaftMember {
            raft_id,
            node_id: format!("n{raft_id}"),
            ..Default::default()
        }
    }

    #[test]
    fn the_cluster_state_is_swarmkits_snapshot_message() {
        let mut members = Members::of([member(1), member(2), member(3)]);
        members.remove(2);
        let store = skep_proto::StoreSnapshot {
            nodes: vec![skep_proto::Node {
                id: "n1".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let bytes = ClusterState::encode(&members, store.encode_to_vec());

        let theirs = skep_proto::Snapshot::decode(bytes.as_slice()).unwrap();
        assert_eq!(theirs.store, Some(store.clone()));
        assert_eq!(theirs.membership.as_ref().unwrap().removed, [2]);
        let (again, data) = ClusterState::decode(&theirs.encode_to_vec()).unwrap();
        assert_eq!((again, data), (members, store.encode_to_vec()));
    }

    #[test]
    fn a_snapshot_of_a_later_version_is_refused() {
        let bytes = ClusterState {
            version: 7,
            membership: None,
            store: vec![],
        }
        .encode_to_vec();
        assert_eq!(
            ClusterState::decode(&bytes).unwrap_err(),
            "unrecognized snapshot version 7"
        );
    }
}
