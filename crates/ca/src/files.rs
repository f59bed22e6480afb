//! The certificate directory of a node.
//!
//! `swarm-root-ca.crt` and `swarm-node.crt` are plain PEM. `swarm-node.key` holds the node's key and,
//! in the headers of the PEM block, the data encryption keys of the raft log: one file, so that both
//! are replaced in one rename. With autolock, key and headers are sealed by the unlock key.

use crate::{CaError, NodeCertificate, SecretKey, UnlockKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pem::{HeaderMap, Pem};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const ROOT_CERTIFICATE: &str = "swarm-root-ca.crt";
const NODE_CERTIFICATE: &str = "swarm-node.crt";
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

    /// Writes the key first: a new key beside the old certificate is noticed at the next start and
    /// renewed; a new certificate whose key was never written would be lost for good.
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
        self.write_key(&material, unlock)?;
        self.write(NODE_CERTIFICATE, &certificate.certificate_pem, 0o644)
    }

    /// The certificate alone; its key must have been written before.
    pub fn write_certificate(&self, certificate_pem: &str) -> Result<(), CaError> {
        self.write(NODE_CERTIFICATE, certificate_pem, 0o644)
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
        for name in [NODE_KEY, NODE_CERTIFICATE, ROOT_CERTIFICATE] {
            let path = self.directory.join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(CaError::File { path, source });
                }
                _ => {}
            }
        }
        Ok(())
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
