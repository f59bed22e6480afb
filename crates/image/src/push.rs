//! Gives an image's layers out as registries want them: compressed, by the digest of that.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use skep_reference::{Digest, Reference};

use crate::compression::Compression;
use crate::db::{Change, LayerRecord, RemoteBlob, StoredManifest};
use crate::error::{Context, ImageError};
use crate::image::ImageId;
use crate::layers::random_name;
use crate::register::remote_changes;
use crate::store::{ImageStore, Inner};

const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const BUFFER: usize = 256 << 10;

/// An image on its way to a registry; its layers cannot vanish meanwhile.
pub struct Push {
    inner: Arc<Inner>,
    pub id: ImageId,
    pub config: String,
    /// As it was pulled.
    pub manifest: Option<StoredManifest>,
    /// Lowest first.
    pub layers: Vec<PushLayer>,
    top: Option<Digest>,
}

/// One of its layers.
#[derive(Debug, Clone)]
pub struct PushLayer {
    pub diff_id: Digest,
    /// Of the uncompressed tar; bytes.
    pub tar_size: u64,
    /// Where it was seen, newest first.
    pub remotes: Vec<RemoteBlob>,
    record: LayerRecord,
}

/// A layer's blob as a file; one made for this is removed on drop.
#[derive(Debug)]
pub struct LayerBlob {
    pub path: PathBuf,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: &'static str,
    made: bool,
}

impl Drop for LayerBlob {
    fn drop(&mut self) {
        if self.made
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove a temporary file");
        }
    }
}

impl ImageStore {
    /// The tags of a repository, each with its image.
    pub fn tags_of(&self, repository: &Reference) -> Vec<Reference> {
        let name = repository.name();
        let state = self.inner.state.read();
        state
            .references
            .keys()
            .filter(|known| known.tag().is_some() && known.name() == name)
            .cloned()
            .collect()
    }

    /// Whether any name of the repository is known.
    pub fn knows_repository(&self, repository: &Reference) -> bool {
        let name = repository.name();
        let state = self.inner.state.read();
        state.references.keys().any(|known| known.name() == name)
    }

    /// The image behind a tag; `None` if there is no such tag.
    pub fn push(&self, reference: &Reference) -> Result<Option<Push>, ImageError> {
        let inner = &self.inner;
        let mut holds = inner.holds.lock();
        let state = inner.state.read();
        let Some(id) = state.references.get(reference) else {
            return Ok(None);
        };
        let Some(record) = inner.db.image(id)? else {
            return Err(ImageError::Database(format!("no record of image {id}")));
        };
        let chains = &state.images[id].chains;
        let top = chains.last().cloned();
        if let Some(top) = &top {
            *holds.pins.entry(top.clone()).or_default() += 1;
        }
        let layers = chains
            .iter()
            .filter_map(|chain| state.layers.get(chain))
            .map(|layer| PushLayer {
                diff_id: layer.diff_id.clone(),
                tar_size: layer.tar_size,
                remotes: state
                    .remotes
                    .get(&layer.diff_id)
                    .cloned()
                    .unwrap_or_default(),
                record: layer.clone(),
            })
            .collect();
        Ok(Some(Push {
            inner: inner.clone(),
            id: id.clone(),
            config: record.config,
            manifest: record.manifest,
            layers,
            top,
        }))
    }

    /// Remembers where layers are now, and the digest by which the registry knows the image.
    pub fn pushed(
        &self,
        id: &ImageId,
        name: &Reference,
        remotes: &[(Digest, RemoteBlob)],
    ) -> Result<(), ImageError> {
        self.inner.update(|state, changes| {
            if state.images.contains_key(id) && !state.references.contains_key(name) {
                changes.push(Change::PutReference(name.clone(), id.clone()));
            }
            changes.extend(remote_changes(state, remotes));
            Ok(())
        })
    }
}

impl Push {
    /// The digest a layer's blob has without compressing anything, if it came compressed.
    pub fn stored_digest(&self, layer: &PushLayer) -> Result<Option<Digest>, ImageError> {
        Ok(self
            .stored(layer)?
            .is_some()
            .then(|| layer.record.blob.digest.clone()))
    }

    fn stored(&self, layer: &PushLayer) -> Result<Option<&'static str>, ImageError> {
        let blob = &layer.record.blob;
        if blob.packed {
            return Ok(None);
        }
        let path = self.inner.blobs.path(blob);
        let mut start = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(8).read_to_end(&mut start))
            .context(|| format!("open {}", path.display()))?;
        Ok(match Compression::of(&start) {
            Compression::Gzip => Some(GZIP),
            Compression::Zstd => Some(ZSTD),
            _ => None,
        })
    }

    /// The layer's blob: as it came, if it came compressed, else compressed now. Blocks.
    pub fn blob(&self, layer: &PushLayer) -> Result<LayerBlob, ImageError> {
        if let Some(media_type) = self.stored(layer)? {
            let path = self.inner.blobs.path(&layer.record.blob);
            let size = fs::metadata(&path)
                .context(|| format!("open {}", path.display()))?
                .len();
            return Ok(LayerBlob {
                path,
                digest: layer.record.blob.digest.clone(),
                size,
                media_type,
                made: false,
            });
        }
        let mut blob = LayerBlob {
            path: self.inner.tmp.join(format!("push-{}", random_name(12))),
            digest: layer.diff_id.clone(),
            size: 0,
            media_type: GZIP,
            made: true,
        };
        let file = File::create(&blob.path).context(|| format!("write {}", blob.path.display()))?;
        let mut content = self.inner.blobs.layer_tar(&layer.record.blob)?;
        let out = Measured {
            inner: BufWriter::with_capacity(BUFFER, file),
            hash: Sha256::new(),
            size: 0,
        };
        let mut gzip = GzEncoder::new(out, Level::default());
        let mut hash = Sha256::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = content
                .read(&mut buffer)
                .context(|| format!("read layer {}", layer.diff_id))?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            gzip.write_all(&buffer[..read])
                .context(|| format!("write {}", blob.path.display()))?;
        }
        let mut out = gzip
            .finish()
            .context(|| format!("write {}", blob.path.display()))?;
        out.flush()
            .context(|| format!("write {}", blob.path.display()))?;
        let content = Digest::sha256(&hash.finalize().into());
        if content != layer.diff_id {
            return Err(ImageError::bad(format!(
                "layer {} is damaged: its content has digest {content}",
                layer.diff_id
            )));
        }
        blob.size = out.size;
        blob.digest = Digest::sha256(&out.hash.finalize().into());
        Ok(blob)
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        {
            let mut holds = self.inner.holds.lock();
            if let Some(top) = &self.top
                && let Some(count) = holds.pins.get_mut(top)
            {
                *count -= 1;
                if *count == 0 {
                    holds.pins.remove(top);
                }
            }
        }
        if let Err(error) = self.inner.collect() {
            tracing::warn!(%error, "could not collect layers nobody uses");
        }
    }
}

struct Measured<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
