//! Why something about certificates, tokens or sealed secrets failed.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// SwarmKit's text: clients see it when they join with a mangled token.
    #[error("invalid join token")]
    InvalidJoinToken,
    /// SwarmKit's text for an unlock key that is not one at all.
    #[error("invalid key string")]
    InvalidUnlockKey,
    #[error("remote CA does not match fingerprint. Expected: {expected}")]
    FingerprintMismatch { expected: String },
    /// This node trusts the root but does not hold its key.
    #[error("no valid signer found")]
    NoSigner,
    /// A root certificate, or its key, that is not one: in SwarmKit's words, for whoever has given it.
    #[error("{0}")]
    InvalidRoot(String),
    #[error("cannot parse {what}")]
    Parse {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{what} is not acceptable: {reason}")]
    Rejected { what: &'static str, reason: String },
    #[error("cannot create {what}")]
    Create {
        what: &'static str,
        #[source]
        source: rcgen::Error,
    },
    /// Either the key is another one, or the bytes were changed: an authenticated cipher cannot
    /// tell the two apart.
    #[error("cannot decrypt {what}: the key does not fit or the data is damaged")]
    Decrypt { what: &'static str },
    /// The key file is sealed by an unlock key and none was given.
    #[error("the swarm key file is locked")]
    Locked,
    #[error("cannot access {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot build the TLS configuration")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CaError {
    pub(crate) fn parse(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Parse {
            what,
            source: source.into(),
        }
    }

    pub(crate) fn create(what: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |source| Self::Create { what, source }
    }

    pub(crate) fn tls(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Tls(source.into())
    }
}
