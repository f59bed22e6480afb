use std::sync::Arc;

use skep_reference::{Digest, Reference};

use crate::config::{ImageConfig, RunConfig};

/// The digest of an image's configuration document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(pub Digest);

impl ImageId {
    /// `sha256:…` in full.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Twelve hex digits, as Docker shows it to people.
    pub fn short(&self) -> &str {
        self.0.short()
    }
}

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One image as it stood when it was looked up. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) id: ImageId,
    pub(crate) config: Arc<ImageConfig>,
    pub(crate) parent: Option<ImageId>,
    /// RFC 3339.
    pub(crate) last_tag_time: Option<String>,
    /// Sorted.
    pub(crate) references: Vec<Reference>,
    /// Bytes of all layers.
    pub(crate) size: u64,
    pub(crate) top: Option<Digest>,
}

impl Image {
    pub fn id(&self) -> &ImageId {
        &self.id
    }

    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// How containers of this image run; `None` where the image does not say.
    pub fn run_config(&self) -> Option<&RunConfig> {
        self.config.config.as_ref()
    }

    pub fn parent(&self) -> Option<&ImageId> {
        self.parent.as_ref()
    }

    /// Uncompressed bytes of all layers.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All references to the image, sorted.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// `busybox:latest`, … in familiar form.
    pub fn repo_tags(&self) -> Vec<String> {
        self.references
            .iter()
            .filter(|r| r.digest().is_none())
            .map(Reference::familiar)
            .collect()
    }

    /// `busybox@sha256:…`, … in familiar form.
    pub fn repo_digests(&self) -> Vec<String> {
        self.references
            .iter()
            .filter(|r| r.digest().is_some())
            .map(Reference::familiar)
            .collect()
    }

    /// The chain id of the topmost layer; `None` for an image without layers.
    pub fn top_layer(&self) -> Option<&Digest> {
        self.top.as_ref()
    }

    /// When the image was last tagged, RFC 3339.
    pub fn last_tag_time(&self) -> Option<&str> {
        self.last_tag_time.as_deref()
    }
}
