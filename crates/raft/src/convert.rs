//! Between etcd's messages (prost, on the wire and on disk) and TiKV's (rust-protobuf, in memory).
//!
//! Field by field, never by re-encoding: TiKV's decoder must not see bytes of the network, and one
//! enum has different numbers (`ConfChangeType` 2 is UpdateNode for etcd, AddLearnerNode for TiKV).
//! TiKV's extra fields (priority, request_snapshot, commit_term, sync_log, an entry's context) have no
//! counterpart and are never sent.

use raft::eraftpb as tikv;
use skep_proto::raftpb as etcd;

/// A message that no peer may send, or that is of a kind this node does not know.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("raft message type {0} is not accepted from a peer")]
    MessageType(i32),
    #[error("raft entry type {0} is not known")]
    EntryType(i32),
    #[error("raft message type {0} is not known to other implementations")]
    Outgoing(i32),
}

/// What a peer may send. Not: messages a node sends to itself, and proposals (they are forwarded as
/// requests of the control API, never as raft messages).
pub(crate) fn message_from_wire(message: etcd::Message) -> Result<tikv::Message, ConvertError> {
    let mut out = tikv::Message::default();
    out.set_msg_type(type_from_wire(message.r#type)?);
    out.to = message.to;
    out.from = message.from;
    out.term = message.term;
    out.log_term = message.log_term;
    out.index = message.index;
    out.commit = message.commit;
    out.reject = message.reject;
    out.reject_hint = message.reject_hint;
    out.context = message.context.into();
    let entries: Result<Vec<_>, _> = message.entries.into_iter().map(entry_from_wire).collect();
    out.set_entries(entries?.into());
    if let Some(snapshot) = message.snapshot.filter(|snapshot| !is_empty(snapshot)) {
        out.set_snapshot(snapshot_from_wire(snapshot));
    }
    Ok(out)
}

pub(crate) fn message_to_wire(mut message: tikv::Message) -> Result<etcd::Message, ConvertError> {
    let snapshot = message
        .snapshot
        .take()
        .filter(|snapshot| !snapshot.is_empty());
    Ok(etcd::Message {
        r#type: type_to_wire(message.get_msg_type())?.into(),
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.to_vec(),
        entries: message.take_entries().iter().map(entry_to_wire).collect(),
        snapshot: snapshot.map(snapshot_to_wire),
        ..Default::default()
    })
}

pub(crate) fn entry_from_wire(entry: etcd::Entry) -> Result<tikv::Entry, ConvertError> {
    let kind = match etcd::EntryType::try_from(entry.r#type) {
        Ok(etcd::EntryType::EntryNormal) => tikv::EntryType::EntryNormal,
        Ok(etcd::EntryType::EntryConfChange) => tikv::EntryType::EntryConfChange,
        Ok(etcd::EntryType::EntryConfChangeV2) => tikv::EntryType::EntryConfChangeV2,
        Err(_) => return Err(ConvertError::EntryType(entry.r#type)),
    };
    let mut out = tikv::Entry::default();
    out.set_entry_type(kind);
    out.term = entry.term;
    out.index = entry.index;
    out.data = entry.data.into();
    Ok(out)
}

pub(crate) fn entry_to_wire(entry: &tikv::Entry) -> etcd::Entry {
    let kind = match entry.get_entry_type() {
        tikv::EntryType::EntryNormal => etcd::EntryType::EntryNormal,
        tikv::EntryType::EntryConfChange => etcd::EntryType::EntryConfChange,
        tikv::EntryType::EntryConfChangeV2 => etcd::EntryType::EntryConfChangeV2,
    };
    etcd::Entry {
        r#type: kind.into(),
        term: entry.term,
        index: entry.index,
        data: entry.data.to_vec(),
    }
}

pub(crate) fn snapshot_from_wire(snapshot: etcd::Snapshot) -> tikv::Snapshot {
    let metadata = snapshot.metadata.unwrap_or_default();
    let mut out = tikv::Snapshot {
        data: snapshot.data.into(),
        ..Default::default()
    };
    out.mut_metadata().index = metadata.index;
    out.mut_metadata().term = metadata.term;
    out.mut_metadata().set_conf_state(conf_state_from_wire(
        metadata.conf_state.unwrap_or_default(),
    ));
    out
}

pub(crate) fn snapshot_to_wire(snapshot: tikv::Snapshot) -> etcd::Snapshot {
    let metadata = snapshot.get_metadata();
    etcd::Snapshot {
        data: snapshot.data.to_vec(),
        metadata: Some(etcd::SnapshotMetadata {
            conf_state: Some(conf_state_to_wire(metadata.get_conf_state())),
            index: metadata.index,
            term: metadata.term,
        }),
    }
}

pub(crate) fn conf_state_from_wire(state: etcd::ConfState) -> tikv::ConfState {
    tikv::ConfState {
        voters: state.voters,
        learners: state.learners,
        voters_outgoing: state.voters_outgoing,
        learners_next: state.learners_next,
        auto_leave: state.auto_leave,
        ..Default::default()
    }
}

pub(crate) fn conf_state_to_wire(state: &tikv::ConfState) -> etcd::ConfState {
    etcd::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    }
}

pub(crate) fn hard_state_from_wire(state: etcd::HardState) -> tikv::HardState {
    tikv::HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
        ..Default::default()
    }
}

pub(crate) fn hard_state_to_wire(state: &tikv::HardState) -> etcd::HardState {
    etcd::HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
    }
}

/// The membership change to apply to the raft core; `None` for UpdateNode, which only changes an
/// address and is nothing to the core.
pub(crate) fn conf_change_from_wire(
    change: &etcd::ConfChange,
) -> Result<Option<tikv::ConfChange>, i32> {
    let kind = match etcd::ConfChangeType::try_from(change.r#type) {
        Ok(etcd::ConfChangeType::ConfChangeAddNode) => tikv::ConfChangeType::AddNode,
        Ok(etcd::ConfChangeType::ConfChangeRemoveNode) => tikv::ConfChangeType::RemoveNode,
        Ok(etcd::ConfChangeType::ConfChangeUpdateNode) => return Ok(None),
        // SwarmKit has no learners.
        Ok(etcd::ConfChangeType::ConfChangeAddLearnerNode) | Err(_) => return Err(change.r#type),
    };
    let mut out = tikv::ConfChange::default();
    out.set_change_type(kind);
    out.node_id = change.node_id;
    out.id = change.id;
    Ok(Some(out))
}

fn is_empty(snapshot: &etcd::Snapshot) -> bool {
    snapshot
        .metadata
        .as_ref()
        .is_none_or(|metadata| metadata.index == 0)
}

fn type_from_wire(kind: i32) -> Result<tikv::MessageType, ConvertError> {
    use etcd::MessageType as E;
    use tikv::MessageType as T;
    Ok(match E::try_from(kind) {
        Ok(E::MsgApp) => T::MsgAppend,
        Ok(E::MsgAppResp) => T::MsgAppendResponse,
        Ok(E::MsgVote) => T::MsgRequestVote,
        Ok(E::MsgVoteResp) => T::MsgRequestVoteResponse,
        Ok(E::MsgSnap) => T::MsgSnapshot,
        Ok(E::MsgHeartbeat) => T::MsgHeartbeat,
        Ok(E::MsgHeartbeatResp) => T::MsgHeartbeatResponse,
        Ok(E::MsgTransferLeader) => T::MsgTransferLeader,
        Ok(E::MsgTimeoutNow) => T::MsgTimeoutNow,
        Ok(E::MsgReadIndex) => T::MsgReadIndex,
        Ok(E::MsgReadIndexResp) => T::MsgReadIndexResp,
        Ok(E::MsgPreVote) => T::MsgRequestPreVote,
        Ok(E::MsgPreVoteResp) => T::MsgRequestPreVoteResponse,
        _ => return Err(ConvertError::MessageType(kind)),
    })
}

fn type_to_wire(kind: tikv::MessageType) -> Result<etcd::MessageType, ConvertError> {
    use etcd::MessageType as E;
    use tikv::MessageType as T;
    Ok(match kind {
        T::MsgAppend => E::MsgApp,
        T::MsgAppendResponse => E::MsgAppResp,
        T::MsgRequestVote => E::MsgVote,
        T::MsgRequestVoteResponse => E::MsgVoteResp,
        T::MsgSnapshot => E::MsgSnap,
        T::MsgHeartbeat => E::MsgHeartbeat,
        T::MsgHeartbeatResponse => E::MsgHeartbeatResp,
        T::MsgTransferLeader => E::MsgTransferLeader,
        T::MsgTimeoutNow => E::MsgTimeoutNow,
        T::MsgReadIndex => E::MsgReadIndex,
        T::MsgReadIndexResp => E::MsgReadIndexResp,
        T::MsgRequestPreVote => E::MsgPreVote,
        T::MsgRequestPreVoteResponse => E::MsgPreVoteResp,
        T::MsgHup
        | T::MsgBeat
        | T::MsgPropose
        | T::MsgUnreachable
        | T::MsgSnapStatus
        | T::MsgCheckQuorum => return Err(ConvertError::Outgoing(kind as i32)),
    })
}

#[cfg(test)]
mod tests;
