//! The metadata that must survive: images, references, layers, in one redb file.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use skep_reference::{Digest, Reference};

use crate::blobs::BlobId;
use crate::error::ImageError;
use crate::image::ImageId;

const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");
const REFERENCES: TableDefinition<'_, &str, &str> = TableDefinition::new("references");
const LAYERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("layers");
/// Which registries have a layer: hints that save uploads, by diff id.
const REMOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("remotes");
/// Metadata is small and mirrored in memory, so the database needs almost no cache of its own.
const CACHE_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// The configuration document, byte for byte: the image's id is its digest.
    pub(crate) config: String,
    pub(crate) parent: Option<Digest>,
    pub(crate) last_tag_time: Option<String>,
    /// The manifest it was pulled with: pushed again, the image keeps its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<StoredManifest>,
}

/// A manifest as a registry gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredManifest {
    pub media_type: String,
    /// Byte for byte.
    pub text: String,
}

/// A layer as a registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteBlob {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
    /// `docker.io/library/busybox`
    pub repository: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) diff_id: Digest,
    pub(crate) parent: Option<Digest>,
    /// The name of its directory under `overlay2`.
    pub(crate) dir: String,
    /// Its short name under `overlay2/l`.
    pub(crate) link: String,
    /// Bytes of its regular files.
    pub(crate) size: u64,
    /// Bytes of its uncompressed tar.
    pub(crate) tar_size: u64,
    pub(crate) blob: BlobId,
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    PutImage(ImageId, ImageRecord),
    DeleteImage(ImageId),
    PutReference(Reference, ImageId),
    DeleteReference(Reference),
    PutLayer(Digest, LayerRecord),
    DeleteLayer(Digest),
    /// By diff id, newest first.
    PutRemotes(Digest, Vec<RemoteBlob>),
    DeleteRemotes(Digest),
}

pub(crate) struct Contents {
    pub(crate) images: Vec<(ImageId, ImageRecord)>,
    pub(crate) references: Vec<(Reference, ImageId)>,
    pub(crate) layers: Vec<(Digest, LayerRecord)>,
    pub(crate) remotes: Vec<(Digest, Vec<RemoteBlob>)>,
}

pub(crate) struct Db(Database);

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => {
                    ImageError::InUse(path.display().to_string())
                }
                other => ImageError::Database(other.to_string()),
            })?;
        let transaction = database.begin_write()?;
        transaction.open_table(IMAGES)?;
        transaction.open_table(REFERENCES)?;
        transaction.open_table(LAYERS)?;
        transaction.open_table(REMOTES)?;
        transaction.commit()?;
        Ok(Self(database))
    }

    /// Applies all changes or none; they are on disk when this returns.
    pub(crate) fn apply(&self, changes: &[Change]) -> Result<(), ImageError> {
        let transaction = self.0.begin_write()?;
        {
            let mut images = transaction.open_table(IMAGES)?;
            let mut references = transaction.open_table(REFERENCES)?;
            let mut layers = transaction.open_table(LAYERS)?;
            let mut remotes = transaction.open_table(REMOTES)?;
            for change in changes {
                match change {
                    Change::PutImage(id, record) => {
                        images.insert(id.as_str(), encode(record)?.as_slice())?;
                    }
                    Change::DeleteImage(id) => {
                        images.remove(id.as_str())?;
                    }
                    Change::PutReference(reference, id) => {
                        references.insert(reference.to_string().as_str(), id.as_str())?;
                    }
                    Change::DeleteReference(reference) => {
                        references.remove(reference.to_string().as_str())?;
                    }
                    Change::PutLayer(chain, record) => {
                        layers.insert(chain.as_str(), encode(record)?.as_slice())?;
                    }
                    Change::DeleteLayer(chain) => {
                        layers.remove(chain.as_str())?;
                    }
                    Change::PutRemotes(diff_id, blobs) => {
                        remotes.insert(diff_id.as_str(), encode(blobs)?.as_slice())?;
                    }
                    Change::DeleteRemotes(diff_id) => {
                        remotes.remove(diff_id.as_str())?;
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    pub(crate) fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, ImageError> {
        let transaction = self.0.begin_read()?;
        let images = transaction.open_table(IMAGES)?;
        images
            .get(id.as_str())?
            .map(|value| decode(id.as_str(), value.value()))
            .transpose()
    }

    pub(crate) fn contents(&self) -> Result<Contents, ImageError> {
        let transaction = self.0.begin_read()?;
        let mut contents = Contents {
            images: Vec::new(),
            references: Vec::new(),
            layers: Vec::new(),
            remotes: Vec::new(),
        };
        for row in transaction.open_table(IMAGES)?.iter()? {
            let (key, value) = row?;
            let id = ImageId(key_digest(key.value())?);
            contents
                .images
                .push((id, decode(key.value(), value.value())?));
        }
        for row in transaction.open_table(REFERENCES)?.iter()? {
            let (key, value) = row?;
            let reference = Reference::parse(key.value())
                .map_err(|error| ImageError::Database(format!("{}: {error}", key.value())))?;
            contents
                .references
                .push((reference, ImageId(key_digest(value.value())?)));
        }
        for row in transaction.open_table(LAYERS)?.iter()? {
            let (key, value) = row?;
            contents.layers.push((
                key_digest(key.value())?,
                decode(key.value(), value.value())?,
            ));
        }
        for row in transaction.open_table(REMOTES)?.iter()? {
            let (key, value) = row?;
            contents.remotes.push((
                key_digest(key.value())?,
                decode(key.value(), value.value())?,
            ));
        }
        Ok(contents)
    }
}

fn encode(record: &impl Serialize) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(record).map_err(|error| ImageError::Database(error.to_string()))
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::Database(format!("record of {key}: {error}")))
}

fn key_digest(text: &str) -> Result<Digest, ImageError> {
    text.parse()
        .map_err(|error| ImageError::Database(format!("key {text}: {error}")))
}
