use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use skep_reference::{AnyReference, Digest, Reference};
use tar::{Builder, Header};

use crate::chain::digest_of;
use crate::db::LayerRecord;
use crate::error::{Context, ImageError};
use crate::image::ImageId;
use crate::state::{State, no_such_image};
use crate::store::{ImageStore, Inner};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Images about to be written as a tarball; their layers cannot vanish meanwhile.
pub struct Save {
    inner: Arc<Inner>,
    images: Vec<Saved>,
}

struct Saved {
    id: ImageId,
    config: String,
    references: Vec<Reference>,
    layers: Vec<LayerRecord>,
    /// The pinned top layer.
    top: Option<Digest>,
}

impl ImageStore {
    /// Checks that all names exist (so that an error can still become a status code) and prepares
    /// to write them. A bare name means all tags of the repository, as with dockerd.
    pub fn save(&self, names: &[String]) -> Result<Save, ImageError> {
        let inner = self.inner.clone();
        let mut save = Save {
            inner: inner.clone(),
            images: Vec::new(),
        };
        let mut chosen: Vec<(ImageId, Vec<Reference>)> = Vec::new();
        let mut holds = inner.holds.lock();
        let state = inner.state.read();
        for name in names {
            for (id, reference) in resolve(&state, name)? {
                let at = chosen
                    .iter()
                    .position(|(known, _)| *known == id)
                    .unwrap_or_else(|| {
                        chosen.push((id, Vec::new()));
                        chosen.len() - 1
                    });
                let references = &mut chosen[at].1;
                references.extend(reference.filter(|reference| !references.contains(reference)));
            }
        }
        for (id, references) in chosen {
            let entry = &state.images[&id];
            let record = inner
                .db
                .image(&id)?
                .ok_or_else(|| no_such_image(id.as_str()))?;
            let top = entry.chains.last().cloned();
            let layers = entry
                .chains
                .iter()
                .filter_map(|chain| state.layers.get(chain).cloned());
            if let Some(top) = &top {
                *holds.pins.entry(top.clone()).or_default() += 1;
            }
            let layers = layers.collect();
            save.images.push(Saved {
                id,
                config: record.config,
                references,
                layers,
                top,
            });
        }
        Ok(save)
    }
}

/// The images a name stands for, each with the reference to save it under.
fn resolve(state: &State, name: &str) -> Result<Vec<(ImageId, Option<Reference>)>, ImageError> {
    let AnyReference::Named(reference) = AnyReference::parse(name)? else {
        return Ok(vec![(state.resolve(name)?, None)]);
    };
    if reference.is_name_only() {
        let repository = reference.name();
        let tags: Vec<_> = state
            .references
            .iter()
            .filter(|(known, _)| known.digest().is_none() && known.name() == repository)
            .map(|(known, id)| (id.clone(), Some(known.clone())))
            .collect();
        if !tags.is_empty() {
            return Ok(tags);
        }
    }
    let id = state.resolve(name)?;
    let known = reference.digest().is_none() && state.references.get(&reference) == Some(&id);
    Ok(vec![(id, known.then_some(reference))])
}

impl Save {
    pub fn images(&self) -> impl Iterator<Item = &ImageId> {
        self.images.iter().map(|image| &image.id)
    }

