//! System call filters: Docker's default profile, profiles in its JSON format, and their compilation.
//!
//! The compiler is our own and small: Docker's profiles give different actions and error numbers to
//! different calls, cover three ABIs in one filter and answer ENOSYS for calls newer than the profile,
//! none of which fits a compiler of one list with one action for one architecture.

mod cache;
mod compile;
mod default_profile;
mod profile;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use oci_spec::runtime::LinuxSeccomp;

pub(crate) use cache::ProgramCache;
pub(crate) use compile::Program;
pub use profile::Profile;

/// What `--security-opt seccomp=…` asks for.
#[derive(Debug, Clone, Default)]
pub enum SeccompProfile {
    #[default]
    Default,
    Unconfined,
    Custom(Arc<Profile>),
}

#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("Decoding seccomp profile failed: {0}")]
    Decode(String),
    #[error("seccomp profile: {0}")]
    Unsupported(String),
    #[error("seccomp profile is too large for the kernel: {0} instructions")]
    TooLarge(usize),
    #[error("cannot keep the compiled filter")]
    Store(#[source] std::io::Error),
}

impl SeccompProfile {
    /// Reads a profile in Docker's JSON format. One that says nothing at all is no confinement, as in
    /// Docker.
    pub fn parse(json: &str) -> Result<Self, SeccompError> {
        Ok(match Profile::parse(json)? {
            Some(profile) => Self::Custom(Arc::new(profile)),
            None => Self::Unconfined,
        })
    }

    fn profile(&self) -> Option<Arc<Profile>> {
        match self {
            Self::Default => Some(Arc::new(default_profile::profile())),
            Self::Unconfined => None,
            Self::Custom(profile) => Some(Arc::clone(profile)),
        }
    }

    /// The form in which an OCI runtime takes it, conditions resolved for these capabilities.
    pub(crate) fn to_oci(&self, bounding: u64) -> Result<Option<LinuxSeccomp>, SeccompError> {
        self.profile()
            .map(|profile| profile.to_oci(bounding))
            .transpose()
    }
}
