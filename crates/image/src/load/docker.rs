//! `manifest.json`: what `docker save` has written since Docker 1.10.

use serde::Deserialize;
use skep_reference::{Digest, Reference};

use super::{Archive, Described};
use crate::error::ImageError;
use crate::image::ImageId;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

pub(super) fn describe(archive: &Archive) -> Result<Vec<Described>, ImageError> {
    let bytes = archive.document("manifest.json")?;
    let items: Option<Vec<Item>> = serde_json::from_slice(&bytes).map_err(|error| {
        ImageError::bad(format!(
            "invalid archive: failed to decode manifest.json: {error}"
        ))
    })?;
    let items = items.ok_or_else(|| {
        ImageError::bad("invalid manifest, manifest cannot be null (but can be [])")
    })?;
    items.into_iter().map(|item| image(archive, item)).collect()
}

fn image(archive: &Archive, item: Item) -> Result<Described, ImageError> {
    let layers = item.layers.unwrap_or_default();
    Ok(Described {
        config: archive.document(&item.config)?,
        layers: layers
            .iter()
            .map(|layer| archive.find(layer).cloned())
            .collect::<Result<_, _>>()?,
        references: item
            .repo_tags
            .unwrap_or_default()
            .iter()
            .map(|name| tag(name))
            .collect::<Result<_, _>>()?,
        parent: item
            .parent
            .and_then(|id| id.parse::<Digest>().ok())
            .map(ImageId),
    })
}

fn tag(name: &str) -> Result<Reference, ImageError> {
    let reference = Reference::parse(name)?;
    if reference.tag().is_none() || reference.digest().is_some() {
        return Err(ImageError::bad(format!("invalid tag {name:?}")));
    }
    Ok(reference)
}
