use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use skep_reference::{AnyReference, Digest, Reference};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::blobs::{BlobId, BlobStore};
use crate::db::{Change, Db};
use crate::error::{Context, ImageError};
use crate::image::{Image, ImageId};
use crate::layers::LayerStore;
use crate::state::State;

/// What an archive may ask of this host before it is refused as a bomb.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Uncompressed bytes of one layer.
    pub layer_bytes: u64,
    /// Entries of one layer, and members of one archive.
    pub entries: u64,
    /// Bytes of one document (manifest, index, configuration) or of one entry's metadata.
    pub document_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes: 128 << 30,
            entries: 8_000_000,
            document_bytes: 8 << 20,
        }
    }
}

/// Images, their layers and the root file systems made of them. Cheap to clone; every method may
/// block on the disk, so async callers use `spawn_blocking`.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) db: Db,
    pub(crate) state: RwLock<State>,
    /// Held while something is decided from the state and then written, so that what was read
    /// still holds. Readers of the state do not wait for the disk.
    writing: Mutex<()>,
    pub(crate) holds: Mutex<Holds>,
    pub(crate) blobs: BlobStore,
    pub(crate) layers: LayerStore,
    pub(crate) tmp: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) pruning: Mutex<()>,
}

/// Layers in use by something that is not an image.
#[derive(Default)]
pub(crate) struct Holds {
    /// Running loads, by layer.
    pub(crate) pins: BTreeMap<Digest, usize>,
    /// Containers' root file systems, with the layer they stand on.
    pub(crate) containers: BTreeMap<String, Option<Digest>>,
}

impl ImageStore {
    /// Opens (or makes) the store under `data_root` and removes what an interrupted load left.
    pub fn open(data_root: &Path) -> Result<Self, ImageError> {
        Self::open_with(data_root, Limits::default())
    }

    pub fn open_with(data_root: &Path, limits: Limits) -> Result<Self, ImageError> {
        let root = data_root.join("image");
        fs::create_dir_all(&root).context(|| format!("mkdir {}", root.display()))?;
        // Mounting happens in another working directory, so a relative path would mislead.
        let data_root =
            fs::canonicalize(data_root).context(|| format!("open {}", data_root.display()))?;
        let root = data_root.join("image");
        let db = Db::open(&root.join("meta.redb"))?;
        let state = State::from_contents(db.contents()?)?;
        let tmp = root.join("tmp");
        if tmp.exists() {
            fs::remove_dir_all(&tmp).context(|| format!("remove {}", tmp.display()))?;
        }
        fs::create_dir_all(&tmp).context(|| format!("mkdir {}", tmp.display()))?;
        let blobs = BlobStore::open(root.join("blobs/sha256"))?;
        let layers = LayerStore::open(data_root.join("overlay2"))?;
        let inner = Inner {
            db,
            state: RwLock::new(state),
            writing: Mutex::new(()),
            holds: Mutex::default(),
            blobs,
            layers,
            tmp,
            limits,
            pruning: Mutex::new(()),
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        store.restore()?;
        Ok(store)
    }

    /// Finds the containers' file systems again and collects what nothing refers to.
    fn restore(&self) -> Result<(), ImageError> {
        let inner = &self.inner;
        {
            let state = inner.state.read();
            let by_dir: BTreeMap<&str, &Digest> = state
                .layers
                .iter()
                .map(|(chain, layer)| (layer.dir.as_str(), chain))
                .collect();
            let mut holds = inner.holds.lock();
            for (container, dir) in inner.layers.containers()? {
                let top =
                    dir.and_then(|dir| by_dir.get(dir.as_str()).map(|chain| (*chain).clone()));
                holds.containers.insert(container, top);
            }
        }
        let collected = inner.collect()?;
        let state = inner.state.read();
        let blobs = BlobStore::names(state.layers.values().map(|layer| &layer.blob));
        let orphan_blobs = inner
            .blobs
            .sweep(|name| blobs.binary_search_by(|b| b.as_str().cmp(name)).is_ok())?;
        let orphan_dirs = inner.layers.sweep(&state)?;
        if collected.len() + orphan_blobs + orphan_dirs > 0 {
            tracing::info!(
                layers = collected.len(),
                blobs = orphan_blobs,
                directories = orphan_dirs,
                "removed what an interrupted image operation left"
            );
        }
        Ok(())
    }

    /// Finds an image by reference, id or unique id prefix; `No such image: …` otherwise.
    pub fn get(&self, reference_or_id: &str) -> Result<Image, ImageError> {
        let state = self.inner.state.read();
        let id = state.resolve(reference_or_id)?;
        Ok(state
            .image(&id)
            .expect("resolve returns ids of images that exist"))
    }

    /// Finds an image by its full id.
    pub fn by_id(&self, id: &ImageId) -> Option<Image> {
        self.inner.state.read().image(id)
    }

    /// The number of images, as `docker info` counts them.
    pub fn count(&self) -> usize {
        self.inner.state.read().images.len()
    }

    /// Bytes of all layers, each counted once, as `docker system df` counts them.
    pub fn layers_size(&self) -> u64 {
        self.inner
            .state
            .read()
            .layers
            .values()
            .map(|layer| layer.size)
            .sum()
    }

    /// `docker tag`: lets `target` (a familiar or full name) point at `source`.
    pub fn tag(&self, source: &str, target: &str) -> Result<Tagged, ImageError> {
        let reference = taggable(target)?;
        self.inner.update(|state, changes| {
            let id = state.resolve(source)?;
            let Some(record) = self.inner.db.image(&id)? else {
                return Err(ImageError::Database(format!("no record of image {id}")));
            };
            changes.extend(tag_changes(&id, &reference, record));
            Ok(Tagged {
                image: id,
                reference: reference.clone(),
            })
        })
    }
}

/// What a tag command did.
#[derive(Debug, Clone)]
pub struct Tagged {
    pub image: ImageId,
    pub reference: Reference,
}

/// Parses a name that a tag can be given, with dockerd's refusals.
pub(crate) fn taggable(name: &str) -> Result<Reference, ImageError> {
    let AnyReference::Named(reference) = AnyReference::parse(name)? else {
        return Err(ImageError::Invalid(
            "refusing to create a tag with a digest reference".to_owned(),
        ));
    };
    if reference.digest().is_some() {
        return Err(ImageError::Invalid(
            "refusing to create a tag with a digest reference".to_owned(),
        ));
    }
    if reference.familiar_name() == "sha256" {
        return Err(ImageError::Invalid(
            "refusing to create an ambiguous tag using digest algorithm as name".to_owned(),
        ));
    }
    Ok(reference.with_default_tag())
}

pub(crate) fn tag_changes(
    id: &ImageId,
    reference: &Reference,
    mut record: crate::db::ImageRecord,
) -> [Change; 2] {
    record.last_tag_time = Some(now());
    [
        Change::PutImage(id.clone(), record),
        Change::PutReference(reference.clone(), id.clone()),
    ]
}

/// The present as Docker writes it: RFC 3339 in UTC with nanoseconds.
pub(crate) fn now() -> String {
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .expect("the present is within RFC 3339's years")
}

impl Inner {
    /// Decides changes from the state and writes them, all or none.
    pub(crate) fn update<T>(
        &self,
        decide: impl FnOnce(&State, &mut Vec<Change>) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let _writing = self.writing.lock();
        let mut changes = Vec::new();
        let result = decide(&self.state.read(), &mut changes)?;
        self.write(&changes)?;
        Ok(result)
    }

