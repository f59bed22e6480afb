use crate::DigestError;

/// Why a text is not an image reference. `Display` is Docker's text, shown to users as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    InvalidFormat,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    NameContainsUppercase(String),
    #[error("repository name must be lowercase")]
    Uppercase,
    #[error("repository name must not be more than 255 characters")]
    NameTooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    NameIsAnId(String),
    #[error("invalid tag format")]
    InvalidTag,
    #[error(transparent)]
    Digest(#[from] DigestError),
}
