//! Keeps the files of this node's keys in step with the cluster object: sealed by the swarm's unlock
//! key or by none, and the certificate renewed in time.

use std::time::Duration;

use skep_ca::{CertificateFiles, NodeIdentity, SecretKey, UnlockKey};
use skep_model::{ObjectKind, ext::ClusterExt as _, proto};
use skep_raft::RaftNode;
use skep_store::{Store, WatchError, WatchFilter};
use tokio_util::sync::CancellationToken;

use crate::identity::{IdentityError, now, renew_if_due};
use crate::{founding, spec};

/// How often the certificate's age is looked at, and a failure is tried again.
const INTERVAL: Duration = Duration::from_secs(3600);

pub(crate) struct KeyKeeper {
    pub(crate) files: CertificateFiles,
    pub(crate) identity: NodeIdentity,
    pub(crate) store: Store,
    pub(crate) raft: RaftNode,
    /// What the key file is sealed with at present.
    pub(crate) sealed_by: Option<UnlockKey>,
}

/// Why the files could not be brought in step.
#[derive(Debug, thiserror::Error)]
enum KeyError {
    #[error("writing the node's keys")]
    Files(#[from] IdentityError),
    #[error("encrypting the raft log with another key")]
    Rotation(#[from] skep_raft::ProposeError),
}

impl From<skep_ca::CaError> for KeyError {
    fn from(error: skep_ca::CaError) -> Self {
        Self::Files(error.into())
    }
}

impl KeyKeeper {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut watch = self.store.watch(WatchFilter::kinds([ObjectKind::Cluster]));
        loop {
            if let Some(cluster) = self.store.snapshot().the_cluster().cloned()
                && let Err(error) = self.follow(&cluster).await
            {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "the node's keys on disk are not what the swarm asks for"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
                event = watch.next() => if event == Err(WatchError::Closed) { return },
            }
        }
    }

    async fn follow(&mut self, cluster: &proto::Cluster) -> Result<(), KeyError> {
        self.finish_rotation().await?;
        let wanted = founding::unlock_key(cluster);
        if wanted != self.sealed_by {
            self.seal(wanted).await?;
        }
        let Some(root) = founding::root(cluster).filter(|root| root.key_pem().is_some()) else {
            return Ok(());
        };
        let validity = spec::certificate_validity(cluster.spec());
        let sealed_by = self.sealed_by.as_ref();
        if renew_if_due(
            &self.files,
            &self.identity,
            &root,
            validity,
            sealed_by,
            now(),
        )? {
            tracing::info!("renewed the node's certificate");
        }
        Ok(())
    }

    /// A log that was ever readable with a key lying open on the disk needs another key to be safe:
    /// locking a swarm therefore also changes the log's key.
    async fn seal(&mut self, wanted: Option<UnlockKey>) -> Result<(), KeyError> {
        let mut material = self
            .files
            .read_key(self.sealed_by.as_ref())?
            .ok_or(IdentityError::Missing("the node key"))?;
        if self.sealed_by.is_none() {
            material.pending_dek = Some(SecretKey::generate());
        }
        self.files.write_key(&material, wanted.as_ref())?;
        self.sealed_by = wanted;
        self.finish_rotation().await
    }

    /// Moves the log to the pending key, if there is one: just made, or left over from a crash.
    async fn finish_rotation(&self) -> Result<(), KeyError> {
        let sealed_by = self.sealed_by.as_ref();
        let Some(mut material) = self.files.read_key(sealed_by)? else {
            return Ok(());
        };
        let Some(pending) = material.pending_dek.take() else {
            return Ok(());
        };
        self.raft.rotate_dek(pending.clone()).await?;
        material.dek = Some(pending);
        self.files.write_key(&material, sealed_by)?;
        Ok(())
    }
}
