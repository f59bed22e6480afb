//! `docker cp`, `docker export` and `docker diff`.
//!
//! A process in the container may rename and link whatever it likes while we read or write. So
//! every name is opened relative to its directory's descriptor without following links, and
//! directories are resolved by the kernel inside the container's root.

mod pack;
mod unpack;

pub use pack::pack;
pub use unpack::{Attributes, is_archive, unpack};

pub use crate::images::BodyReader;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_stubs::models as m;
use rustix::fs::OFlags;

use crate::container::Container;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::images::body_writer;
use crate::mounts::{MountKind, clean_path};
use crate::rooted;
use crate::types::{ByteStream, PathStat, PutArchiveOptions};
use crate::volumes::VolumeHold;

/// A container's files, for as long as it lives.
struct View {
    /// Of the whole container, or of the volume that the path is in.
    root: OwnedFd,
    /// Below `root`.
    path: PathBuf,
    /// To be unmounted at the end.
    mounted: Option<skep_image::Rootfs>,
    /// Keeps the container as it is while its root is mounted for us.
    _operation: Option<tokio::sync::OwnedMutexGuard<()>>,
    /// Keeps the volume mounted that the path is in.
    volume: Option<VolumeHold>,
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(rootfs) = self.mounted.take()
            && let Err(error) = rootfs.unmount()
        {
            tracing::warn!(container.id = %rootfs.container_id(), %error, "root of a stopped container still mounted");
        }
    }
}

impl Engine {
    /// What a file in a container is.
    pub async fn stat_archive(&self, id: &str, path: &str) -> Result<PathStat> {
        let container = self.containers.get(id)?;
        let view = self
            .view(&container, path)
            .await
            .map_err(|error| not_found(error, path, id))?;
        let path = path.to_owned();
        let id = id.to_owned();
        blocking(move || {
            pack::stat(&view.root, &view.path, &path)
                .map_err(|error| not_found(error.into(), &path, &id))
        })
        .await
    }

