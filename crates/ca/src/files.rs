//! The certificate directory of a node.
//!
//! `swarm-root-ca.crt` and `swarm-node.crt` are plain PEM. `swarm-node.key` holds the node's key and,
//! in the headers of the PEM block, the data encryption keys of the raft log: one file, so that both
//! are replaced in one rename. With autolock, key and headers are sealed by the unlock key.

use crate::{CaError, NodeCertificate, SecretKey, UnlockKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pem::{HeaderMap, Pem};
use rcgen::{KeyPair, PublicKeyData as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use x509_parser::prelude::{FromDer as _, X509Certificate};

const ROOT_CERTIFICATE: &str = "swarm-root-ca.crt";
const NODE_CERTIFICATE: &str = "swarm-node.crt";
/// A certificate whose key is being written.
const NEXT_CERTIFICATE: &str = "swarm-node-next.crt";
const NODE_KEY: &str = "swarm-node.key";
const PLAIN_TAG: &str = "PRIVATE KEY";
const SEALED_TAG: &str = "SEALED PRIVATE KEY";
const HEADER_DEK: &str = "raft-dek";
const HEADER_PENDING_DEK: &str = "raft-dek-pending";
const HEADER_SEAL_VERSION: &str = "kek-version";

/// What the key file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMaterial {
    /// The node's private key, PKCS#8 PEM.
    pub key_pem: String,
    /// The raft log's key; only managers have one.
    pub dek: Option<SecretKey>,
    /// A key that the raft log is being moved to. Until it is promoted to `dek`, either may be the
    /// one in use.
    pub pending_dek: Option<SecretKey>,
    /// The version of the cluster object that the seal is of: an older object, which a manager meets
    /// when it reads its log again, says nothing about it any more.
    pub seal_version: u64,
}

/// Reads and writes the files, each atomically: write beside it, sync, rename, sync the directory.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    directory: PathBuf,
}

impl CertificateFiles {
    /// `directory` is `<data-root>/swarm/certificates`; it is created when something is written.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// `None` when the node is not in a swarm.
    pub fn read_root(&self) -> Result<Option<String>, CaError> {
        self.read(ROOT_CERTIFICATE)
    }

    pub fn write_root(&self, certificates_pem: &str) -> Result<(), CaError> {
        self.write(ROOT_CERTIFICATE, certificates_pem, 0o644)
    }

    pub fn read_certificate(&self) -> Result<Option<String>, CaError> {
        self.read(NODE_CERTIFICATE)
    }

    /// The certificate that fits the key file's key: after a crash in [`Self::write_pair`] it may be
    /// the next one, which then takes its place.
    pub fn settle_certificate(&self, key_pem: &str) -> Result<Option<String>, CaError> {
        if let Some(next) = self.read(NEXT_CERTIFICATE)? {
            if fits(&next, key_pem) {
                self.adopt_next()?;
            } else {
                // Its key was never written, and is lost.
                self.remove_file(NEXT_CERTIFICATE)?;
            }
        }
        self.read_certificate()
    }

    /// Whether the key file needs an unlock key; `None` when there is no key file.
    pub fn is_locked(&self) -> Result<Option<bool>, CaError> {
        Ok(self.read_block()?.map(|block| block.tag() == SEALED_TAG))
    }

    /// `None` when there is no key file; [`CaError::Locked`] when it needs an unlock key.
    pub fn read_key(&self, unlock: Option<&UnlockKey>) -> Result<Option<KeyMaterial>, CaError> {
        let Some(block) = self.read_block()? else {
            return Ok(None);
        };
        match (block.tag(), unlock) {
            (PLAIN_TAG, _) => decode_plain(&block).map(Some),
            (SEALED_TAG, None) => Err(CaError::Locked),
            (SEALED_TAG, Some(unlock)) => decode_sealed(&block, unlock).map(Some),
            (tag, _) => Err(CaError::Rejected {
                what: "the swarm key file",
                reason: format!("it holds a {tag}"),
            }),
        }
    }

    /// Replaces all that is in the key file.
    pub fn write_node(
        &self,
        certificate: &NodeCertificate,
        dek: Option<&SecretKey>,
        unlock: Option<&UnlockKey>,
    ) -> Result<(), CaError> {
        let material = KeyMaterial {
            key_pem: certificate.key_pem.clone(),
            dek: dek.cloned(),
            pending_dek: None,
            seal_version: 0,
        };
        self.write_pair(&certificate.certificate_pem, &material, unlock)
    }

    /// Writes a certificate and its key. Two files are not replaced at once: the certificate lies
    /// beside its place until the key is written, and [`Self::settle_certificate`] goes on from there.
    pub fn write_pair(
        &self,
        certificate_pem: &str,
        material: &KeyMaterial,
        unlock: Option<&UnlockKey>,
    ) -> Result<(), CaError> {
        self.write(NEXT_CERTIFICATE, certificate_pem, 0o644)?;
        self.write_key(material, unlock)?;
        self.adopt_next()
    }

