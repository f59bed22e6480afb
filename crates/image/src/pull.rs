//! Takes in an image that a registry gives: what is missing is fetched by somebody else while
//! layers that are here are unpacked.

use std::path::{Path, PathBuf};

use skep_reference::{Digest, Reference};

use crate::blobs::BlobId;
use crate::chain::chain_id;
use crate::config::ImageConfig;
use crate::db::{Change, RemoteBlob, StoredManifest};
use crate::error::{Context, ImageError};
use crate::image::ImageId;
use crate::load::Progress;
use crate::register::{Job, NewImage, Origin, Registration, Shown};
use crate::spool::Spool;
use crate::store::ImageStore;

/// An image as its manifest describes it; the documents are verified.
#[derive(Debug, Clone)]
pub struct PulledImage {
    pub config: Vec<u8>,
    pub manifest: StoredManifest,
    /// Lowest first.
    pub layers: Vec<PulledLayer>,
    /// Names to give it.
    pub references: Vec<Reference>,
    /// `docker.io/library/busybox`
    pub repository: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledLayer {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
}

/// Who fetches the layers. Called on a thread that may block.
pub trait Feed: Send {
    /// Told once, before anything is fetched, for each layer whether it has to be.
    fn begin(&mut self, missing: &[bool]);

    /// The next layer's place in the image and the file with its verified content, in any order;
    /// `None` ends the pull.
    fn next(&mut self) -> Option<(usize, PathBuf)>;
}

impl ImageStore {
    /// A directory on the store's file system for files that are emptied at the next start.
    pub fn scratch(&self) -> &Path {
        &self.inner.tmp
    }

    /// Gives an image that is here the names it was pulled by. `None`: it is not here; otherwise
    /// whether a name has changed.
    pub fn name_pulled(
        &self,
        id: &ImageId,
        references: &[Reference],
    ) -> Result<Option<bool>, ImageError> {
        self.inner.update(|state, changes| {
            if !state.images.contains_key(id) {
                return Ok(None);
            }
            let mut renamed = false;
            for reference in references {
                if state.references.get(reference) == Some(id) {
                    continue;
                }
                // That a digest is added to a name is no news.
                renamed |= reference.digest().is_none() || references.len() == 1;
                changes.push(Change::PutReference(reference.clone(), id.clone()));
            }
            Ok(Some(renamed))
        })
    }

    /// Takes an image in. All or nothing: after an error no image, layer or blob remains.
    pub fn pull(
        &self,
        image: PulledImage,
        feed: &mut dyn Feed,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<ImageId, ImageError> {
        let inner = &*self.inner;
        let config = ImageConfig::parse(&image.config)?;
        if config.os() != "linux" {
            return Err(ImageError::Invalid(format!(
                "cannot download image with operating system {:?} when requesting \"linux\"",
                config.os()
            )));
        }
        let diff_ids = config.diff_ids();
        if diff_ids.len() != image.layers.len() {
            return Err(ImageError::bad(
                "layers from manifest don't match image configuration",
            ));
        }
        let mut spool = Spool::new(&inner.tmp)?;
        let mut registration = Registration::new(inner);
        let mut chains: Vec<Digest> = Vec::new();
        let mut here = Vec::new();
        let mut missing = vec![false; diff_ids.len()];
        for (index, diff_id) in diff_ids.iter().enumerate() {
            let chain = chain_id(chains.last(), diff_id);
            if !registration.pin(&chain) {
                match self.local_blob(&image.layers[index], &mut spool) {
                    Some(source) => here.push((index, source)),
                    None => missing[index] = true,
                }
            }
            chains.push(chain);
        }
        feed.begin(&missing);
        let wanted = missing.iter().filter(|missing| **missing).count();
        let mut fetched = 0;
        let limit = inner.limits.layer_bytes;
        let mut sources = here.into_iter();
        let mut jobs = std::iter::from_fn(|| {
            let (index, source) = match sources.next() {
                Some(found) => found,
                None if fetched == wanted => return None,
                None => {
                    fetched += 1;
                    let Some((index, file)) = feed.next() else {
                        return Some(Err(ImageError::Invalid(
                            "the pull was cancelled".to_owned(),
                        )));
                    };
                    let layer = &image.layers[index];
                    if layer.size > limit {
                        return Some(Err(ImageError::bad(format!(
                            "layer is larger than {limit} bytes"
                        ))));
                    }
                    match spool.adopt(&file, layer.digest.clone(), layer.size) {
                        Ok(source) => (index, source),
                        Err(error) => return Some(Err(error)),
                    }
                }
            };
            Some(Ok(Job {
                index,
                parent: index.checked_sub(1).map(|below| chains[below].clone()),
                diff_id: diff_ids[index].clone(),
                source,
                shown: Shown {
                    id: image.layers[index].digest.short().to_owned(),
                    working: "Extracting",
                    done: "Pull complete",
                },
            }))
        });
        registration.unpack(&mut jobs, progress)?;
        let remotes = diff_ids
            .iter()
            .zip(&image.layers)
            .map(|(diff_id, layer)| (diff_id.clone(), layer.at(&image.repository)))
            .collect();
        let origin = Origin {
            manifest: image.manifest,
            remotes,
        };
        let new = NewImage {
            config: image.config,
            parent: None,
            references: image.references,
        };
        let recorded = registration.commit_from(vec![new], Some(origin))?;
        Ok(recorded.into_iter().next().expect("one image went in").0)
    }

    /// The same layer may be here on top of others.
    fn local_blob(&self, layer: &PulledLayer, spool: &mut Spool) -> Option<crate::spool::Spooled> {
        let id = BlobId {
            digest: layer.digest.clone(),
            packed: false,
        };
        let path = self.inner.blobs.path(&id);
        let size = std::fs::metadata(&path).ok()?.len();
        if size != layer.size {
            return None;
        }
        // It may go away at this moment: then it is fetched.
        spool.adopt(&path, layer.digest.clone(), size).ok()
    }

    /// Removes what `docker pull` left in the scratch directory under a name.
    pub fn discard(&self, file: &Path) -> Result<(), ImageError> {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.context(|| format!("remove {}", file.display())),
        }
    }
}

impl PulledLayer {
    fn at(&self, repository: &str) -> RemoteBlob {
        RemoteBlob {
            digest: self.digest.clone(),
            size: self.size,
            media_type: self.media_type.clone(),
            repository: repository.to_owned(),
        }
    }
}
