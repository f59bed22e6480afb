use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_stubs::models as m;
use skep_reference::Digest;

use crate::changes::changes;
use crate::error::{Context, ImageError};
use crate::image::Image;
use crate::init;
use crate::layers::{LINKS, LOWER, LayerStore, ignore_missing, random_name};
use crate::overlay;
use crate::store::{ImageStore, Inner};
use crate::tree::{TreeKind, write_tree};

/// A container's root file system: the image's layers, read-only, and a directory of its own.
///
/// Its layers stay as long as it exists, whatever becomes of the image.
#[derive(Clone)]
pub struct Rootfs {
    inner: Arc<Inner>,
    container: String,
    dir: PathBuf,
    merged: PathBuf,
    upper: PathBuf,
    top: Option<Digest>,
}

impl ImageStore {
    /// Makes (or finds) the root file system of a container. Not yet mounted.
    pub fn rootfs(&self, image: &Image, container_id: &str) -> Result<Rootfs, ImageError> {
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if container_id.is_empty() || !container_id.chars().all(named) {
            return Err(ImageError::Invalid(format!(
                "invalid container id {container_id:?}"
            )));
        }
        if let Ok(existing) = self.open_rootfs(container_id) {
            if existing.top == image.top {
                return Ok(existing);
            }
            return Err(ImageError::Conflict(format!(
                "container {container_id} already has a root file system of another image"
            )));
        }
        self.inner.hold(container_id, image)?;
        let rootfs = self
            .inner
            .clone()
            .rootfs_of(container_id, image.top.clone());
        if let Err(error) = rootfs.make() {
            if let Err(cleanup) = rootfs.remove() {
                tracing::warn!(container.id = container_id, error = %cleanup, "could not clean up");
            }
            return Err(error);
        }
        Ok(rootfs)
    }

    /// Finds the root file system of a container made earlier, whatever became of its image.
    pub fn open_rootfs(&self, container_id: &str) -> Result<Rootfs, ImageError> {
        let top = self
            .inner
            .holds
            .lock()
            .containers
            .get(container_id)
            .cloned();
        let top = top.ok_or_else(|| {
            ImageError::NotFound(format!("no root file system of container {container_id}"))
        })?;
        Ok(self.inner.clone().rootfs_of(container_id, top))
    }

    /// The containers that have a root file system here, so that the engine can remove strays.
    pub fn rootfs_ids(&self) -> Vec<String> {
        self.inner.holds.lock().containers.keys().cloned().collect()
    }
}

impl Inner {
    /// Takes the layers into use for a container. Collections hold the same lock until they are
    /// written, so a layer seen here cannot be on its way out.
    fn hold(&self, container_id: &str, image: &Image) -> Result<(), ImageError> {
        let mut holds = self.holds.lock();
        if let Some(top) = &image.top
            && !self.state.read().layers.contains_key(top)
        {
            return Err(crate::state::no_such_image(image.id.as_str()));
        }
        holds
            .containers
            .insert(container_id.to_owned(), image.top.clone());
        Ok(())
    }

    fn rootfs_of(self: Arc<Self>, container_id: &str, top: Option<Digest>) -> Rootfs {
        let dir = self.layers.container(container_id);
        Rootfs {
            container: container_id.to_owned(),
            merged: dir.join("merged"),
            upper: dir.join("diff"),
            dir,
            top,
            inner: self,
        }
    }

    /// Directories and short names of a layer and all below it, top first.
    fn stack(&self, top: Option<&Digest>) -> Vec<(String, String)> {
        let state = self.state.read();
        let lineage = top.map(|top| state.lineage(top)).unwrap_or_default();
        let layers = lineage.iter().filter_map(|chain| state.layers.get(chain));
        layers
            .map(|layer| (layer.dir.clone(), layer.link.clone()))
            .collect()
    }
}

impl Rootfs {
    pub fn container_id(&self) -> &str {
        &self.container
    }

    /// Where `mount` puts it.
    pub fn merged(&self) -> &Path {
        &self.merged
    }

