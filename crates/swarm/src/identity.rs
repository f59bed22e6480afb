//! Who this node is in its swarm: its certificate and key, and the root it trusts.

use std::time::{Duration, SystemTime};

use skep_ca::{
    CaError, CertificateFiles, CertificateInfo, NodeIdentity, NodeRole, RootCa, SecretKey,
    UnlockKey,
};
use skep_model::{ClusterId, NodeId};
use time::OffsetDateTime;

#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) node_id: NodeId,
    pub(crate) cluster_id: ClusterId,
    pub(crate) role: NodeRole,
    /// The root's certificates as this node trusts them; without the key.
    pub(crate) root_pem: String,
    pub(crate) dek: SecretKey,
    /// The key that the raft log was being moved to when the daemon last stopped.
    pub(crate) pending_dek: Option<SecretKey>,
}

/// Why a node cannot be started from its files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("the swarm's keys are locked")]
    Locked,
    #[error("the unlock key does not open the swarm's keys")]
    WrongUnlockKey,
    #[error("{0} is missing or incomplete")]
    Missing(&'static str),
    #[error(transparent)]
    Ca(CaError),
}

impl From<CaError> for IdentityError {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Locked => Self::Locked,
            CaError::Decrypt { .. } => Self::WrongUnlockKey,
            other => Self::Ca(other),
        }
    }
}

pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::from(SystemTime::now())
}

impl Identity {
    /// Makes a new swarm's root and this node's identity as its first manager, and writes both.
    pub(crate) fn found(
        files: &CertificateFiles,
        validity: Duration,
        unlock: Option<&UnlockKey>,
    ) -> Result<(Self, RootCa), CaError> {
        let root = RootCa::generate(now())?;
        let (node_id, cluster_id) = (NodeId::random(), ClusterId::random());
        let identity = NodeIdentity {
            organization: cluster_id.to_string(),
            role: NodeRole::Manager,
            node_id: node_id.to_string(),
        };
        let certificate = root.issue(&identity, validity, now())?;
        let dek = SecretKey::generate();
        files.write_root(root.certificate_pem())?;
        files.write_node(&certificate, Some(&dek), unlock)?;
        let identity = Self {
            node_id,
            cluster_id,
            role: NodeRole::Manager,
            root_pem: root.certificate_pem().to_owned(),
            dek,
            pending_dek: None,
        };
        Ok((identity, root))
    }

    pub(crate) fn load(
        files: &CertificateFiles,
        unlock: Option<&UnlockKey>,
    ) -> Result<Self, IdentityError> {
        let root_pem = files
            .read_root()?
            .ok_or(IdentityError::Missing("the root certificate"))?;
        let certificate = files
            .read_certificate()?
            .ok_or(IdentityError::Missing("the node certificate"))?;
        let subject =
            CertificateInfo::from_pem(&certificate)?
                .identity()
                .ok_or(IdentityError::Missing(
                    "the identity in the node certificate",
                ))?;
        let key = files
            .read_key(unlock)?
            .ok_or(IdentityError::Missing("the node key"))?;
        Ok(Self {
            node_id: subject.node_id.into(),
            cluster_id: subject.organization.into(),
            role: subject.role,
            root_pem,
            dek: key
                .dek
                .ok_or(IdentityError::Missing("the data encryption key"))?,
            pending_dek: key.pending_dek,
        })
    }

    pub(crate) fn subject(&self) -> NodeIdentity {
        NodeIdentity {
            organization: self.cluster_id.to_string(),
            role: self.role,
            node_id: self.node_id.to_string(),
        }
    }
}

/// Issues a new certificate if the present one is past its time for renewal. `root` must hold the
/// root's key. Returns whether it did.
pub(crate) fn renew_if_due(
    files: &CertificateFiles,
    identity: &NodeIdentity,
    root: &RootCa,
    validity: Duration,
    unlock: Option<&UnlockKey>,
    now: OffsetDateTime,
) -> Result<bool, IdentityError> {
    let certificate = files
        .read_certificate()?
        .ok_or(IdentityError::Missing("the node certificate"))?;
    if CertificateInfo::from_pem(&certificate)?.renew_at(rand::random()) > now {
        return Ok(false);
    }
    let mut material = files
        .read_key(unlock)?
        .ok_or(IdentityError::Missing("the node key"))?;
    let certificate = root.issue(identity, validity, now)?;
    material.key_pem.clone_from(&certificate.key_pem);
    files.write_node(&certificate, material.dek.as_ref(), unlock)?;
    if material.pending_dek.is_some() {
        files.write_key(&material, unlock)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALIDITY: Duration = skep_ca::DEFAULT_NODE_CERTIFICATE_VALIDITY;

    #[test]
    fn a_founded_identity_is_loaded_again() {
        let directory = tempfile::tempdir().unwrap();
        let files = CertificateFiles::new(directory.path());
        let (founded, _) = Identity::found(&files, VALIDITY, None).unwrap();
        let loaded = Identity::load(&files, None).unwrap();
        assert_eq!(loaded.node_id, founded.node_id);
        assert_eq!(loaded.cluster_id, founded.cluster_id);
        assert_eq!(loaded.role, NodeRole::Manager);
        assert_eq!(loaded.root_pem, founded.root_pem);
        assert!(loaded.dek == founded.dek);
    }

    #[test]
    fn a_locked_identity_needs_its_unlock_key() {
        let directory = tempfile::tempdir().unwrap();
        let files = CertificateFiles::new(directory.path());
        let unlock = UnlockKey::generate();
        Identity::found(&files, VALIDITY, Some(&unlock)).unwrap();
        assert!(matches!(
            Identity::load(&files, None),
            Err(IdentityError::Locked)
        ));
        let wrong = UnlockKey::generate();
        assert!(matches!(
            Identity::load(&files, Some(&wrong)),
            Err(IdentityError::WrongUnlockKey)
        ));
        assert!(Identity::load(&files, Some(&unlock)).is_ok());
    }

    #[test]
    fn a_certificate_is_renewed_late_in_its_life_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let files = CertificateFiles::new(directory.path());
        let (identity, root) = Identity::found(&files, VALIDITY, None).unwrap();
        let renew =
            |now| renew_if_due(&files, &identity.subject(), &root, VALIDITY, None, now).unwrap();
        assert!(!renew(now()));
        assert!(renew(now() + Duration::from_secs(80 * 24 * 3600)));
        let loaded = Identity::load(&files, None).unwrap();
        assert!(loaded.dek == identity.dek, "the log's key stays");
    }
}
