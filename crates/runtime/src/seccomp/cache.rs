//! Compiled filters, kept for the daemon in memory and for the shims on disk.

use std::collections::HashMap;
use std::path::PathBuf;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::compile::Program;
use super::{SeccompError, SeccompProfile};

/// Files named by the digest of their content, so that a running container's filter for its execs
/// never changes under it. Nothing is ever removed: there are as many as there are profiles and sets
/// of capabilities in use.
#[derive(Debug)]
pub(crate) struct ProgramCache {
    directory: PathBuf,
    known: Mutex<HashMap<(String, u64), PathBuf>>,
}

impl ProgramCache {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            known: Mutex::default(),
        }
    }

    /// Path of the compiled filter; `None` for a container without one.
    pub(crate) fn program(
        &self,
        profile: &SeccompProfile,
        bounding: u64,
    ) -> Result<Option<PathBuf>, SeccompError> {
        let Some(rules) = profile.profile() else {
            return Ok(None);
        };
        let key = (identity(profile)?, bounding);
        if let Some(path) = self.known.lock().get(&key).filter(|path| path.exists()) {
            return Ok(Some(path.clone()));
        }
        let bytes = Program::compile(&rules, bounding)?.to_bytes();
        let name = hex::encode(Sha256::digest(&bytes));
        let path = self.directory.join(format!("{name}.bpf"));
        if !path.exists() {
            // Several creates may do this at once: each under a name of its own, all with one content.
            let unique = format!("{name}.{:?}", std::thread::current().id());
            let temporary = self.directory.join(unique);
            std::fs::create_dir_all(&self.directory).map_err(SeccompError::Store)?;
            std::fs::write(&temporary, &bytes).map_err(SeccompError::Store)?;
            std::fs::rename(&temporary, &path).map_err(SeccompError::Store)?;
        }
        self.known.lock().insert(key, path.clone());
        Ok(Some(path))
    }
}

fn identity(profile: &SeccompProfile) -> Result<String, SeccompError> {
    match profile {
        SeccompProfile::Default => Ok("default".to_owned()),
        SeccompProfile::Unconfined => Ok("unconfined".to_owned()),
        SeccompProfile::Custom(profile) => {
            let json = serde_json::to_vec(profile.as_ref())
                .map_err(|error| SeccompError::Decode(error.to_string()))?;
            Ok(hex::encode(Sha256::digest(json)))
        }
    }
}
