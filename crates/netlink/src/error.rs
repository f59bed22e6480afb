//! What a kernel call was for, and why it was refused.

use nix::errno::Errno;

/// A failed kernel request.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused. `detail` is its own explanation, where it gives one.
    #[error("{operation}: {}{}", .errno.desc(), .detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        operation: String,
        errno: Errno,
        detail: Option<String>,
    },
    #[error("{operation}: {source}")]
    Io {
        operation: String,
        source: std::io::Error,
    },
    /// An answer that does not follow the protocol.
    #[error("{operation}: unexpected answer from the kernel")]
    Protocol { operation: String },
    /// The thread that works inside a namespace has panicked or ended.
    #[error("the thread of a network namespace has ended")]
    ThreadEnded,
}

impl NetlinkError {
    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Io { operation, source }
    }

    pub(crate) fn errno(operation: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let operation = operation.into();
        move |errno| Self::Refused {
            operation,
            errno,
            detail: None,
        }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn kernel_errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Protocol { .. } | Self::ThreadEnded => None,
        }
    }

    /// The object is not there: what a repeated teardown meets.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.kernel_errno(),
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ESRCH | Errno::EADDRNOTAVAIL)
        )
    }

    /// The object is there already: what a repeated setup meets.
    pub fn is_present(&self) -> bool {
        self.kernel_errno() == Some(Errno::EEXIST)
    }
}
