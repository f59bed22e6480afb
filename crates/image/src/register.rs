//! Makes layers of tars and records images: the part that load, import and commit share.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::thread;

use parking_lot::Mutex;
use skep_reference::{Digest, Reference};

use crate::chain::{chain_id, digest_of};
use crate::compression::{Compression, decompress};
use crate::db::{Change, ImageRecord, LayerRecord, RemoteBlob, StoredManifest};
use crate::error::{Context, ImageError};
use crate::image::ImageId;
use crate::init;
use crate::layers::NewLayer;
use crate::load::Progress;
use crate::pipe;
use crate::spool::Spooled;
use crate::state::State;
use crate::store::{Inner, tag_changes};
use crate::tar_reader::TarReader;
use crate::unpack::unpack;

/// More threads than this would only wait for the disk.
const UNPACKERS: usize = 2;

/// Layers and images of one operation: nothing of it shows before [`Registration::commit`], and
/// dropped before that nothing remains.
pub(crate) struct Registration<'a> {
    inner: &'a Inner,
    layers: BTreeMap<Digest, Prepared>,
    pinned: Vec<Digest>,
}

/// A layer unpacked but not yet recorded.
struct Prepared {
    layer: NewLayer,
    record: LayerRecord,
    source: Spooled,
    has_root: bool,
}

/// A layer to be made.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Its place in the image, for messages.
    pub(crate) index: usize,
    pub(crate) parent: Option<Digest>,
    pub(crate) diff_id: Digest,
    pub(crate) source: Spooled,
    /// What progress messages call it.
    pub(crate) shown: Shown,
}

/// How a layer's progress is told.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) working: &'static str,
    /// Said when the layer is there; nothing if empty.
    pub(crate) done: &'static str,
}

impl Shown {
    /// Of a tarball that is loaded.
    pub(crate) fn loading(diff_id: &Digest) -> Self {
        Self {
            id: diff_id.short().to_owned(),
            working: "Loading layer",
            done: "",
        }
    }
}

/// An image to be recorded.
pub(crate) struct NewImage {
    pub(crate) config: Vec<u8>,
    pub(crate) parent: Option<ImageId>,
    pub(crate) references: Vec<Reference>,
}

/// What is known about an image that came from a registry.
pub(crate) struct Origin {
    pub(crate) manifest: StoredManifest,
    /// By diff id.
    pub(crate) remotes: Vec<(Digest, RemoteBlob)>,
}

/// More would be a history, not a hint.
const REMOTES_MAX: usize = 8;

/// Remembers where layers are, newest first.
pub(crate) fn remote_changes(state: &State, found: &[(Digest, RemoteBlob)]) -> Vec<Change> {
    let mut changed: BTreeMap<Digest, Vec<RemoteBlob>> = BTreeMap::new();
    for (diff_id, blob) in found {
        let known = changed
            .entry(diff_id.clone())
            .or_insert_with(|| state.remotes.get(diff_id).cloned().unwrap_or_default());
        known.retain(|old| old.repository != blob.repository || old.digest != blob.digest);
        known.insert(0, blob.clone());
        known.truncate(REMOTES_MAX);
    }
    changed
        .into_iter()
        .filter(|(diff_id, blobs)| state.remotes.get(diff_id) != Some(blobs))
        .map(|(diff_id, blobs)| Change::PutRemotes(diff_id, blobs))
        .collect()
}