    /// What the container changed.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    pub(crate) fn top(&self) -> Option<&Digest> {
        self.top.as_ref()
    }

    /// Of the layers it stands on, lowest first.
    pub(crate) fn diff_ids(&self) -> Vec<Digest> {
        let state = self.inner.state.read();
        let lineage = self
            .top
            .as_ref()
            .map(|top| state.lineage(top))
            .unwrap_or_default();
        let layers = lineage
            .iter()
            .rev()
            .filter_map(|chain| state.layers.get(chain));
        layers.map(|layer| layer.diff_id.clone()).collect()
    }

    fn stack(&self) -> Vec<(String, String)> {
        self.inner.stack(self.top.as_ref())
    }

    fn make(&self) -> Result<(), ImageError> {
        let layers = &self.inner.layers;
        let stack = self.stack();
        let below = stack.first().map(|(dir, _)| dir.as_str());
        self.ensure_init(below, &stack)?;
        let make = || -> io::Result<()> {
            fs::DirBuilder::new().mode(0o710).create(&self.dir)?;
            for name in ["diff", "merged"] {
                fs::create_dir(self.dir.join(name))?;
            }
            fs::DirBuilder::new()
                .mode(0o700)
                .create(self.dir.join("work"))?;
            // The upper directory's own attributes are what the container sees at `/`.
            let root = below
                .map(|dir| fs::symlink_metadata(layers.diff(dir)))
                .transpose()?;
            init::imitate(&self.upper, root.as_ref())?;
            // Last, since it is what makes the directory count after a crash. A short symlink is
            // metadata: it is durable as soon as the engine's own record of the container is.
            symlink(LayerStore::lower_target(below), self.dir.join(LOWER))
        };
        make().context(|| format!("mkdir {}", self.dir.display()))
    }

    fn ensure_init(
        &self,
        below: Option<&str>,
        stack: &[(String, String)],
    ) -> Result<(), ImageError> {
        let layers = &self.inner.layers;
        let path = layers.root().join(LayerStore::init(below));
        if path.exists() {
            return Ok(());
        }
        let dirs: Vec<_> = stack.iter().map(|(dir, _)| layers.diff(dir)).collect();
        let tmp = layers.root().join(format!("making-{}", random_name(12)));
        let made = init::populate(&tmp.join("diff"), &dirs).and_then(|()| {
            match fs::rename(&tmp, &path) {
                // Another container of the image came first.
                Err(_) if path.exists() => fs::remove_dir_all(&tmp),
                other => other,
            }
        });
        made.context(|| format!("mkdir {}", path.display()))
    }

    /// Mounts it unless it is mounted already (a daemon killed and started again finds it so).
    pub fn mount(&self) -> Result<&Path, ImageError> {
        if !self.is_mounted()? {
            let layers = &self.inner.layers;
            let stack = self.stack();
            let init = LayerStore::init(stack.first().map(|(dir, _)| dir.as_str()));
            let mut lower = format!("{init}/diff");
            for (_, link) in &stack {
                lower.extend([":", LINKS, "/", link]);
            }
            let dir = self.dir.file_name().unwrap_or_default().to_string_lossy();
            overlay::mount_overlay(layers.root(), &lower, &dir, &self.merged)
                .context(|| format!("mount overlay at {}", self.merged.display()))?;
        }
        Ok(&self.merged)
    }

    pub fn is_mounted(&self) -> Result<bool, ImageError> {
        let device = |path: &Path| {
            fs::symlink_metadata(path)
                .map(|metadata| metadata.dev())
                .context(|| format!("stat {}", path.display()))
        };
        Ok(device(&self.merged)? != device(&self.dir)?)
    }

    /// Unmounts it if mounted.
    pub fn unmount(&self) -> Result<(), ImageError> {
        overlay::unmount_all(&self.merged).context(|| format!("unmount {}", self.merged.display()))
    }

    /// Unmounts it, removes what the container wrote and lets go of the layers.
    pub fn remove(&self) -> Result<(), ImageError> {
        self.unmount()?;
        // Renamed first: what a crash then leaves is no container any more and gets collected.
        let doomed = self
            .inner
            .layers
            .root()
            .join(format!("removing-{}", random_name(12)));
        ignore_missing(fs::rename(&self.dir, &doomed))
            .and_then(|()| ignore_missing(fs::remove_dir_all(&doomed)))
            .context(|| format!("remove {}", self.dir.display()))?;
        self.inner.holds.lock().containers.remove(&self.container);
        self.inner.collect()?;
        Ok(())
    }

    /// Bytes the container has written (`SizeRw`).
    pub fn size_rw(&self) -> Result<u64, ImageError> {
        tree_size(&self.upper).context(|| format!("read {}", self.upper.display()))
    }

    /// Bytes of the image's layers and of what the container has written (`SizeRootFs`).
    pub fn size_root(&self) -> Result<u64, ImageError> {
        let layers: u64 = {
            let state = self.inner.state.read();
            let lineage = self
                .top
                .as_ref()
                .map(|top| state.lineage(top))
                .unwrap_or_default();
            state.size_of(&lineage)
        };
        Ok(layers + self.size_rw()?)
    }

    /// What `docker diff` shows.
    pub fn changes(&self) -> Result<Vec<m::FilesystemChange>, ImageError> {
        let layers = &self.inner.layers;
        let stack = self.stack();
        let init = LayerStore::init(stack.first().map(|(dir, _)| dir.as_str()));
        let mut lower = vec![layers.diff(&init)];
        lower.extend(stack.iter().map(|(dir, _)| layers.diff(dir)));
        changes(&self.upper, &lower).context(|| format!("read {}", self.upper.display()))
    }

    /// Writes the whole tree as a tar (`docker export`). Mount it first.
    pub fn export(&self, writer: impl Write) -> Result<(), ImageError> {
        write_tree(&self.merged, TreeKind::Whole, writer)
            .context(|| format!("export {}", self.merged.display()))
    }

    /// What `docker inspect` shows under `GraphDriver`.
    pub fn graph_driver(&self) -> m::DriverData {
        let layers = &self.inner.layers;
        let stack = self.stack();
        let init = LayerStore::init(stack.first().map(|(dir, _)| dir.as_str()));
        let dirs = [init]
            .into_iter()
            .chain(stack.into_iter().map(|(dir, _)| dir));
        let lower: Vec<_> = dirs
            .map(|dir| layers.diff(&dir).display().to_string())
            .collect();
        let data = HashMap::from([
            ("ID".to_owned(), self.container.clone()),
            ("LowerDir".to_owned(), lower.join(":")),
            ("MergedDir".to_owned(), self.merged.display().to_string()),
            ("UpperDir".to_owned(), self.upper.display().to_string()),
            (
                "WorkDir".to_owned(),
                self.dir.join("work").display().to_string(),
            ),
        ]);
        m::DriverData {
            name: "overlay2".to_owned(),
            data,
        }
    }
}

/// Bytes of all files below, each counted once however many names it has.
fn tree_size(root: &Path) -> io::Result<u64> {
    let (mut size, mut seen, mut todo) = (0, BTreeSet::new(), vec![root.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            // The container may be running and remove files meanwhile.
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                todo.push(path);
            } else if metadata.nlink() == 1 || seen.insert(metadata.ino()) {
                size += metadata.len();
            }
        }
    }
    Ok(size)
}
