//! An OCI image layout: `index.json` and `blobs/`.

use std::collections::BTreeMap;

use serde::Deserialize;
use skep_reference::{Digest, Reference};

use super::{Archive, Described};
use crate::error::ImageError;
use crate::platform::{Platform, host};
use crate::spool::Spooled;

const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Marks provenance and the like, which lie beside images as if they were images.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const NESTING_MAX: usize = 4;

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

pub(super) fn describe(archive: &Archive) -> Result<Vec<Described>, ImageError> {
    let index: Index = parse("index.json", &archive.document("index.json")?)?;
    // `docker save` lists an image once for each of its names.
    let mut images: Vec<(Digest, Described)> = Vec::new();
    for descriptor in &index.manifests {
        let reference = name_of(descriptor)?;
        let Some(manifest) = manifest_of(archive, descriptor, NESTING_MAX)? else {
            continue;
        };
        let known = images
            .iter_mut()
            .find(|(digest, _)| *digest == manifest.config.digest);
        match known {
            Some((_, image)) => image.references.extend(reference),
            None => images.push((
                manifest.config.digest.clone(),
                image(archive, manifest, reference)?,
            )),
        }
    }
    if images.is_empty() {
        return Err(ImageError::bad(format!(
            "invalid archive: no image for platform {} in index.json",
            host()
        )));
    }
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

fn image(
    archive: &Archive,
    manifest: Manifest,
    reference: Option<Reference>,
) -> Result<Described, ImageError> {
    let config = blob(archive, &manifest.config.digest)?;
    let layers = manifest
        .layers
        .iter()
        .map(|layer| blob(archive, &layer.digest).cloned());
    Ok(Described {
        config: config.document("image configuration", archive.document_limit)?,
        layers: layers.collect::<Result<_, _>>()?,
        references: reference.into_iter().collect(),
        parent: None,
    })
}

/// containerd's annotation is a full name; the OCI one may be a name or a bare tag, which names
/// nothing by itself.
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>, ImageError> {
    let name = descriptor.annotations.get(IMAGE_NAME).or_else(|| {
        descriptor
            .annotations
            .get(REF_NAME)
            .filter(|name| name.contains(['/', ':']))
    });
    let reference = name.map(|name| Reference::parse(name)).transpose()?;
    Ok(reference
        .filter(|reference| reference.digest().is_none())
        .map(Reference::with_default_tag))
}

/// The image manifest a descriptor leads to on this platform; `None` where it is no image.
fn manifest_of(
    archive: &Archive,
    descriptor: &Descriptor,
    depth: usize,
) -> Result<Option<Manifest>, ImageError> {
    if descriptor.annotations.contains_key(REFERENCE_TYPE) {
        return Ok(None);
    }
    let document =
        blob(archive, &descriptor.digest)?.document("manifest", archive.document_limit)?;
    let nested = descriptor.media_type.ends_with("image.index.v1+json")
        || descriptor.media_type.ends_with("manifest.list.v2+json");
    if !nested {
        return parse("manifest", &document).map(Some);
    }
    if depth == 0 {
        return Err(ImageError::bad(
            "invalid archive: image indexes are nested too deep",
        ));
    }
    let index: Index = parse("image index", &document)?;
    let matching = |descriptor: &&Descriptor| {
        descriptor
            .platform
            .as_ref()
            .is_none_or(|platform| platform.runs_on(&host()))
    };
    for descriptor in index.manifests.iter().filter(matching) {
        if let Some(manifest) = manifest_of(archive, descriptor, depth - 1)? {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

fn blob<'a>(archive: &'a Archive, digest: &Digest) -> Result<&'a Spooled, ImageError> {
    let file = archive.find(&format!("blobs/{}/{}", digest.algorithm(), digest.hex()))?;
    if digest.algorithm() != "sha256" || file.blob.digest != *digest {
        return Err(ImageError::bad(format!(
            "invalid archive: blob {digest} has digest {}",
            file.blob.digest
        )));
    }
    Ok(file)
}

fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| {
        ImageError::bad(format!("invalid archive: failed to decode {what}: {error}"))
    })
}
