use skep_engine::{EngineError, ErrorKind};

/// Why a build ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// A `RUN` command's exit code, which is the client's too.
    Command {
        code: i64,
        message: String,
    },
    Other(EngineError),
}

impl BuildError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Other(EngineError::invalid(message))
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Other(EngineError::system(message))
    }

    /// The same with a text that starts with what was tried.
    pub(crate) fn context(self, what: &str) -> Self {
        match self {
            Self::Other(error) => Self::Other(error.context(what)),
            command @ Self::Command { .. } => command,
        }
    }

    /// Docker's text.
    pub fn message(&self) -> &str {
        match self {
            Self::Command { message, .. } => message,
            Self::Other(error) => &error.message,
        }
    }

    /// What kind of answer it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Command { .. } => ErrorKind::System,
            Self::Other(error) => error.kind,
        }
    }
}

impl<E: Into<EngineError>> From<E> for BuildError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}