    pub fn write_key(
        &self,
        material: &KeyMaterial,
        unlock: Option<&UnlockKey>,
    ) -> Result<(), CaError> {
        let block = encode(material, unlock)?;
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        self.write(NODE_KEY, &pem::encode_config(&block, config), 0o600)
    }

    /// Forgets the swarm: removes the node's files, the root last so that a crash half-way still
    /// shows a node that was in a swarm.
    pub fn remove(&self) -> Result<(), CaError> {
        for name in [
            NODE_KEY,
            NEXT_CERTIFICATE,
            NODE_CERTIFICATE,
            ROOT_CERTIFICATE,
        ] {
            self.remove_file(name)?;
        }
        Ok(())
    }

    fn remove_file(&self, name: &str) -> Result<(), CaError> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CaError::File { path, source })
            }
            _ => Ok(()),
        }
    }

    fn adopt_next(&self) -> Result<(), CaError> {
        let path = self.directory.join(NODE_CERTIFICATE);
        fs::rename(self.directory.join(NEXT_CERTIFICATE), &path)
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|source| CaError::File { path, source })
    }

    fn read_block(&self) -> Result<Option<Pem>, CaError> {
        let Some(text) = self.read(NODE_KEY)? else {
            return Ok(None);
        };
        pem::parse(text)
            .map(Some)
            .map_err(|source| CaError::parse("the swarm key file", source))
    }

    fn read(&self, name: &str) -> Result<Option<String>, CaError> {
        let path = self.directory.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CaError::File { path, source }),
        }
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), CaError> {
        let path = self.directory.join(name);
        write_atomically(&self.directory, &path, text.as_bytes(), mode)
            .map_err(|source| CaError::File { path, source })
    }
}

/// Whether the key is the certificate's; not, if either can not be read.
fn fits(certificate_pem: &str, key_pem: &str) -> bool {
    let Ok(block) = pem::parse(certificate_pem) else {
        return false;
    };
    let (Ok((_, certificate)), Ok(key)) = (
        X509Certificate::from_der(block.contents()),
        KeyPair::from_pem(key_pem),
    ) else {
        return false;
    };
    certificate.public_key().raw == key.subject_public_key_info()
}

