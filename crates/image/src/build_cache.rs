//! What a builder asks of the store beside commits: where it stands, and whether it was here before.

use std::sync::Arc;

use serde_json::Value;
use skep_reference::Digest;

use crate::chain::{chain_id, digest_of};
use crate::config::{ImageConfig, RootFs, RunConfig};
use crate::error::ImageError;
use crate::image::{Image, ImageId};
use crate::store::ImageStore;

impl Image {
    /// `FROM scratch`: nothing at all. It is in no store.
    pub fn scratch() -> Self {
        Self {
            id: ImageId(digest_of(b"")),
            config: Arc::new(ImageConfig::default()),
            parent: None,
            last_tag_time: None,
            references: Vec::new(),
            size: 0,
            top: None,
        }
    }
}

impl ImageStore {
    /// The newest image that a build made on top of `parent` by the step that `record` describes:
    /// the configuration the step's container had.
    pub fn built_from(&self, parent: Option<&ImageId>, record: &Value) -> Option<Image> {
        let state = self.inner.state.read();
        let same = state.images.iter().filter(|(_, entry)| {
            entry.parent.as_ref() == parent
                && entry.config.container_config.as_ref() == Some(record)
        });
        let newest = same.max_by(|(_, a), (_, b)| a.config.created.cmp(&b.config.created));
        newest.and_then(|(id, _)| state.image(id))
    }

    /// Takes the next step after `parent` from `source`, an image built elsewhere, if its history
    /// says that it was made by `created_by`. `config` is what the step leaves.
    pub fn take_step(
        &self,
        parent: Option<&Image>,
        source: &Image,
        created_by: &str,
        config: RunConfig,
    ) -> Result<Option<ImageId>, ImageError> {
        let nothing = ImageConfig::default();
        let below = parent.map_or(&nothing, |image| image.config());
        let (steps, layers) = (below.history().len(), below.diff_ids().len());
        let theirs = source.config();
        let Some(step) = theirs.history().get(steps) else {
            return Ok(None);
        };
        let continues = theirs.history().starts_with(below.history())
            && theirs.diff_ids().starts_with(below.diff_ids())
            && step.created_by == created_by;
        if !continues {
            return Ok(None);
        }
        if theirs.history().len() == steps + 1 {
            return Ok(Some(source.id.clone()));
        }
        let layers = layers + usize::from(!step.empty_layer);
        let Some(diff_ids) = theirs.diff_ids().get(..layers) else {
            return Ok(None);
        };
        let config = ImageConfig {
            created: step.created.clone(),
            config: Some(config),
            rootfs: Some(RootFs {
                kind: "layers".to_owned(),
                diff_ids: Some(diff_ids.to_vec()),
            }),
            history: Some(theirs.history()[..=steps].to_vec()),
            comment: String::new(),
            container: String::new(),
            container_config: None,
            ..theirs.clone()
        };
        let top = top_of(diff_ids);
        let parent = parent.map(|image| image.id.clone());
        let id = self
            .inner
            .register_one(config, parent, None, top.as_ref(), None)?;
        Ok(Some(id))
    }
}

fn top_of(diff_ids: &[Digest]) -> Option<Digest> {
    diff_ids.iter().fold(None, |below, diff_id| {
        Some(chain_id(below.as_ref(), diff_id))
    })
}
