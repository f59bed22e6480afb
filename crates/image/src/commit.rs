use std::io::{self, Write};
use std::thread;

use serde_json::Value;
use skep_reference::{Digest, Reference};

use crate::config::{History, ImageConfig, RootFs, RunConfig};
use crate::error::{Context, ImageError};
use crate::image::{Image, ImageId};
use crate::instructions::apply_changes;
use crate::platform::host;
use crate::rootfs::Rootfs;
use crate::spool::Spool;
use crate::store::{ImageStore, now};
use crate::tree::{TreeKind, write_tree};

#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The image the container was made of.
    pub parent: Option<ImageId>,
    pub reference: Option<Reference>,
    pub author: String,
    pub comment: String,
    /// The new image's configuration, before `changes`.
    pub config: RunConfig,
    pub changes: Vec<String>,
    pub container_id: String,
    /// The command the container ran, for the history.
    pub created_by: String,
    /// The container's own configuration as the API shows it, for the record.
    pub container_config: Option<Value>,
}

impl ImageStore {
    /// Makes an image of what a container changed, on top of the image it was made of. The caller
    /// pauses the container where that is wanted.
    pub fn commit(&self, rootfs: &Rootfs, options: CommitOptions) -> Result<ImageId, ImageError> {
        let inner = &*self.inner;
        let mut spool = Spool::new(&inner.tmp)?;
        let source = spool_tree(&mut spool, rootfs)?;
        let mut diff_ids = rootfs.diff_ids();
        diff_ids.push(source.blob.digest.clone());
        let parent = self.parent(&options);
        let reference = options.reference.clone();
        let config = child(parent.as_ref(), options, diff_ids, false)?;
        let parent = parent.map(|image| image.id);
        inner.register_one(config, parent, reference, rootfs.top(), Some(source))
    }

    /// Makes an image that differs from its parent in its configuration only.
    pub fn commit_config(&self, options: CommitOptions) -> Result<ImageId, ImageError> {
        let parent = self.parent(&options);
        let reference = options.reference.clone();
        let diff_ids = parent
            .as_ref()
            .map(|image| image.config.diff_ids().to_vec());
        let config = child(parent.as_ref(), options, diff_ids.unwrap_or_default(), true)?;
        let top = parent.as_ref().and_then(|image| image.top.clone());
        let parent = parent.map(|image| image.id);
        self.inner
            .register_one(config, parent, reference, top.as_ref(), None)
    }

    fn parent(&self, options: &CommitOptions) -> Option<Image> {
        options.parent.as_ref().and_then(|id| self.by_id(id))
    }
}

/// The configuration document of a new image.
fn child(
    parent: Option<&Image>,
    options: CommitOptions,
    diff_ids: Vec<Digest>,
    empty_layer: bool,
) -> Result<ImageConfig, ImageError> {
    let mut run = options.config;
    apply_changes(&mut run, &options.changes)?;
    let base = parent
        .map(|image| image.config().clone())
        .unwrap_or_default();
    let created = now();
    let mut history = base.history().to_vec();
    history.push(History {
        created: Some(created.clone()),
        created_by: options.created_by,
        author: options.author.clone(),
        comment: options.comment.clone(),
        empty_layer,
    });
    let platform = host();
    let or = |text: String, default: String| if text.is_empty() { default } else { text };
    Ok(ImageConfig {
        created: Some(created),
        author: options.author,
        comment: options.comment,
        architecture: or(base.architecture, platform.architecture),
        variant: base.variant,
        os: or(base.os, platform.os),
        os_version: base.os_version,
        config: Some(run),
        container: options.container_id,
        container_config: options.container_config,
        docker_version: String::new(),
        rootfs: Some(RootFs {
            kind: "layers".to_owned(),
            diff_ids: Some(diff_ids),
        }),
        history: Some(history),
    })
}

/// Writes the container's changes through a pipe: the tar is never held anywhere but in the spool.
fn spool_tree(spool: &mut Spool, rootfs: &Rootfs) -> Result<crate::spool::Spooled, ImageError> {
    let (mut reader, writer) = io::pipe().context(|| "open a pipe".to_owned())?;
    let upper = rootfs.upper().to_owned();
    thread::scope(|scope| {
        let packer = scope.spawn(move || {
            let mut writer = io::BufWriter::with_capacity(64 << 10, writer);
            write_tree(&upper, TreeKind::Layer, &mut writer)?;
            writer.flush()
        });
        let spooled = spool.take(&mut reader, None);
        // Unread, the pipe must break, or the packer waits for ever.
        drop(reader);
        let packed = packer.join().expect("packing a tree does not panic");
        let spooled = spooled?;
        packed.context(|| format!("read {}", rootfs.upper().display()))?;
        Ok(spooled)
    })
}
