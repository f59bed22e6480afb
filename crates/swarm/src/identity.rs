//! Who this node is in its swarm: its certificate and key, and the root it trusts.

use std::time::{Duration, SystemTime};

use skep_ca::{
    CaError, CertificateFiles, CertificateInfo, NodeCertificate, NodeIdentity, NodeRole, RootCa,
    SecretKey, UnlockKey,
};
use skep_model::{ClusterId, NodeId};
use time::OffsetDateTime;

pub(crate) struct Identity {
    pub(crate) subject: NodeIdentity,
    /// The root as this node trusts it; without the key.
    pub(crate) root: RootCa,
    pub(crate) certificate: NodeCertificate,
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
    /// Also returns the root with its key.
    pub(crate) fn found(
        files: &CertificateFiles,
        validity: Duration,
        unlock: Option<&UnlockKey>,
    ) -> Result<(Self, RootCa), CaError> {
        let root = RootCa::generate(now())?;
        let subject = NodeIdentity {
            organization: ClusterId::random().to_string(),
            role: NodeRole::Manager,
            node_id: NodeId::random().to_string(),
        };
        let certificate = root.issue(&subject, validity, now())?;
        files.write_root(root.certificate_pem())?;
        files.write_node(&certificate, Some(&SecretKey::generate()), unlock)?;
        let identity = Self {
            subject,
            root: RootCa::from_pem(root.certificate_pem(), None)?,
            certificate,
        };
        Ok((identity, root))
    }

    pub(crate) fn load(
        files: &CertificateFiles,
        unlock: Option<&UnlockKey>,
    ) -> Result<Self, IdentityError> {
        let root = files
            .read_root()?
            .ok_or(IdentityError::Missing("the root certificate"))?;
        let key = files
            .read_key(unlock)?
            .ok_or(IdentityError::Missing("the node key"))?;
        let certificate_pem = files
            .settle_certificate(&key.key_pem)?
            .ok_or(IdentityError::Missing("the node certificate"))?;
        let subject = CertificateInfo::from_pem(&certificate_pem)?.identity();
        let subject = subject.ok_or(IdentityError::Missing(
            "the identity in the node certificate",
        ))?;
        Ok(Self {
            subject,
            root: RootCa::from_pem(&root, None)?,
            certificate: NodeCertificate {
                certificate_pem,
                key_pem: key.key_pem,
            },
        })
    }

    /// What a node was let in with.
    pub(crate) fn admitted(
        files: &CertificateFiles,
        root: RootCa,
        certificate: NodeCertificate,
    ) -> Result<Self, IdentityError> {
        let subject = CertificateInfo::from_pem(&certificate.certificate_pem)?.identity();
        let subject = subject.ok_or(IdentityError::Missing(
            "the identity in the node certificate",
        ))?;
        files.write_root(root.certificate_pem())?;
        files.write_node(&certificate, None, None)?;
        Ok(Self {
            subject,
            root,
            certificate,
        })
    }
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
        assert_eq!(loaded.subject, founded.subject);
        assert_eq!(loaded.subject.role, NodeRole::Manager);
        assert_eq!(
            loaded.root.certificate_pem(),
            founded.root.certificate_pem()
        );
        assert_eq!(loaded.certificate.key_pem, founded.certificate.key_pem);
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
}