    /// Writes what `docker save` of Docker 25 and later writes: an OCI layout that is a
    /// docker-archive too. Layers are verified against their digests while they are read.
    pub fn write_to(self, writer: impl Write) -> Result<(), ImageError> {
        let mut tar = Builder::new(writer);
        let mut documents: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        let (mut manifests, mut index) = (Vec::new(), Vec::new());
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for image in &self.images {
            let manifest = oci_manifest(image);
            let descriptor = json!({
                "mediaType": MANIFEST,
                "digest": digest_of(&manifest),
                "size": manifest.len(),
            });
            if image.references.is_empty() {
                index.push(descriptor.clone());
            }
            for reference in &image.references {
                let tag = reference.tag().unwrap_or("latest");
                let mut named = descriptor.clone();
                named["annotations"] = json!({
                    "io.containerd.image.name": reference.to_string(),
                    "org.opencontainers.image.ref.name": tag,
                });
                index.push(named);
                if let Some(layer) = image.layers.last() {
                    let tags = repositories.entry(reference.familiar_name()).or_default();
                    tags.insert(tag.to_owned(), layer.diff_id.hex().to_owned());
                }
            }
            manifests.push(docker_manifest(image));
            documents.insert(digest_of(&manifest), manifest);
            documents.insert(image.id.0.clone(), image.config.clone().into_bytes());
        }
        let write = |error| ImageError::io("write archive", error);
        for directory in ["blobs/", "blobs/sha256/"] {
            append(&mut tar, directory, 0o755, 0, &mut io::empty()).map_err(write)?;
        }
        self.write_layers(&mut tar)?;
        let mut files: Vec<(String, Vec<u8>)> = documents
            .into_iter()
            .map(|(digest, bytes)| (blob_path(&digest), bytes))
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": index });
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files.push((
            "manifest.json".to_owned(),
            json!(manifests).to_string().into_bytes(),
        ));
        files.push((
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec(),
        ));
        if !repositories.is_empty() {
            files.push((
                "repositories".to_owned(),
                json!(repositories).to_string().into_bytes(),
            ));
        }
        for (path, bytes) in files {
            append(
                &mut tar,
                &path,
                0o644,
                bytes.len() as u64,
                &mut bytes.as_slice(),
            )
            .map_err(write)?;
        }
        tar.into_inner()
            .and_then(|mut writer| writer.flush())
            .map_err(write)
    }

    fn write_layers(&self, tar: &mut Builder<impl Write>) -> Result<(), ImageError> {
        let mut written = BTreeSet::new();
        for layer in self.images.iter().flat_map(|image| &image.layers) {
            if !written.insert(&layer.diff_id) {
                continue;
            }
            let mut content = Hashing {
                inner: self.inner.blobs.layer_tar(&layer.blob)?,
                hash: Sha256::new(),
            };
            append(
                tar,
                &blob_path(&layer.diff_id),
                0o644,
                layer.tar_size,
                &mut content,
            )
            .context(|| "write archive".to_owned())?;
            let digest = Digest::sha256(&content.hash.finalize().into());
            if digest != layer.diff_id {
                return Err(ImageError::bad(format!(
                    "layer {} is damaged: its content has digest {digest}",
                    layer.diff_id
                )));
            }
        }
        Ok(())
    }
}

impl Drop for Save {
    fn drop(&mut self) {
        {
            let mut holds = self.inner.holds.lock();
            for top in self.images.iter().filter_map(|image| image.top.as_ref()) {
                if let Some(count) = holds.pins.get_mut(top) {
                    *count -= 1;
                    if *count == 0 {
                        holds.pins.remove(top);
                    }
                }
            }
        }
        if let Err(error) = self.inner.collect() {
            tracing::warn!(%error, "could not collect layers nobody uses");
        }
    }
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

fn oci_manifest(image: &Saved) -> Vec<u8> {
    let layers: Vec<_> = image
        .layers
        .iter()
        .map(|layer| json!({"mediaType": LAYER, "digest": layer.diff_id, "size": layer.tar_size}))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": image.id.0, "size": image.config.len()},
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}

fn docker_manifest(image: &Saved) -> serde_json::Value {
    let tags: Vec<_> = image.references.iter().map(Reference::familiar).collect();
    let layers: Vec<_> = image
        .layers
        .iter()
        .map(|layer| blob_path(&layer.diff_id))
        .collect();
    json!({
        "Config": blob_path(&image.id.0),
        "RepoTags": if tags.is_empty() { None } else { Some(tags) },
        "Layers": layers,
    })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Appends a member whose attributes do not depend on this host or moment.
fn append(
    tar: &mut Builder<impl Write>,
    path: &str,
    mode: u32,
    size: u64,
    content: &mut dyn Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    if path.ends_with('/') {
        header.set_entry_type(tar::EntryType::Directory);
    }
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_size(size);
    let mut counted = content.take(size);
    tar.append_data(&mut header, path, &mut counted)?;
    if counted.limit() > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
