//! What the control API answers instead of a result.

use std::fmt;

use skep_store::{ProposeError, StoreError, UpdateError};

/// The gRPC codes that are used, under gRPC's names: clients see both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Unknown,
    InvalidArgument,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    FailedPrecondition,
    Unimplemented,
    Internal,
    Unavailable,
}

/// A refusal, in SwarmKit's words. Displays as Go prints a gRPC error, which is what users of Docker
/// see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlError {
    pub code: Code,
    pub message: String,
}

pub(crate) type Result<T> = std::result::Result<T, ControlError>;

impl ControlError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub(crate) fn precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    /// SwarmKit's answer to a request that lacks an id, a version or a spec.
    pub(crate) fn incomplete() -> Self {
        Self::invalid("invalid argument")
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Code's variants are named as Go names them.
        write!(
            f,
            "rpc error: code = {:?} desc = {}",
            self.code, self.message
        )
    }
}

impl std::error::Error for ControlError {}

/// The store's refusals carry no code of their own in SwarmKit.
impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::new(Code::Unknown, error.to_string())
    }
}

impl From<UpdateError<Self>> for ControlError {
    fn from(error: UpdateError<Self>) -> Self {
        match error {
            UpdateError::Rejected(error) => error,
            UpdateError::Propose(error @ ProposeError::TooLarge { .. }) => {
                Self::invalid(error.to_string())
            }
            UpdateError::Propose(error @ ProposeError::Log(_)) => {
                Self::new(Code::Internal, error.to_string())
            }
            UpdateError::Propose(error) => Self::new(Code::Unavailable, error.to_string()),
        }
    }
}

impl From<ControlError> for tonic::Status {
    fn from(error: ControlError) -> Self {
        let code = match error.code {
            Code::Unknown => tonic::Code::Unknown,
            Code::InvalidArgument => tonic::Code::InvalidArgument,
            Code::NotFound => tonic::Code::NotFound,
            Code::AlreadyExists => tonic::Code::AlreadyExists,
            Code::PermissionDenied => tonic::Code::PermissionDenied,
            Code::FailedPrecondition => tonic::Code::FailedPrecondition,
            Code::Unimplemented => tonic::Code::Unimplemented,
            Code::Internal => tonic::Code::Internal,
            Code::Unavailable => tonic::Code::Unavailable,
        };
        Self::new(code, error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_docker_users_know_them() {
        let error = ControlError::from(StoreError::SequenceConflict);
        assert_eq!(
            error.to_string(),
            "rpc error: code = Unknown desc = update out of sequence"
        );
    }
}