    fn write(&self, changes: &[Change]) -> Result<(), ImageError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.db.apply(changes)?;
        let mut state = self.state.write();
        changes.iter().try_for_each(|change| state.apply(change))
    }

    /// Removes the layers nobody needs and returns their chain ids with their sizes, top first.
    pub(crate) fn collect(&self) -> Result<Vec<(Digest, u64)>, ImageError> {
        let garbage = {
            let _writing = self.writing.lock();
            // Kept until the layers are unrecorded: who takes a layer into use takes this lock,
            // and must not find one that is about to go.
            let holds = self.holds.lock();
            let held = holds.pins.keys().chain(holds.containers.values().flatten());
            let garbage = self.state.read().unreferenced(held);
            let mut changes: Vec<_> = garbage
                .iter()
                .map(|(chain, _)| Change::DeleteLayer(chain.clone()))
                .collect();
            changes.extend(self.state.read().forgotten_remotes(&garbage));
            self.write(&changes)?;
            self.remove_unused_blobs(garbage.iter().map(|(_, layer)| &layer.blob));
            garbage
        };
        // Directories have names of their own, so that nobody can miss them once unrecorded.
        for (_, layer) in &garbage {
            if let Err(error) = self.layers.remove(&layer.dir, &layer.link) {
                tracing::warn!(layer.dir, %error, "could not remove a layer; will try at next start");
            }
        }
        Ok(garbage
            .into_iter()
            .map(|(chain, layer)| (chain, layer.size))
            .collect())
    }

    /// Blobs are named by content: one may still belong to the same layer in another chain.
    pub(crate) fn remove_unused_blobs<'a>(&self, blobs: impl Iterator<Item = &'a BlobId>) {
        let state = self.state.read();
        for blob in blobs {
            let used = state.layers.values().any(|layer| layer.blob == *blob);
            if !used && let Err(error) = self.blobs.remove(blob) {
                tracing::warn!(blob = %blob.digest, %error, "could not remove a blob");
            }
        }
    }
}