    /// A file or directory in a container as a tar.
    pub async fn get_archive(&self, id: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let container = self.containers.get(id)?;
        let view = self
            .view(&container, path)
            .await
            .map_err(|error| not_found(error, path, id))?;
        let (name, reference) = (path.to_owned(), id.to_owned());
        let (view, stat) = blocking(move || {
            let stat = pack::stat(&view.root, &view.path, &name)
                .map_err(|error| not_found(error.into(), &name, &reference))?;
            Ok((view, stat))
        })
        .await?;
        let (mut writer, stream) = body_writer();
        let base = pack::base_name(path);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = pack(&view.root, &view.path, &base, &mut writer) {
                writer.fail(error);
            }
        });
        self.container_event(&container, "archive-path");
        Ok((stat, stream))
    }

    /// Unpacks a tar, compressed or not, into a directory of a container.
    pub async fn put_archive(
        &self,
        id: &str,
        path: &str,
        options: PutArchiveOptions,
        body: ByteStream,
    ) -> Result<()> {
        let container = self.containers.get(id)?;
        let view = self
            .view(&container, path)
            .await
            .map_err(|error| not_found(error, path, id))?;
        Self::check_writable(&container, path)?;
        let reader = BodyReader::new(body);
        let owner = if options.copy_uid_gid {
            Self::container_owner(&container, &view)?
        } else {
            None
        };
        let (name, reference) = (path.to_owned(), id.to_owned());
        blocking(move || {
            let target = rooted::open_in(&view.root, &view.path, OFlags::PATH)
                .map_err(|error| not_found(error.into(), &name, &reference))?;
            if !std::fs::metadata(rooted::proc_path(&target))?.is_dir() {
                return Err(EngineError::invalid("extraction point is not a directory"));
            }
            let attributes = Attributes {
                owner,
                mode: None,
                keep_kinds: options.no_overwrite_dir_non_dir,
            };
            unpack(reader, &view.root, &view.path, attributes)
        })
        .await?;
        self.container_event(&container, "extract-to-dir");
        Ok(())
    }

    /// What `docker diff` shows.
    pub async fn changes_container(&self, id: &str) -> Result<Vec<m::FilesystemChange>> {
        let container = self.containers.get(id)?;
        let (images, id) = (self.images.clone(), container.id.clone());
        blocking(move || Ok(images.open_rootfs(&id)?.changes()?)).await
    }

    /// The whole root file system as a tar.
    pub async fn export_container(&self, id: &str) -> Result<ByteStream> {
        let container = self.containers.get(id)?;
        if container.record().state.phase == crate::container::Phase::Dead {
            return Err(EngineError::conflict(format!(
                "You cannot export container {} which is Dead",
                container.id
            )));
        }
        let view = self.mounted_view(&container, "/").await?;
        let (images, own) = (self.images.clone(), container.id.clone());
        let (mut writer, stream) = body_writer();
        tokio::task::spawn_blocking(move || {
            let exported = images
                .open_rootfs(&own)
                .and_then(|rootfs| rootfs.export(&mut writer));
            if let Err(error) = exported {
                writer.fail(io::Error::other(error));
            }
            drop(view);
        });
        self.container_event(&container, "export");
        Ok(stream)
    }

    async fn view(&self, container: &Arc<Container>, path: &str) -> Result<View> {
        let pid = {
            let record = container.record();
            record.state.is_up().then_some(record.state.pid)
        };
        let inside = PathBuf::from(format!("/{}", path.trim_start_matches('/')));
        if let Some(pid) = pid {
            // The container's own view, volumes and tmpfs included.
            let root = rooted::open_root(Path::new(&format!("/proc/{pid}/root")))?;
            return Ok(View {
                root,
                path: inside,
                mounted: None,
                _operation: None,
                volume: None,
            });
        }
        self.mounted_view(container, path).await
    }

    async fn mounted_view(&self, container: &Arc<Container>, path: &str) -> Result<View> {
        let (images, id) = (self.images.clone(), container.id.clone());
        if container.record().state.is_up() {
            let merged =
                blocking(move || Ok(images.open_rootfs(&id)?.merged().to_path_buf())).await?;
            return Ok(View {
                root: rooted::open_root(&merged)?,
                path: path.into(),
                mounted: None,
                _operation: None,
                volume: None,
            });
        }
        let operation = container.operation.clone().lock_owned().await;
        let rootfs = blocking(move || {
            let rootfs = images.open_rootfs(&id)?;
            rootfs.mount()?;
            Ok(rootfs)
        })
        .await?;
        let merged = rootfs.merged().to_path_buf();
        let inside = PathBuf::from(format!("/{}", path.trim_start_matches('/')));
        let mut view = View {
            root: rooted::open_root(&merged)?,
            path: inside,
            mounted: Some(rootfs),
            _operation: Some(operation),
            volume: None,
        };
        self.enter_volume(container, &merged, path, &mut view)?;
        Ok(view)
    }

    /// A path in a volume is looked up in the volume: it is not mounted while nothing runs.
    fn enter_volume(
        &self,
        container: &Container,
        merged: &Path,
        path: &str,
        view: &mut View,
    ) -> Result<()> {
        let lexical = clean_path(&format!("/{path}"));
        // Through the container's links as far as they exist.
        let real = rooted::real_path(merged, Path::new(&lexical))
            .ok()
            .and_then(|real| {
                real.strip_prefix(merged)
                    .ok()
                    .map(|inside| format!("/{}", inside.display()))
            })
            .unwrap_or(lexical);
        let mounts = container.record().mounts.clone();
        let below = |target: &str| real == target || real.starts_with(&format!("{target}/"));
        let deepest = mounts
            .values()
            .filter(|point| point.kind != MountKind::Tmpfs && below(&point.destination))
            .max_by_key(|point| point.destination.len());
        if let Some(point) = deepest {
            if let Some(name) = &point.name {
                let user = format!("archive-{}", crate::names::random_id());
                view.volume = Some(self.volumes.hold(name, user)?);
            }
            let inside = real[point.destination.len()..].to_owned();
            let source = Path::new(&point.source);
            if source.is_dir() {
                view.root = rooted::open_root(source)?;
                view.path = PathBuf::from(format!("/{}", inside.trim_start_matches('/')));
            }
        }
        Ok(())
    }

    fn check_writable(container: &Container, path: &str) -> Result<()> {
        let path = clean_path(&format!("/{path}"));
        let record = container.record();
        let within = |target: &str| path == target || path.starts_with(&format!("{target}/"));
        match record
            .mounts
            .values()
            .find(|point| within(&point.destination))
        {
            Some(point) if !point.rw => {
                Err(EngineError::invalid("mounted volume is marked read-only"))
            }
            None if record.host_config.readonly_rootfs == Some(true) => {
                Err(EngineError::invalid("container rootfs is marked read-only"))
            }
            _ => Ok(()),
        }
    }

    fn container_owner(container: &Container, view: &View) -> Result<Option<(u32, u32)>> {
        let user = container.record().config.user.clone().unwrap_or_default();
        if user.is_empty() {
            return Ok(None);
        }
        let user = crate::oci::resolve(&rooted::proc_path(&view.root), &user, &[])?;
        Ok(Some((user.uid, user.gid)))
    }
}

/// The text for a file that is not there; other errors pass.
fn not_found(error: EngineError, path: &str, container: &str) -> EngineError {
    if error.message.contains("No such file or directory")
        || error.message.contains("Not a directory")
    {
        return EngineError::not_found(format!(
            "Could not find the file {path} in container {container}"
        ));
    }
    error
}
