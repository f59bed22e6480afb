//! Whether a step was done before.

use serde_json::Value;
use skep_image::{Image, ImageStore, RunConfig};

use crate::comment::created_by;
use crate::error::BuildError;

/// Looks steps up until the first that is new: what comes after it is new too.
pub(crate) struct Cache {
    images: ImageStore,
    enabled: bool,
    /// Images given by `--cache-from`.
    sources: Vec<Image>,
    broken: bool,
}

impl Cache {
    pub(crate) fn new(images: ImageStore, enabled: bool, from: &[String]) -> Self {
        let sources = from.iter().filter_map(|name| match images.get(name) {
            Ok(image) => Some(image),
            Err(error) => {
                tracing::warn!(image = %name, %error, "cannot be used as a cache");
                None
            }
        });
        Self {
            enabled,
            sources: sources.collect(),
            broken: false,
            images,
        }
    }

    /// A stage begins: its first steps may be known again.
    pub(crate) fn next_stage(&mut self) {
        self.broken = false;
    }

    /// The image that a step on top of `parent` left earlier. `config` is what the step leaves now.
    pub(crate) fn probe(
        &mut self,
        parent: Option<&Image>,
        record: &RunConfig,
        config: &RunConfig,
    ) -> Result<Option<Image>, BuildError> {
        if !self.enabled || self.broken {
            return Ok(None);
        }
        let found = match self.local(parent, record)? {
            Some(image) => Some(image),
            None => self.elsewhere(parent, record, config)?,
        };
        self.broken = found.is_none();
        Ok(found)
    }

    /// With `--cache-from`, what was built here counts only if one of those came from it.
    fn local(
        &self,
        parent: Option<&Image>,
        record: &RunConfig,
    ) -> Result<Option<Image>, BuildError> {
        let record = to_value(record)?;
        let found = self.images.built_from(parent.map(Image::id), &record);
        Ok(found.filter(|image| {
            self.sources.is_empty()
                || self
                    .sources
                    .iter()
                    .any(|source| self.descends(source, image))
        }))
    }

    fn descends(&self, source: &Image, from: &Image) -> bool {
        let mut at = Some(source.clone());
        while let Some(image) = at {
            if image.id() == from.id() {
                return true;
            }
            at = image.parent().and_then(|parent| self.images.by_id(parent));
        }
        false
    }

    fn elsewhere(
        &mut self,
        parent: Option<&Image>,
        record: &RunConfig,
        config: &RunConfig,
    ) -> Result<Option<Image>, BuildError> {
        for source in self.sources.clone() {
            let said = created_by(record);
            let taken = self
                .images
                .take_step(parent, &source, &said, config.clone())?;
            if let Some(image) = taken.and_then(|id| self.images.by_id(&id)) {
                // Later steps follow the same image.
                self.sources = vec![source];
                return Ok(Some(image));
            }
        }
        Ok(None)
    }
}

/// A record as it is kept in an image's document.
pub(crate) fn to_value(record: &RunConfig) -> Result<Value, BuildError> {
    serde_json::to_value(record)
        .map_err(|error| BuildError::failed(format!("cannot encode configuration: {error}")))
}