fn write_atomically(directory: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let temporary = path.with_extension("tmp");
    // A leftover of a crash may have another mode; `mode` only applies to files made new.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

fn encode(material: &KeyMaterial, unlock: Option<&UnlockKey>) -> Result<Pem, CaError> {
    let key = pem::parse(&material.key_pem)
        .map_err(|source| CaError::parse("the node key", source))?
        .into_contents();
    let seal = |plain: &[u8]| match unlock {
        Some(unlock) => unlock.key().seal(plain),
        None => plain.to_vec(),
    };
    let tag = if unlock.is_some() {
        SEALED_TAG
    } else {
        PLAIN_TAG
    };
    let mut block = Pem::new(tag, seal(&key));
    for (name, dek) in [
        (HEADER_DEK, &material.dek),
        (HEADER_PENDING_DEK, &material.pending_dek),
    ] {
        if let Some(dek) = dek {
            let value = STANDARD.encode(seal(dek.as_bytes()));
            block
                .headers_mut()
                .add(name, &value)
                .map_err(|source| CaError::parse("the headers of the swarm key file", source))?;
        }
    }
    if material.seal_version > 0 {
        block
            .headers_mut()
            .add(HEADER_SEAL_VERSION, &material.seal_version.to_string())
            .map_err(|source| CaError::parse("the headers of the swarm key file", source))?;
    }
    Ok(block)
}

fn decode_plain(block: &Pem) -> Result<KeyMaterial, CaError> {
    decode(block.contents().to_vec(), block.headers(), Ok)
}

fn decode_sealed(block: &Pem, unlock: &UnlockKey) -> Result<KeyMaterial, CaError> {
    let open = |sealed: Vec<u8>| unlock.key().open(&sealed, "the swarm key file");
    decode(open(block.contents().to_vec())?, block.headers(), open)
}

fn decode(
    key: Vec<u8>,
    headers: &HeaderMap,
    open: impl Fn(Vec<u8>) -> Result<Vec<u8>, CaError>,
) -> Result<KeyMaterial, CaError> {
    let dek = |name: &str| -> Result<Option<SecretKey>, CaError> {
        let Some(value) = headers.get(name) else {
            return Ok(None);
        };
        let bytes = STANDARD
            .decode(value)
            .map_err(|source| CaError::parse("the headers of the swarm key file", source))?;
        SecretKey::from_slice(&open(bytes)?)
            .map(Some)
            .ok_or_else(|| CaError::Rejected {
                what: "the headers of the swarm key file",
                reason: format!("{name} has the wrong length"),
            })
    };
    let version = headers.get(HEADER_SEAL_VERSION).unwrap_or("0");
    let seal_version = version.parse().map_err(|source: std::num::ParseIntError| {
        CaError::parse("the headers of the swarm key file", source)
    })?;
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    Ok(KeyMaterial {
        seal_version,
        dek: dek(HEADER_DEK)?,
        pending_dek: dek(HEADER_PENDING_DEK)?,
        key_pem: pem::encode_config(&Pem::new(PLAIN_TAG, key), config),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeIdentity, NodeKey, NodeRole, RootCa};
    use std::os::unix::fs::PermissionsExt as _;
    use time::OffsetDateTime;

    fn material() -> KeyMaterial {
        KeyMaterial {
            key_pem: NodeKey::generate().unwrap().key_pem(),
            dek: Some(SecretKey::generate()),
            pending_dek: Some(SecretKey::generate()),
            seal_version: 7,
        }
    }

    #[test]
    fn reads_back_what_it_wrote_with_tight_modes() {
        let directory = tempfile::tempdir().unwrap();
        let files = CertificateFiles::new(directory.path().join("certificates"));
        assert_eq!(files.read_root().unwrap(), None);
        assert_eq!(files.is_locked().unwrap(), None);

        let now = OffsetDateTime::now_utc();
        let root = RootCa::generate(now).unwrap();
        let identity = NodeIdentity {
            organization: "c".into(),
            role: NodeRole::Manager,
            node_id: "n".into(),
        };
        let issued = root
            .issue(&identity, std::time::Duration::ZERO, now)
            .unwrap();
        let dek = SecretKey::generate();
        files.write_root(root.certificate_pem()).unwrap();
        files.write_node(&issued, Some(&dek), None).unwrap();

        assert_eq!(
            files.read_root().unwrap().as_deref(),
            Some(root.certificate_pem())
        );
        assert_eq!(
            files.read_certificate().unwrap(),
            Some(issued.certificate_pem)
        );
        let read = files.read_key(None).unwrap().unwrap();
        assert_eq!(read.key_pem, issued.key_pem);
        assert_eq!((read.dek, read.pending_dek), (Some(dek), None));
        let key = directory.path().join("certificates/swarm-node.key");
        assert_eq!(
            fs::metadata(key).unwrap().permissions().mode() & 0o777,
            0o600
        );

        files.remove().unwrap();
        assert_eq!(
            fs::read_dir(directory.path().join("certificates"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn a_locked_key_file_opens_only_with_its_unlock_key() {
        let directory = tempfile::tempdir().unwrap();
        let files = CertificateFiles::new(directory.path());
        let (material, unlock) = (material(), UnlockKey::generate());
        files.write_key(&material, Some(&unlock)).unwrap();

        assert_eq!(files.is_locked().unwrap(), Some(true));
        assert!(matches!(files.read_key(None), Err(CaError::Locked)));
        assert!(matches!(
            files.read_key(Some(&UnlockKey::generate())),
            Err(CaError::Decrypt { .. })
        ));
        assert_eq!(
            files.read_key(Some(&unlock)).unwrap(),
            Some(material.clone())
        );

        let text = fs::read_to_string(directory.path().join("swarm-node.key")).unwrap();
        let dek = STANDARD.encode(material.dek.unwrap().as_bytes());
        assert!(!text.contains(&dek));
    }

    #[test]
    fn a_power_cut_between_two_files_leaves_a_pair_that_fits() {
        let directory = tempfile::tempdir().unwrap();
        let files = CertificateFiles::new(directory.path());
        let now = OffsetDateTime::now_utc();
        let root = RootCa::generate(now).unwrap();
        let issue = |role| {
            let identity = NodeIdentity {
                organization: "c".into(),
                role,
                node_id: "n".into(),
            };
            root.issue(&identity, std::time::Duration::ZERO, now)
                .unwrap()
        };
        let [old, new] = [NodeRole::Worker, NodeRole::Manager].map(issue);
        let next = directory.path().join(NEXT_CERTIFICATE);
        let settled = || {
            let key = files.read_key(None).unwrap().unwrap().key_pem;
            let certificate = files.settle_certificate(&key).unwrap().unwrap();
            assert!(!next.exists());
            (certificate, key)
        };
        files.write_node(&old, None, None).unwrap();
        assert_eq!(
            settled(),
            (old.certificate_pem.clone(), old.key_pem.clone())
        );

        // Before the key was written: the old pair.
        fs::write(&next, &new.certificate_pem).unwrap();
        assert_eq!(settled(), (old.certificate_pem, old.key_pem));

        // After it: the new one.
        fs::write(&next, &new.certificate_pem).unwrap();
        let mut material = files.read_key(None).unwrap().unwrap();
        material.key_pem.clone_from(&new.key_pem);
        files.write_key(&material, None).unwrap();
        assert_eq!(settled(), (new.certificate_pem, new.key_pem));
    }

    #[test]
    fn a_leftover_of_a_crashed_write_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let leftover = directory.path().join("swarm-node.tmp");
        fs::write(&leftover, "half").unwrap();
        let files = CertificateFiles::new(directory.path());
        files.write_key(&material(), None).unwrap();
        assert!(!leftover.exists());
        assert!(files.read_key(None).unwrap().is_some());
    }
}
