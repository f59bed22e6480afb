//! The files of this node's keys: kept when the certificate is renewed, sealed by the swarm's unlock
//! key or by none, with the key of the raft log while this node is a manager.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skep_ca::{
    CaError, CertificateFiles, CertificateInfo, KeyMaterial, NodeCertificate, NodeRole, SecretKey,
    UnlockKey,
};
use skep_model::{ObjectKind, StoreObject as _, Version};
use skep_raft::RaftNode;
use skep_store::{Store, WatchError, WatchFilter};
use tokio::sync::Notify;
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
    newly_sealed: Notify,
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
            newly_sealed: Notify::new(),
        }
    }

    /// Keeps a renewed certificate, with its key, beside all else that is in the key file. A worker's
    /// key is not sealed: nobody would give it the unlock key.
    pub(crate) fn keep(&self, certificate: &NodeCertificate) -> Result<(), CaError> {
        let mut sealed_by = self.sealed_by.lock();
        let mut material = self.read(sealed_by.as_ref())?;
        material.key_pem.clone_from(&certificate.key_pem);
        if is_workers(&certificate.certificate_pem)? {
            *sealed_by = None;
            material.seal_version = 0;
        }
        let pem = &certificate.certificate_pem;
        self.files.write_pair(pem, &material, sealed_by.as_ref())
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
            seal_version: 0,
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

    /// Seals the file with another key, as the cluster object of that version says. A log that was
    /// ever readable with a key lying open on the disk needs another key to be safe: locking a swarm
    /// therefore also changes the log's key, and the node's own.
    fn seal(&self, wanted: Option<UnlockKey>, version: u64) -> Result<(), CaError> {
        let mut sealed_by = self.sealed_by.lock();
        if wanted == *sealed_by {
            return Ok(());
        }
        let mut material = self.read(sealed_by.as_ref())?;
        let certificate = self.files.read_certificate()?.unwrap_or_default();
        // A manager that is being demoted hears of the cluster until its seat is gone.
        if version <= material.seal_version || is_workers(&certificate)? {
            return Ok(());
        }
        let was_open = sealed_by.is_none();
        if was_open {
            material.pending_dek = Some(SecretKey::generate());
        }
        material.seal_version = version;
        self.files.write_key(&material, wanted.as_ref())?;
        *sealed_by = wanted;
        if was_open {
            self.newly_sealed.notify_one();
        }
        Ok(())
    }

    /// Resolves when the node's key, which lay open until then, is sealed: it should be replaced.
    pub(crate) async fn newly_sealed(&self) {
        self.newly_sealed.notified().await;
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

fn is_workers(certificate_pem: &str) -> Result<bool, CaError> {
    let identity = CertificateInfo::from_pem(certificate_pem)?.identity();
    Ok(identity.is_some_and(|identity| identity.role == NodeRole::Worker))
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
            let Version(version) = cluster.meta().version;
            self.keys.seal(founding::unlock_key(cluster), version)?;
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

#[cfg(test)]
mod tests {
    use skep_ca::{NodeIdentity, RootCa};

    use super::*;
    use crate::identity::now;

    fn issue(role: NodeRole) -> NodeCertificate {
        let identity = NodeIdentity {
            organization: "c".into(),
            role,
            node_id: "n".into(),
        };
        let root = RootCa::generate(now()).unwrap();
        root.issue(&identity, Duration::ZERO, now()).unwrap()
    }

    fn keys(directory: &tempfile::TempDir) -> (KeyFiles, CertificateFiles) {
        let files = CertificateFiles::new(directory.path());
        let dek = SecretKey::generate();
        files
            .write_node(&issue(NodeRole::Manager), Some(&dek), None)
            .unwrap();
        (KeyFiles::new(files.clone(), None), files)
    }

    #[test]
    fn an_older_cluster_object_does_not_change_the_seal() {
        let directory = tempfile::tempdir().unwrap();
        let (keys, files) = keys(&directory);
        let [first, second] = [(); 2].map(|()| UnlockKey::generate());
        keys.seal(Some(first.clone()), 5).unwrap();
        keys.seal(Some(second.clone()), 9).unwrap();
        // After a restart, what the log says comes by again.
        let keys = KeyFiles::new(files.clone(), Some(second.clone()));
        keys.seal(None, 3).unwrap();
        keys.seal(Some(first), 5).unwrap();
        assert!(files.read_key(Some(&second)).unwrap().is_some());
        keys.seal(None, 12).unwrap();
        assert_eq!(files.is_locked().unwrap(), Some(false));
    }

    #[tokio::test]
    async fn a_key_that_lay_open_is_replaced_with_the_logs() {
        let directory = tempfile::tempdir().unwrap();
        let (keys, files) = keys(&directory);
        let key = UnlockKey::generate();
        keys.seal(Some(key.clone()), 5).unwrap();
        keys.newly_sealed().await;
        let material = files.read_key(Some(&key)).unwrap().unwrap();
        assert!(material.pending_dek.is_some());
    }

    #[test]
    fn a_workers_key_is_never_sealed() {
        let directory = tempfile::tempdir().unwrap();
        let (keys, files) = keys(&directory);
        let key = UnlockKey::generate();
        keys.seal(Some(key.clone()), 5).unwrap();
        keys.keep(&issue(NodeRole::Worker)).unwrap();
        assert_eq!(files.is_locked().unwrap(), Some(false));
        keys.seal(Some(key), 6).unwrap();
        assert_eq!(files.is_locked().unwrap(), Some(false));
        keys.forget_log().unwrap();
        assert_eq!(files.read_key(None).unwrap().unwrap().dek, None);
    }
}