impl<'a> Registration<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self {
            inner,
            layers: BTreeMap::new(),
            pinned: Vec::new(),
        }
    }

    /// Whether the layer is here already; if so it stays until this operation ends.
    pub(crate) fn pin(&mut self, chain: &Digest) -> bool {
        let mut holds = self.inner.holds.lock();
        let known = self.inner.state.read().layers.contains_key(chain);
        if known {
            *holds.pins.entry(chain.clone()).or_default() += 1;
            self.pinned.push(chain.clone());
        }
        known
    }

    /// Unpacks layers, several at a time: each has a directory of its own. `jobs` may wait for
    /// layers that are still on their way; its first error ends everything.
    pub(crate) fn unpack(
        &mut self,
        jobs: &mut (dyn Iterator<Item = Result<Job, ImageError>> + Send),
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), ImageError> {
        let jobs = Mutex::new(jobs);
        let next = || jobs.lock().next();
        let progress = Mutex::new(progress);
        let done = Mutex::new(Vec::new());
        let failed = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..UNPACKERS {
                scope.spawn(|| {
                    while failed.lock().is_none()
                        && let Some(job) = next()
                    {
                        let tell = |step| (*progress.lock())(step);
                        match job.and_then(|job| prepare(self.inner, &job, &tell)) {
                            Ok(prepared) => done.lock().push(prepared),
                            Err(error) => {
                                failed.lock().get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        for prepared in done.into_inner() {
            let chain = chain_id(prepared.record.parent.as_ref(), &prepared.record.diff_id);
            self.layers.insert(chain, prepared);
        }
        self.inherit_roots()
    }

    /// A layer whose tar does not speak of the root takes its attributes from the layer below:
    /// the topmost directory is the one that shows.
    fn inherit_roots(&self) -> Result<(), ImageError> {
        let mut order: Vec<_> = self.layers.values().collect();
        // Parents first, so that attributes travel all the way up.
        order.sort_by_key(|prepared| self.depth(&prepared.record));
        for prepared in order.into_iter().filter(|prepared| !prepared.has_root) {
            let Some(parent) = &prepared.record.parent else {
                continue;
            };
            let below = match self.layers.get(parent) {
                Some(parent) => Some(parent.layer.diff()),
                None => self
                    .inner
                    .state
                    .read()
                    .layers
                    .get(parent)
                    .map(|l| self.inner.layers.diff(&l.dir)),
            };
            let Some(below) = below else { continue };
            fs::symlink_metadata(&below)
                .and_then(|root| init::imitate(&prepared.layer.diff(), Some(&root)))
                .context(|| format!("chmod {}", prepared.layer.diff().display()))?;
        }
        Ok(())
    }

    fn depth(&self, record: &LayerRecord) -> usize {
        let mut depth = 0;
        let mut parent = record.parent.as_ref();
        while let Some(prepared) = parent.and_then(|chain| self.layers.get(chain)) {
            depth += 1;
            parent = prepared.record.parent.as_ref();
        }
        depth
    }

    /// Puts everything in place and records it in one transaction. Returns the images' ids with, for
    /// each reference, the image that had it before.
    #[expect(
        clippy::type_complexity,
        reason = "two parallel lists, taken apart by the one caller"
    )]
    pub(crate) fn commit(
        self,
        images: Vec<NewImage>,
    ) -> Result<Vec<(ImageId, Vec<(Reference, Option<ImageId>)>)>, ImageError> {
        self.commit_from(images, None)
    }

    /// [`Registration::commit`] of what came from a registry.
    #[expect(
        clippy::type_complexity,
        reason = "two parallel lists, taken apart by the one caller"
    )]
    pub(crate) fn commit_from(
        mut self,
        images: Vec<NewImage>,
        origin: Option<Origin>,
    ) -> Result<Vec<(ImageId, Vec<(Reference, Option<ImageId>)>)>, ImageError> {
        self.sync()?;
        let layers = std::mem::take(&mut self.layers);
        let (mut kept, mut adopted) = (Vec::new(), Vec::new());
        let inner = self.inner;
        let recorded = inner.update(|state, changes| {
            for (chain, prepared) in layers {
                // Another operation may have brought the same layer meanwhile.
                if state.layers.contains_key(&chain) {
                    continue;
                }
                if prepared.source.path.exists() {
                    inner
                        .blobs
                        .adopt(&prepared.record.blob, &prepared.source.path)?;
                    adopted.push(prepared.record.blob.clone());
                }
                changes.push(Change::PutLayer(chain, prepared.record));
                kept.push(prepared.layer);
            }
            inner.blobs.sync_names()?;
            let mut recorded = Vec::new();
            for image in images {
                let id = ImageId(digest_of(&image.config));
                let config = String::from_utf8(image.config)
                    .map_err(|_| ImageError::bad("image configuration is not UTF-8"))?;
                let known = inner.db.image(&id)?;
                let mut record = known.unwrap_or(ImageRecord {
                    config,
                    parent: None,
                    last_tag_time: None,
                    manifest: None,
                });
                if let Some(origin) = &origin {
                    record.manifest = Some(origin.manifest.clone());
                    changes.extend(remote_changes(state, &origin.remotes));
                }
                if image.parent.is_some() {
                    record.parent = image.parent.map(|parent| parent.0);
                }
                changes.push(Change::PutImage(id.clone(), record.clone()));
                let mut names = Vec::new();
                for reference in image.references {
                    let previous = state
                        .references
                        .get(&reference)
                        .filter(|before| **before != id)
                        .cloned();
                    if origin.is_some() {
                        changes.push(Change::PutReference(reference.clone(), id.clone()));
                    } else {
                        changes.extend(tag_changes(&id, &reference, record.clone()));
                    }
                    names.push((reference, previous));
                }
                recorded.push((id, names));
            }
            Ok(recorded)
        });
        if recorded.is_err() {
            inner.remove_unused_blobs(adopted.iter());
        }
        let recorded = recorded?;
        kept.into_iter().for_each(NewLayer::keep);
        Ok(recorded)
    }

    /// Everything unpacked and spooled is on the disk before a record speaks of it.
    fn sync(&self) -> Result<(), ImageError> {
        if self.layers.is_empty() {
            return Ok(());
        }
        for dir in [self.inner.layers.root(), &self.inner.tmp] {
            File::open(dir)
                .and_then(|dir| Ok(rustix::fs::syncfs(&dir)?))
                .context(|| format!("write {}", dir.display()))?;
        }
        Ok(())
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        {
            let mut holds = self.inner.holds.lock();
            for chain in &self.pinned {
                if let Some(count) = holds.pins.get_mut(chain) {
                    *count -= 1;
                    if *count == 0 {
                        holds.pins.remove(chain);
                    }
                }
            }
        }
        if !self.pinned.is_empty()
            && let Err(error) = self.inner.collect()
        {
            tracing::warn!(%error, "could not collect layers nobody uses");
        }
    }
}

fn prepare(
    inner: &Inner,
    job: &Job,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Prepared, ImageError> {
    let mismatch = |got: &Digest| {
        ImageError::bad(format!(
            "invalid diffID for layer {}: expected {:?}, got {:?}",
            job.index,
            job.diff_id.as_str(),
            got.as_str()
        ))
    };
    let plain = job.source.compression == Compression::None;
    if plain && job.source.blob.digest != job.diff_id {
        return Err(mismatch(&job.source.blob.digest));
    }
    let layer = inner.layers.create()?;
    let limits = &inner.limits;
    let diff = layer.diff();
    let unpack_from = |input: &mut dyn Read| {
        let mut tar = TarReader::new(input, limits.entries, limits.document_bytes);
        let unpacked = unpack(&mut tar, &diff, limits.layer_bytes)?;
        tar.drain()?;
        Ok(unpacked)
    };
    let watched = Watched::new(job, job.source.open()?, progress);
    let (unpacked, tar_size) = if plain {
        // Measured when it was spooled.
        (unpack_from(&mut { watched })?, job.source.size)
    } else {
        let decompressed = decompress(watched).context(|| "read layer".to_owned())?;
        let capped = Capped {
            inner: decompressed,
            limit: limits.layer_bytes,
            read: 0,
        };
        let (unpacked, measured) = pipe::hashed(capped, |input| unpack_from(input))?;
        if measured.digest != job.diff_id {
            return Err(mismatch(&measured.digest));
        }
        (unpacked, measured.size)
    };
    let record = LayerRecord {
        diff_id: job.diff_id.clone(),
        parent: job.parent.clone(),
        dir: layer.dir.clone(),
        link: layer.link.clone(),
        size: unpacked.bytes,
        tar_size,
        blob: job.source.blob.clone(),
    };
    let prepared = Prepared {
        layer,
        record,
        source: job.source.clone(),
        has_root: unpacked.has_root,
    };
    if !job.shown.done.is_empty() {
        progress(Progress {
            id: job.shown.id.clone(),
            status: job.shown.done,
            current: 0,
            total: 0,
        });
    }
    Ok(prepared)
}

/// Tells about progress as a layer's file is read.
struct Watched<'a, R> {
    inner: R,
    progress: &'a (dyn Fn(Progress) + Sync),
    now: Progress,
    told: u64,
}

impl<'a, R> Watched<'a, R> {
    fn new(job: &Job, inner: R, progress: &'a (dyn Fn(Progress) + Sync)) -> Self {
        let now = Progress {
            id: job.shown.id.clone(),
            status: job.shown.working,
            current: 0,
            total: job.source.size,
        };
        Self {
            inner,
            progress,
            now,
            told: 0,
        }
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.now.current += read as u64;
        let step = (self.now.total / 50).max(512 << 10);
        let finished = read == 0 && self.told < self.now.current;
        if self.now.current - self.told >= step || finished {
            self.told = self.now.current;
            (self.progress)(self.now.clone());
        }
        Ok(read)
    }
}

/// Ends a decompression bomb, also one that hides behind the end of its tar.
struct Capped<R> {
    inner: R,
    limit: u64,
    read: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        // Headers and padding come on top of the content that the limit is about.
        if self.read > self.limit.saturating_mul(2).saturating_add(1 << 20) {
            return Err(io::Error::other(ImageError::bad(format!(
                "layer is larger than {} bytes uncompressed",
                self.limit
            ))));
        }
        Ok(read)
    }
}
