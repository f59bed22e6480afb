//! Failures of starting, proposing, stepping and storing.

use crate::{BoxError, ConvertError};
use std::{io, path::PathBuf, sync::Arc};

/// Why the node cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    #[error("no raft log in {}", .0.display())]
    NoLog(PathBuf),
    #[error("cannot use the raft log")]
    Storage(#[from] StorageError),
    /// The replicated state refused an entry or a snapshot: going on would make it differ from the
    /// other members'.
    #[error("cannot {what} at raft index {index}")]
    StateMachine {
        what: &'static str,
        index: u64,
        #[source]
        source: BoxError,
    },
    #[error("raft entry {index} is not understood: {reason}")]
    BadEntry { index: u64, reason: String },
    #[error("raft refused an operation")]
    Core(#[from] raft::Error),
    #[error("cannot start the raft thread")]
    Thread(#[source] io::Error),
}

/// Damage and IO errors of the log directory.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Not a torn write at the end, which is repaired silently: acknowledged data is gone.
    #[error("{} is damaged at offset {offset}: {reason}", path.display())]
    Damaged {
        path: PathBuf,
        offset: u64,
        reason: String,
    },
    #[error("cannot decrypt {} at offset {offset}: it was written with another data encryption key", path.display())]
    WrongKey { path: PathBuf, offset: u64 },
    #[error("{} belongs to the raft log but is missing", .0.display())]
    MissingSnapshot(PathBuf),
}

/// Why a proposal or a membership change was not carried out. Texts are SwarmKit's.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// This member does not lead, or not in the reign that the proposal counts on. Nothing was
    /// appended.
    #[error("raft: failed to process the request: node lost leader status")]
    NotLeader,
    /// Leadership was lost after the entry was appended: it may still be committed by the next
    /// leader.
    #[error("raft: failed to process the request: node lost leader status")]
    LostLeadership,
    #[error("raft: failed to process the request: node is stopped")]
    Stopped,
    #[error("raft: raft message is too large and can't be sent")]
    TooLarge,
    /// Another membership change is under way.
    #[error("raft: propose configuration change refused")]
    ConfChangeRefused,
    #[error("raft: member cannot be removed, because removing it may result in loss of quorum")]
    CannotRemoveMember,
    #[error("membership: node was removed during cluster lifetime")]
    IdRemoved,
    #[error("membership: member not found in cluster list")]
    IdNotFound,
    /// The log could not be written; the node has stopped.
    #[error("raft: {0}")]
    Failed(Arc<RaftError>),
}

/// Why a peer's message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The transport answers NotFound with this text; the peer then knows that it must leave.
    #[error("raft: member was removed from the cluster")]
    MemberRemoved,
    #[error("the message is for raft member {to}, this is {this}")]
    WrongReceiver { to: u64, this: u64 },
    #[error("the message cannot be understood")]
    Convert(#[from] ConvertError),
    #[error("raft: failed to process the request: node is stopped")]
    Stopped,
}
