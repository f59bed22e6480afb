use skep_model::UnknownTaskState;
use skep_model::proto;

/// Why a change to one object is refused. The texts are SwarmKit's: the control API passes them on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The id is taken.
    #[error("object already exists")]
    Exist,
    #[error("object does not exist")]
    NotExist,
    /// Names are unique within a kind, without regard to case.
    #[error("name conflicts with an existing object")]
    NameConflict,
    /// The object was changed since the version that the update is based on.
    #[error("update out of sequence")]
    SequenceConflict,
    /// A resource's kind must be the name of an extension.
    #[error("object kind {0} is unregistered")]
    UnregisteredKind(String),
    #[error("extensions are immutable")]
    ExtensionImmutable,
    #[error("cannot delete extension because objects of this type exist in the data store")]
    ExtensionInUse,
}

/// Why a transaction did not make it through consensus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Somebody else leads, or nobody does. Nothing was proposed.
    #[error("this manager is not the leader")]
    NotLeader,
    /// Leadership was lost meanwhile. Whether the transaction takes effect is for the next leader
    /// to say.
    #[error("leadership was lost before the change was committed")]
    LeadershipLost,
    /// A transaction that this one built upon did not make it, so neither did this one.
    #[error("a change this one builds upon was not committed")]
    Superseded,
    #[error("the change is too large to replicate ({size} bytes)")]
    TooLarge { size: usize },
    /// The log cannot be written, or is closed.
    #[error("writing the log: {0}")]
    Log(String),
}

/// Why [`crate::Store::update`] did not take effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError<E> {
    /// The closure said so; nothing was proposed.
    #[error(transparent)]
    Rejected(E),
    #[error("replicating the change")]
    Propose(#[source] ProposeError),
}

impl<E> UpdateError<E> {
    /// Gives the closure's errors another type, leaving the others.
    pub fn map_rejected<F>(self, map: impl FnOnce(E) -> F) -> UpdateError<F> {
        match self {
            Self::Rejected(error) => UpdateError::Rejected(map(error)),
            Self::Propose(error) => UpdateError::Propose(error),
        }
    }
}

impl<E> From<ProposeError> for UpdateError<E> {
    fn from(error: ProposeError) -> Self {
        Self::Propose(error)
    }
}

/// A committed entry that this version cannot read. Going on would let this manager diverge from the
/// others, so the caller must stop.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    #[error("store action without a target")]
    NoTarget,
    #[error("unknown store action {0}")]
    UnknownAction(i32),
    #[error("task {id:?}")]
    Task {
        id: String,
        #[source]
        source: UnknownTaskState,
    },
}

impl From<skep_model::TaskFromProtoError> for ApplyError {
    fn from(error: skep_model::TaskFromProtoError) -> Self {
        Self::Task {
            id: error.id,
            source: error.source,
        }
    }
}

impl From<proto::StoreActionKind> for ApplyError {
    fn from(kind: proto::StoreActionKind) -> Self {
        Self::UnknownAction(kind as i32)
    }
}
