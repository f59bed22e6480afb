//! `docker push`.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use skep_image::{Digest, Push, PushLayer, Reference, RemoteBlob};
use skep_registry::{
    Access, BlobSource, Credentials, Descriptor, Endpoint, Mounted, RegistryError, Repository,
    media_type,
};
use tokio::sync::mpsc;

use super::progress::{Pace, Progress};
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::types::ProgressStream;

const ATTEMPTS: u32 = 5;
/// Repositories asked for a layer before it is sent.
const MOUNTS_MAX: usize = 3;

/// What to push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Without tag: all tags.
    pub reference: Reference,
    pub credentials: Credentials,
}

impl Engine {
    /// Pushes an image. Nothing goes on once the stream is dropped.
    pub async fn push_image(self: &Arc<Self>, options: PushOptions) -> Result<ProgressStream> {
        let (sender, receiver) = mpsc::channel(256);
        let engine = self.clone();
        let task = tokio::spawn(async move {
            let run = Run {
                engine,
                progress: Progress::new(sender.clone()),
                options,
            };
            if let Err(error) = run.run().await {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(super::ask::cancelling(
            crate::images::received(receiver),
            task,
        ))
    }
}

struct Run {
    engine: Arc<Engine>,
    progress: Progress,
    options: PushOptions,
}

enum Failure {
    Registry(RegistryError),
    Other(EngineError),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Other(error)
    }
}

impl Run {
    async fn run(&self) -> Result<()> {
        let reference = &self.options.reference;
        self.progress
            .message(
                "",
                format!("The push refers to repository [{}]", reference.name()),
            )
            .await;
        if !self.engine.images.knows_repository(reference) {
            return Err(EngineError::system(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )));
        }
        let client = &self.engine.registries.client;
        let mut attempts = client.attempts(reference, false).await;
        loop {
            let endpoint = attempts.take_next()?;
            match self.to(&endpoint).await {
                Ok(()) => break,
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::Registry(error)) => attempts.failed(&endpoint, error)?,
            }
        }
        self.engine
            .image_event("push", &reference.familiar(), &reference.familiar_name());
        Ok(())
    }

    async fn to(&self, endpoint: &Endpoint) -> std::result::Result<(), Failure> {
        let reference = &self.options.reference;
        let client = &self.engine.registries.client;
        let repository = client
            .connect(endpoint, reference, Access::Push, &self.options.credentials)
            .await?;
        if reference.digest().is_some() {
            return Err(EngineError::system("cannot push a digest reference").into());
        }
        if reference.tag().is_some() {
            return self.tag(&repository, reference).await;
        }
        let tags = self.engine.images.tags_of(reference);
        if tags.is_empty() {
            let name = reference.familiar_name();
            return Err(EngineError::system(format!("no tags to push for {name}")).into());
        }
        for tag in tags {
            self.tag(&repository, &tag).await?;
        }
        Ok(())
    }

