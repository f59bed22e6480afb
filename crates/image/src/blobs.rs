//! The content store: blobs by digest under `image/blobs/sha256`.
//!
//! A blob that came compressed is kept as it came. A raw tar is kept under its digest with `.zst`
//! added, compressed with zstd's fastest level: what is read back has the digest, what lies on the
//! disk is a third of it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skep_reference::Digest;

use crate::compression::decompress;
use crate::error::{Context, ImageError};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct BlobId {
    pub(crate) digest: Digest,
    /// Compressed at rest by us: the digest is that of the decompressed content.
    pub(crate) packed: bool,
}

impl BlobId {
    fn file_name(&self) -> String {
        let suffix = if self.packed { ".zst" } else { "" };
        format!("{}{suffix}", self.digest.hex())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct BlobStore {
    root: PathBuf,
}

impl BlobStore {
    pub(crate) fn open(root: PathBuf) -> Result<Self, ImageError> {
        fs::create_dir_all(&root).context(|| format!("mkdir {}", root.display()))?;
        Ok(Self { root })
    }

    pub(crate) fn path(&self, id: &BlobId) -> PathBuf {
        self.root.join(id.file_name())
    }

    /// Moves a finished, synced temporary file into place.
    pub(crate) fn adopt(&self, id: &BlobId, file: &Path) -> Result<(), ImageError> {
        let path = self.path(id);
        fs::rename(file, &path).context(|| format!("rename {}", path.display()))
    }

    /// Makes the names of adopted blobs durable.
    pub(crate) fn sync_names(&self) -> Result<(), ImageError> {
        File::open(&self.root)
            .and_then(|dir| dir.sync_all())
            .context(|| format!("sync {}", self.root.display()))
    }

    pub(crate) fn remove(&self, id: &BlobId) -> std::io::Result<()> {
        fs::remove_file(self.path(id))
    }

    /// The uncompressed content of a layer blob, however it is kept.
    pub(crate) fn layer_tar(&self, id: &BlobId) -> Result<impl Read + use<>, ImageError> {
        let path = self.path(id);
        let file = File::open(&path).context(|| format!("open {}", path.display()))?;
        decompress(file).context(|| format!("read {}", path.display()))
    }

    /// Removes every file no record speaks of and says how many.
    pub(crate) fn sweep(&self, known: impl Fn(&str) -> bool) -> Result<usize, ImageError> {
        let mut removed = 0;
        let entries =
            fs::read_dir(&self.root).context(|| format!("open {}", self.root.display()))?;
        for entry in entries {
            let entry = entry.context(|| format!("read {}", self.root.display()))?;
            if !known(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())
                    .context(|| format!("remove {}", entry.path().display()))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    pub(crate) fn names<'a>(ids: impl Iterator<Item = &'a BlobId>) -> Vec<String> {
        let mut names: Vec<_> = ids.map(BlobId::file_name).collect();
        names.sort();
        names
    }
}
