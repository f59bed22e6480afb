use std::io;

use skep_reference::ReferenceError;

/// What went wrong in the image store. `Display` is what Docker tells its users.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    /// The caller's input is wrong: a reference, an instruction, a filter.
    #[error("{0}")]
    Invalid(String),
    /// What was streamed in is damaged, hostile or not an image.
    #[error("{0}")]
    BadArchive(String),
    /// The disk is full. Whatever was written for the request has been removed.
    #[error("write {path}: no space left on device")]
    NoSpace { path: String },
    #[error("{what}: {}", os_text(source))]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    /// Another daemon has the store open.
    #[error("image store {0} is in use by another process")]
    InUse(String),
    #[error("image database: {0}")]
    Database(String),
}

/// What kind of answer an error is, for those who map it to a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Conflict,
    InvalidParameter,
    System,
}

impl ImageError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Invalid(_) => ErrorKind::InvalidParameter,
            // dockerd answers 500 to a broken archive too.
            Self::BadArchive(_)
            | Self::NoSpace { .. }
            | Self::Io { .. }
            | Self::InUse(_)
            | Self::Database(_) => ErrorKind::System,
        }
    }

    /// An IO error together with what was tried; a full disk gets its own variant.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace {
                path: what.trim_start_matches("write ").to_owned(),
            },
            // Readers that wrap our own streams smuggle our error through `io::Error`.
            io::ErrorKind::Other if source.get_ref().is_some_and(<dyn std::error::Error + std::marker::Send + std::marker::Sync + 'static >::is::<Self>) => {
                match source.into_inner().map(<dyn std::error::Error + std::marker::Send + std::marker::Sync + 'static >::downcast::<Self>) {
                    Some(Ok(inner)) => *inner,
                    Some(Err(other)) => Self::Io {
                        what,
                        source: io::Error::other(other),
                    },
                    None => Self::BadArchive(what),
                }
            }
            io::ErrorKind::UnexpectedEof => Self::BadArchive("unexpected EOF".to_owned()),
            _ => Self::Io { what, source },
        }
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::BadArchive(text.into())
    }
}

/// Go prints `no such file or directory`, Rust `No such file or directory (os error 2)`.
fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    if error.raw_os_error().is_none() {
        return text;
    }
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

impl From<ReferenceError> for ImageError {
    fn from(error: ReferenceError) -> Self {
        Self::Invalid(error.to_string())
    }
}

macro_rules! database_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for ImageError {
            fn from(error: $error) -> Self {
                Self::Database(error.to_string())
            }
        }
    )*};
}
database_errors!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

/// Adds "what was tried" to an IO error on its way up.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, ImageError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, ImageError> {
        self.map_err(|error| ImageError::io(what(), error))
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, ImageError> {
        self.map_err(|error| ImageError::io(what(), error.into()))
    }
}
