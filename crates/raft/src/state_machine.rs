//! What this crate needs from the crates above: something to apply entries to, and a way to reach
//! the other members.

use skep_proto::raftpb;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The replicated state. Called from the raft thread only, one call at a time, in log order.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies one committed entry: the bytes given to `propose`, here or on another member. After a
    /// restart, entries since the last snapshot are applied again. An error stops the node: members
    /// must not skip what the others applied.
    fn apply(&self, index: u64, data: &[u8]) -> Result<(), BoxError>;

    /// The whole state as of the last applied entry, as an encoded `StoreSnapshot`.
    fn snapshot(&self) -> Result<Vec<u8>, BoxError>;

    /// Replaces the whole state with that of a snapshot taken at `index`, by this member or another.
    fn restore(&self, index: u64, data: &[u8]) -> Result<(), BoxError>;
}

/// Sends messages to other members. Must not block: it is called on the raft thread. Messages may be
/// lost; the transport then calls `RaftNode::report_unreachable`.
pub trait Transport: Send + Sync + 'static {
    /// `message.to` is the raft id of the receiver.
    fn send(&self, message: raftpb::Message);
}
