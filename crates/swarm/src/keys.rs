//! The files of this node's keys: kept when the certificate is renewed, sealed by the swarm's unlock
//! key or by none, with the key of the raft log while this node is a manager.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skep_ca::{CaError, CertificateFiles, KeyMaterial, NodeCertificate, SecretKey, UnlockKey};
use skep_model::ObjectKind;
use skep_raft::RaftNode;
use skep_store::{Store, WatchError, WatchFilter};
use tokio_util::sync::CancellationToken;

use crate::founding;

/// How soon a failure is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// The key file. Renewals, the seal and the log's key all live in it, so every change reads and
/// writes it under one lock.
pub(crate) struct KeyFiles {
    files: CertificateFiles,
    /// What the key file is sealed with at present.
    sealed_by: Mutex<Option<UnlockKey>>,
}

/// The keys of the raft log.
pub(crate) struct LogKeys {
    pub(crate) dek: SecretKey,
    /// The key that the log was being moved to when the daemon last stopped.
    pub(crate) pending: Option<SecretKey>,
}

impl KeyFiles {
    pub(crate) fn new(files: CertificateFiles, sealed_by: Option<UnlockKey>) -> Self {
        Self {
            files,
            sealed_by: Mutex::new(sealed_by),
        }
    }

    /// Keeps a renewed certificate, with its key, beside all else that is in the key file.
    pub(crate) fn keep(&self, certificate: &NodeCertificate) -> Result<(), CaError> {
        let sealed_by = self.sealed_by.lock();
        let mut material = self.read(sealed_by.as_ref())?;
        material.key_pem.clone_from(&certificate.key_pem);
        self.files.write_key(&material, sealed_by.as_ref())?;
        self.files.write_certificate(&certificate.certificate_pem)
    }

    pub(crate) fn keep_root(&self, certificates_pem: &str) -> Result<(), CaError> {
        self.files.write_root(certificates_pem)
    }

    /// The keys of the raft log; a node that becomes a manager gets one.
    pub(crate) fn log_keys(&self) -> Result<LogKeys, CaError> {
        let sealed_by = self.sealed_by.lock();
        let mut material = self.read(sealed_by.as_ref())?;
        let dek = if let Some(dek) = material.dek.clone() {
            dek
        } else {
            let dek = SecretKey::generate();
            material.dek = Some(dek.clone());
            self.files.write_key(&material, sealed_by.as_ref())?;
            dek
        };
        Ok(LogKeys {
            dek,
            pending: material.pending_dek,
        })
    }

    /// A worker has no log, and nobody to give it an unlock key.
    pub(crate) fn forget_log(&self) -> Result<(), CaError> {
        let mut sealed_by = self.sealed_by.lock();
        let material = KeyMaterial {
            key_pem: self.read(sealed_by.as_ref())?.key_pem,
            dek: None,
            pending_dek: None,
        };
        self.files.write_key(&material, None)?;
        *sealed_by = None;
        Ok(())
    }

    fn read(&self, sealed_by: Option<&UnlockKey>) -> Result<KeyMaterial, CaError> {
        let material = self.files.read_key(sealed_by)?;
        material.ok_or_else(|| CaError::Rejected {
            what: "the swarm key file",
            reason: "it is missing".to_owned(),
        })
    }

    /// Seals the file with another key. A log that was ever readable with a key lying open on the
    /// disk needs another key to be safe: locking a swarm therefore also changes the log's key.
    fn seal(&self, wanted: Option<UnlockKey>) -> Result<(), CaError> {
        let mut sealed_by = self.sealed_by.lock();
        if wanted == *sealed_by {
            return Ok(());
        }
        let mut material = self.read(sealed_by.as_ref())?;
        if sealed_by.is_none() {
            material.pending_dek = Some(SecretKey::generate());
        }
        self.files.write_key(&material, wanted.as_ref())?;
        *sealed_by = wanted;
        Ok(())
    }

    fn pending(&self) -> Result<Option<SecretKey>, CaError> {
        let sealed_by = self.sealed_by.lock();
        Ok(self.read(sealed_by.as_ref())?.pending_dek)
    }

    /// The log has been moved to the pending key.
    fn promote(&self, pending: &SecretKey) -> Result<(), CaError> {
        let sealed_by = self.sealed_by.lock();
        let mut material = self.read(sealed_by.as_ref())?;
        if material.pending_dek.as_ref() == Some(pending) {
            material.dek = material.pending_dek.take();
            self.files.write_key(&material, sealed_by.as_ref())?;
        }
        Ok(())
    }
}

/// Keeps a manager's key file sealed as the cluster object asks.
pub(crate) struct KeyKeeper {
    pub(crate) keys: Arc<KeyFiles>,
    pub(crate) store: Store,
    pub(crate) raft: RaftNode,
}

/// Why the files could not be brought in step.
#[derive(Debug, thiserror::Error)]
enum KeyError {
    #[error("writing the node's keys")]
    Files(#[from] CaError),
    #[error("encrypting the raft log with another key")]
    Rotation(#[from] skep_raft::ProposeError),
}

impl KeyKeeper {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut watch = self.store.watch(WatchFilter::kinds([ObjectKind::Cluster]));
        loop {
            let followed = self.follow().await;
            if let Err(error) = &followed {
                let error: &dyn std::error::Error = error;
                tracing::error!(
                    error,
                    "the node's keys on disk are not what the swarm asks for"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY), if followed.is_err() => {}
                event = watch.next() => if event == Err(WatchError::Closed) { return },
            }
        }
    }

    async fn follow(&self) -> Result<(), KeyError> {
        self.finish_rotation().await?;
        if let Some(cluster) = self.store.snapshot().the_cluster() {
            self.keys.seal(founding::unlock_key(cluster))?;
        }
        self.finish_rotation().await
    }

    /// Moves the log to the pending key, if there is one: just made, or left over from a crash.
    async fn finish_rotation(&self) -> Result<(), KeyError> {
        if let Some(pending) = self.keys.pending()? {
            self.raft.rotate_dek(pending.clone()).await?;
            self.keys.promote(&pending)?;
        }
        Ok(())
    }
}
