//! The one error that leaves the engine.

use std::fmt;

/// What kind of failure it is. The REST layer maps each kind to one status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 400: the request can never succeed as it is.
    InvalidParameter,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409: the object is in a state, or has a name, that forbids it.
    Conflict,
    /// 304: it is already so.
    NotModified,
    /// 500
    System,
    /// 501: Docker knows this; this daemon does not, yet.
    NotImplemented,
    /// 503
    Unavailable,
}

/// An error with the text a Docker user sees.
///
/// The message is complete: causes are already part of it, because Docker's clients print it
/// as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineError {
    /// What the REST layer and the executor decide on.
    pub kind: ErrorKind,
    /// Docker's text.
    pub message: String,
}

/// Short for what nearly all of the engine's methods return.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

impl EngineError {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// 400
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }

    /// 404
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// 409
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// 304
    pub fn not_modified(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotModified, message)
    }

    /// 500
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::System, message)
    }

    /// 501
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }

    /// The same kind with a text that starts with what was tried.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// A system error from an underlying failure, with all its sources in the text.
    pub fn from_source(
        what: impl fmt::Display,
        source: &(dyn std::error::Error + 'static),
    ) -> Self {
        Self::system(format!("{what}: {}", chain(source)))
    }
}

/// An error's text with the texts of everything below it.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EngineError {}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        Self::system(error.to_string())
    }
}
