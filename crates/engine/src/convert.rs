//! The lower crates' errors as the engine's.

use skep_image::{ErrorKind as ImageKind, ImageError};
use skep_network::{NetworkError, NetworkErrorKind};
use skep_runtime::RuntimeError;

use crate::error::{EngineError, ErrorKind, chain};

impl From<ImageError> for EngineError {
    fn from(error: ImageError) -> Self {
        let kind = match error.kind() {
            ImageKind::NotFound => ErrorKind::NotFound,
            ImageKind::Conflict => ErrorKind::Conflict,
            ImageKind::InvalidParameter => ErrorKind::InvalidParameter,
            ImageKind::System => ErrorKind::System,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<NetworkError> for EngineError {
    fn from(error: NetworkError) -> Self {
        let kind = match error.kind() {
            NetworkErrorKind::InvalidParameter => ErrorKind::InvalidParameter,
            NetworkErrorKind::Forbidden => ErrorKind::Forbidden,
            NetworkErrorKind::NotFound => ErrorKind::NotFound,
            NetworkErrorKind::Conflict => ErrorKind::Conflict,
            NetworkErrorKind::System => ErrorKind::System,
            NetworkErrorKind::NotImplemented => ErrorKind::NotImplemented,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<RuntimeError> for EngineError {
    fn from(error: RuntimeError) -> Self {
        let kind = match &error {
            RuntimeError::Start {
                code: 126 | 127, ..
            } => ErrorKind::InvalidParameter,
            RuntimeError::Refused(_) => ErrorKind::Conflict,
            RuntimeError::NoSuchExec(_) => ErrorKind::NotFound,
            _ => ErrorKind::System,
        };
        Self::new(kind, chain(&error))
    }
}