    async fn tag(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> std::result::Result<(), Failure> {
        let (images, wanted) = (self.engine.images.clone(), reference.clone());
        let push = blocking(move || Ok(images.push(&wanted)?)).await?;
        let Some(push) = push else {
            return Err(EngineError::system(format!(
                "tag does not exist: {}",
                reference.familiar()
            ))
            .into());
        };
        let push = Arc::new(push);
        for layer in push.layers.iter().rev() {
            self.progress
                .update(layer.diff_id.short(), "Preparing")
                .await;
        }
        let uploads: Vec<_> = push
            .layers
            .iter()
            .map(|layer| self.layer(repository, reference, &push, layer))
            .collect();
        let blobs = futures::future::try_join_all(uploads).await?;
        let config = Bytes::copy_from_slice(push.config.as_bytes());
        repository.upload_bytes(&push.id.0, config).await?;
        let (kind, manifest) = manifest(&push, &blobs);
        let tag = reference.tag().unwrap_or("latest");
        repository.put_manifest(tag, kind, manifest.clone()).await?;
        let digest = Digest::sha256(&Sha256::digest(&manifest).into());
        self.progress
            .message(
                "",
                format!("{tag}: digest: {digest} size: {}", manifest.len()),
            )
            .await;
        let name = reference.clone().trimmed().with_digest(digest.clone());
        let remotes: Vec<_> = push
            .layers
            .iter()
            .map(|layer| layer.diff_id.clone())
            .zip(blobs)
            .collect();
        let (images, id) = (self.engine.images.clone(), push.id.clone());
        blocking(move || Ok(images.pushed(&id, &name, &remotes)?)).await?;
        self.progress
            .aux(json!({"Tag": tag, "Digest": digest, "Size": manifest.len()}))
            .await;
        Ok(())
    }

    /// Makes sure that the registry has a layer.
    async fn layer(
        &self,
        repository: &Repository,
        reference: &Reference,
        push: &Arc<Push>,
        layer: &PushLayer,
    ) -> std::result::Result<RemoteBlob, Failure> {
        let id = layer.diff_id.short();
        let client = &self.engine.registries.client;
        let _slot = if let Some(slot) = client.try_upload_slot() {
            slot
        } else {
            self.progress.update(id, "Waiting").await;
            client.upload_slot().await
        };
        let mut attempt = 1;
        loop {
            let error = match self.layer_once(repository, reference, push, layer).await {
                Err(Failure::Registry(error)) if error.is_temporary() && attempt < ATTEMPTS => {
                    error
                }
                other => return other,
            };
            let pause = 1_u64 << attempt.min(4);
            tracing::info!(layer = id, %error, "upload failed, retrying");
            self.progress
                .update(id, format!("Retrying in {pause} seconds"))
                .await;
            tokio::time::sleep(std::time::Duration::from_secs(pause)).await;
            attempt += 1;
        }
    }

    async fn layer_once(
        &self,
        repository: &Repository,
        reference: &Reference,
        push: &Arc<Push>,
        layer: &PushLayer,
    ) -> std::result::Result<RemoteBlob, Failure> {
        let id = layer.diff_id.short();
        let name = reference.name();
        let own = {
            let (push, layer) = (push.clone(), layer.clone());
            blocking(move || Ok(push.stored_digest(&layer)?)).await?
        };
        // What came compressed has one digest only; what is compressed here may have had another.
        let known = layer
            .remotes
            .iter()
            .filter(|remote| own.as_ref().is_none_or(|own| *own == remote.digest));
        for remote in known.clone().filter(|remote| remote.repository == name) {
            if repository.blob_size(&remote.digest).await?.is_some() {
                self.progress.update(id, "Layer already exists").await;
                return Ok(remote.clone());
            }
        }
        let mut place = None;
        let domain = format!("{}/", reference.domain());
        let mounts = known
            .filter(|remote| remote.repository != name)
            .filter_map(|remote| Some((remote, remote.repository.strip_prefix(&domain)?)))
            .take(MOUNTS_MAX);
        for (remote, path) in mounts {
            match repository.begin_upload(&remote.digest, Some(path)).await {
                Ok(Mounted::Yes) => {
                    self.progress
                        .update(id, format!("Mounted from {path}"))
                        .await;
                    return Ok(RemoteBlob {
                        repository: name,
                        ..remote.clone()
                    });
                }
                Ok(Mounted::No { upload }) => place = Some(upload),
                // A repository that may not be read is no reason not to upload.
                Err(error) => tracing::debug!(%error, from = path, "can't mount a layer"),
            }
        }
        let blob = {
            let (push, layer) = (push.clone(), layer.clone());
            blocking(move || Ok(push.blob(&layer)?)).await?
        };
        let found = RemoteBlob {
            digest: blob.digest.clone(),
            size: blob.size,
            media_type: blob.media_type.to_owned(),
            repository: name,
        };
        if repository.blob_size(&blob.digest).await?.is_some() {
            self.progress.update(id, "Layer already exists").await;
            return Ok(found);
        }
        let place = match place {
            Some(place) => place,
            None => match repository.begin_upload(&blob.digest, None).await? {
                Mounted::No { upload } => upload,
                Mounted::Yes => return Ok(found),
            },
        };
        let source = BlobSource {
            path: blob.path.clone(),
            digest: blob.digest.clone(),
            size: blob.size,
        };
        let (progress, shown, size, pace) = (
            self.progress.clone(),
            id.to_owned(),
            blob.size,
            Pace::default(),
        );
        let tell = Arc::new(move |sent: u64| {
            if pace.due() || sent == size {
                progress.bar(&shown, "Pushing", sent, size);
            }
        });
        repository.upload(&place, &source, tell).await?;
        self.progress.update(id, "Pushed").await;
        Ok(found)
    }
}

/// The manifest to push: the one the image was pulled with, if it says the same, else dockerd's.
fn manifest(push: &Push, blobs: &[RemoteBlob]) -> (&'static str, Bytes) {
    if let Some(stored) = &push.manifest
        && let Some(kind) = [media_type::MANIFEST, media_type::OCI_MANIFEST]
            .into_iter()
            .find(|kind| *kind == stored.media_type)
        && let Ok(said) = serde_json::from_str::<skep_registry::ImageManifest>(&stored.text)
        && said.config.digest == push.id.0
        && said.layers.len() == blobs.len()
        && said
            .layers
            .iter()
            .zip(blobs)
            .all(|(a, b)| a.digest == b.digest)
    {
        return (kind, Bytes::copy_from_slice(stored.text.as_bytes()));
    }
    let zstd = blobs
        .iter()
        .any(|blob| blob.media_type == media_type::OCI_LAYER_ZSTD);
    let (kind, config) = if zstd {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    } else {
        (media_type::MANIFEST, media_type::CONFIG)
    };
    let layer_type = |blob: &RemoteBlob| match (zstd, blob.media_type.as_str()) {
        (true, media_type::OCI_LAYER_ZSTD) => media_type::OCI_LAYER_ZSTD,
        (true, _) => media_type::OCI_LAYER,
        (false, _) => media_type::LAYER,
    };
    let document = Document {
        schema_version: 2,
        media_type: kind,
        config: Descriptor {
            media_type: config.to_owned(),
            size: push.config.len() as u64,
            digest: push.id.0.clone(),
        },
        layers: blobs
            .iter()
            .map(|blob| Descriptor {
                media_type: layer_type(blob).to_owned(),
                size: blob.size,
                digest: blob.digest.clone(),
            })
            .collect(),
    };
    (kind, indented(&document))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u8,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Byte for byte as dockerd writes it, so that the same image has the same digest.
fn indented(document: &Document) -> Bytes {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    document
        .serialize(&mut serializer)
        .expect("a manifest is made of texts and numbers");
    bytes.into()
}
