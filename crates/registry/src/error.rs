use std::sync::Arc;

/// The codes of the distribution API that somebody acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Unauthorized,
    Denied,
    ManifestUnknown,
    NameUnknown,
    BlobUnknown,
    TooManyRequests,
    Unsupported,
    Other,
}

/// Why a registry did not give what was asked for. `Display` is dockerd's text.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The registry said no, in the distribution API's words: `denied: …`.
    #[error("{text}")]
    Api { code: Code, text: String },
    #[error("received unexpected HTTP status: {0}")]
    Status(String),
    #[error("error parsing HTTP {status} response body: {reason}: {body:?}")]
    Body {
        status: u16,
        reason: String,
        body: String,
    },
    /// No answer: connecting, TLS, or the connection broke.
    #[error("{method} {url:?}: {reason}")]
    Transport {
        method: &'static str,
        url: String,
        reason: String,
    },
    #[error("{method} {url:?}: no basic auth credentials")]
    NoCredentials { method: &'static str, url: String },
    /// What came is not what its digest or length says.
    #[error("{0}")]
    Verification(String),
    /// The answer leads somewhere it must not, or asks for more than is given.
    #[error("{0}")]
    Refused(String),
    /// What was asked for makes no sense, or is of a kind that is not supported.
    #[error("{0}")]
    Invalid(String),
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoMatch(String),
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: Arc<std::io::Error>,
    },
}

/// What kind of answer an error is, for those who map it to a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Unauthorized,
    Forbidden,
    InvalidParameter,
    System,
}

impl RegistryError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Api { code, .. } => match code {
                Code::ManifestUnknown | Code::NameUnknown | Code::BlobUnknown => {
                    ErrorKind::NotFound
                }
                Code::Unauthorized => ErrorKind::Unauthorized,
                Code::Denied => ErrorKind::Forbidden,
                Code::TooManyRequests | Code::Unsupported | Code::Other => ErrorKind::System,
            },
            Self::Invalid(_) => ErrorKind::InvalidParameter,
            _ => ErrorKind::System,
        }
    }

    /// The code the registry gave, if it is its answer.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Api { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether asking again may help.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Api { code, .. } => {
                matches!(
                    code,
                    Code::Other | Code::ManifestUnknown | Code::BlobUnknown
                )
            }
            Self::Status(_) | Self::Transport { .. } => true,
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::UnexpectedEof,
            _ => false,
        }
    }

    /// Whether another endpoint of the same name may do better.
    pub(crate) fn allows_next_endpoint(&self, mirror: bool) -> bool {
        match self {
            Self::Api { .. } | Self::Verification(_) => mirror,
            Self::Invalid(_) | Self::NoMatch(_) | Self::Io { .. } => false,
            Self::Status(_)
            | Self::Body { .. }
            | Self::Transport { .. }
            | Self::NoCredentials { .. }
            | Self::Refused(_) => true,
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source: Arc::new(source),
        }
    }
}
