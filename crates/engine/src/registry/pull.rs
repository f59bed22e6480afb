//! `docker pull`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as blocking_mpsc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use skep_image::{Digest, Feed, ImageError, ImageId, PulledImage, PulledLayer, Reference};
use skep_registry::{
    Access, Attempts, Credentials, Descriptor, Endpoint, ImageManifest, Manifest, ManifestBody,
    Platform, RegistryError, Repository,
};
use tokio::sync::{mpsc, oneshot};

use super::progress::{Pace, Progress};
use super::transfer::{State, Transfer};
use super::{FIRST_PAUSE, pull_error};
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, ErrorKind, Result};
use crate::types::ProgressStream;

/// dockerd's number of attempts to get a configuration document.
const CONFIG_ATTEMPTS: u32 = 5;

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Without tag and digest: all tags.
    pub reference: Reference,
    pub platform: Option<Platform>,
    pub credentials: Credentials,
}

/// What ends a pull; only a registry's failures make another endpoint worth a try.
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

impl Engine {
    /// Pulls an image. Nothing goes on once the stream is dropped.
    pub async fn pull_image(self: &Arc<Self>, options: PullOptions) -> Result<ProgressStream> {
        if options.reference.familiar_name() == "scratch" {
            return Err(EngineError::new(
                ErrorKind::Forbidden,
                "'scratch' is a reserved name",
            ));
        }
        let (sender, receiver) = mpsc::channel(256);
        let engine = self.clone();
        let task = tokio::spawn(async move {
            let pull = Pull {
                engine,
                progress: Progress::new(sender.clone()),
                options,
            };
            if let Err(error) = pull.run().await {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(super::ask::cancelling(
            crate::images::received(receiver),
            task,
        ))
    }
}

struct Pull {
    engine: Arc<Engine>,
    progress: Progress,
    options: PullOptions,
}

impl Pull {
    async fn run(&self) -> Result<()> {
        let reference = &self.options.reference;
        let client = &self.engine.registries.client;
        let mut attempts: Attempts = client.attempts(reference, true).await;
        loop {
            let endpoint = attempts
                .take_next()
                .map_err(|error| pull_error(error, reference))?;
            match self.from(&endpoint).await {
                Ok(()) => break,
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::Registry(error)) => attempts
                    .failed(&endpoint, error)
                    .map_err(|error| pull_error(error, reference))?,
            }
        }
        self.engine
            .image_event("pull", &reference.familiar(), &reference.familiar_name());
        Ok(())
    }

    async fn from(&self, endpoint: &Endpoint) -> std::result::Result<(), Failure> {
        let reference = &self.options.reference;
        let repository = self
            .engine
            .registries
            .client
            .connect(endpoint, reference, Access::Pull, &self.options.credentials)
            .await?;
        let mut newer = false;
        if reference.is_name_only() {
            for tag in repository.tags().await? {
                let tagged = reference
                    .clone()
                    .with_tag(&tag)
                    .map_err(|error| EngineError::system(error.to_string()))?;
                newer |= self.one(&repository, &tagged).await?;
            }
        } else {
            newer = self.one(&repository, reference).await?;
        }
        let status = if newer {
            "Downloaded newer image for"
        } else {
            "Image is up to date for"
        };
        self.progress
            .message("", format!("Status: {status} {}", reference.familiar()))
            .await;
        self.warn_about_platform(reference).await;
        Ok(())
    }

    /// Pulls one tag or digest; whether that brought something new.
    async fn one(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> std::result::Result<bool, Failure> {
        let top = repository.manifest(reference).await?;
        let shown = match reference.digest() {
            Some(_) => reference.to_string(),
            None => reference.tag().unwrap_or("latest").to_owned(),
        };
        self.progress
            .message(&shown, format!("Pulling from {}", reference.path()))
            .await;
        let top_digest = top.digest.clone();
        let (manifest, image) = self.image_of(repository, top, reference).await?;
        let references = names(reference, &top_digest);
        let id = ImageId(image.config.digest.clone());
        let renamed = {
            let (images, id, references) =
                (self.engine.images.clone(), id.clone(), references.clone());
            blocking(move || Ok(images.name_pulled(&id, &references)?)).await?
        };
        let newer = if let Some(renamed) = renamed {
            renamed
        } else {
            self.fetch(repository, reference, &manifest, image, references)
                .await?;
            true
        };
        self.progress
            .message("", format!("Digest: {top_digest}"))
            .await;
        Ok(newer)
    }

    async fn image_of(
        &self,
        repository: &Repository,
        top: Manifest,
        reference: &Reference,
    ) -> std::result::Result<(Manifest, ImageManifest), Failure> {
        let manifest = match &top.body {
            ManifestBody::Image(_) => top,
            ManifestBody::Index(entries) => {
                let wanted = self.options.platform.as_ref();
                repository.select(entries, wanted, reference).await?
            }
        };
        let ManifestBody::Image(image) = &manifest.body else {
            return Err(RegistryError::Invalid("unsupported manifest format".to_owned()).into());
        };
        image.check()?;
        let image = image.clone();
        Ok((manifest, image))
    }

    /// Fetches what is missing of an image and records it.
    async fn fetch(
        &self,
        repository: &Repository,
        reference: &Reference,
        manifest: &Manifest,
        image: ImageManifest,
        references: Vec<Reference>,
    ) -> std::result::Result<(), Failure> {
        let config = config_document(repository, &image.config.digest)
            .await
            .map_err(|error| prefixed(error, "error pulling image configuration"))?;
        let pulled = PulledImage {
            config: config.to_vec(),
            manifest: skep_image::StoredManifest {
                media_type: manifest.media_type.clone(),
                text: String::from_utf8_lossy(&manifest.bytes).into_owned(),
            },
            layers: image.layers.iter().map(layer).collect(),
            references,
            repository: reference.name(),
        };
        let (begin, missing) = oneshot::channel();
        let (files, ready) = blocking_mpsc::channel();
        let mut feed = Queue {
            begin: Some(begin),
            ready,
            last: None,
        };
        let (images, progress) = (self.engine.images.clone(), self.progress.clone());
        let store = tokio::task::spawn_blocking(move || {
            let mut tell = |step: skep_image::Progress| {
                if step.total == 0 {
                    progress.update_blocking(&step.id, step.status);
                } else {
                    progress.bar(&step.id, step.status, step.current, step.total);
                }
            };
            images.pull(pulled, &mut feed, &mut tell)
        });
        let layers = self.layers(repository, &image.layers, missing, files).await;
        let stored = store
            .await
            .map_err(|error| EngineError::system(format!("internal error: {error}")))?;
        // If both failed, the download's failure is the reason of the other.
        layers?;
        stored.map_err(|error| Failure::Other(register_error(error)))?;
        Ok(())
    }

    /// Downloads the missing layers and hands each on as soon as it is there.
    async fn layers(
        &self,
        repository: &Repository,
        layers: &[Descriptor],
        missing: oneshot::Receiver<Vec<bool>>,
        files: blocking_mpsc::Sender<(usize, Arc<Transfer>)>,
    ) -> std::result::Result<(), Failure> {
        // Without it the store has refused the image, and says why itself.
        let Ok(missing) = missing.await else {
            return Ok(());
        };
        let mut by_digest: HashMap<&Digest, Vec<usize>> = HashMap::new();
        for (index, blob) in layers.iter().enumerate() {
            let id = blob.digest.short();
            if !missing[index] {
                self.progress.update(id, "Already exists").await;
                continue;
            }
            let places = by_digest.entry(&blob.digest).or_default();
            if places.is_empty() {
                self.progress.update(id, "Pulling fs layer").await;
            }
            places.push(index);
        }
        let mut order: Vec<_> = by_digest.into_values().collect();
        order.sort();
        let registries = &self.engine.registries;
        let mut running: FuturesUnordered<_> = order
            .into_iter()
            .map(|places| {
                let blob = &layers[places[0]];
                let transfer = registries.transfers.join(
                    &registries.client,
                    repository,
                    blob,
                    &self.engine.images,
                );
                async move {
                    self.follow(&transfer, blob).await?;
                    Ok::<_, RegistryError>((places, transfer))
                }
            })
            .collect();
        while let Some(done) = running.next().await {
            let (places, transfer) = done?;
            for index in places {
                // If nobody listens, the store has failed and says so.
                let _ = files.send((index, transfer.clone()));
            }
        }
        Ok(())
    }

    /// Tells how a download goes until it has ended.
    async fn follow(
        &self,
        transfer: &Transfer,
        blob: &Descriptor,
    ) -> std::result::Result<(), RegistryError> {
        let id = blob.digest.short();
        let mut state = transfer.watch();
        let pace = Pace::default();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Started => {}
                State::Waiting => self.progress.update(id, "Waiting").await,
                State::Downloading(bytes) => {
                    if pace.due() {
                        self.progress.bar(id, "Downloading", bytes, blob.size);
                    }
                }
                State::Retrying(seconds) => {
                    let plural = if seconds == 1 { "" } else { "s" };
                    let text = format!("Retrying in {seconds} second{plural}");
                    self.progress.update(id, text).await;
                }
                State::Verifying => self.progress.update(id, "Verifying Checksum").await,
                State::Done => {
                    self.progress.update(id, "Download complete").await;
                    return Ok(());
                }
                State::Failed(error) => return Err(error),
            }
            if state.changed().await.is_err() {
                return Err(RegistryError::Refused(
                    "the download was cancelled".to_owned(),
                ));
            }
        }
    }

    /// A single image is taken for whatever platform was asked for, and said so.
    async fn warn_about_platform(&self, reference: &Reference) {
        let Some(wanted) = &self.options.platform else {
            return;
        };
        let Ok(image) = self.engine.images.get(&reference.to_string()) else {
            return;
        };
        let config = image.config();
        let actual = Platform {
            os: config.os().to_owned(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            ..Platform::default()
        }
        .normalised();
        if wanted.rank(&actual).is_none() {
            let text = format!(
                "WARNING: image with reference {} was found but its platform ({actual}) does not match the specified platform ({wanted})",
                reference.familiar()
            );
            self.progress.message("", text).await;
        }
    }
}

/// The names a pulled image gets: its digest's, and the tag's if it was asked for by tag.
fn names(reference: &Reference, digest: &Digest) -> Vec<Reference> {
    let by_digest = reference.clone().trimmed().with_digest(digest.clone());
    if reference.digest().is_some() {
        return vec![by_digest];
    }
    vec![reference.clone(), by_digest]
}

fn layer(blob: &Descriptor) -> PulledLayer {
    PulledLayer {
        digest: blob.digest.clone(),
        size: blob.size,
        media_type: blob.media_type.clone(),
    }
}

async fn config_document(
    repository: &Repository,
    digest: &Digest,
) -> std::result::Result<bytes::Bytes, RegistryError> {
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    loop {
        match repository.config(digest).await {
            Err(error) if error.is_temporary() && attempt < CONFIG_ATTEMPTS => {
                tracing::debug!(attempt, %error, "can't get an image's configuration yet");
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            }
            Err(error) if attempt > 1 => {
                let what = format!("download failed after attempts={attempt}");
                return Err(prefixed(error, &what));
            }
            other => return other,
        }
    }
}

fn prefixed(error: RegistryError, what: &str) -> RegistryError {
    match error {
        RegistryError::Api { code, text } => RegistryError::Api {
            code,
            text: format!("{what}: {text}"),
        },
        RegistryError::Verification(text) => RegistryError::Verification(format!("{what}: {text}")),
        other => RegistryError::Refused(format!("{what}: {other}")),
    }
}

fn register_error(error: ImageError) -> EngineError {
    let plain = EngineError::from(error);
    if plain.message.starts_with("layers from manifest")
        || plain.kind == ErrorKind::InvalidParameter
    {
        return plain;
    }
    plain.context("failed to register layer")
}

/// Downloaded layers on their way to the store's thread.
struct Queue {
    begin: Option<oneshot::Sender<Vec<bool>>>,
    ready: blocking_mpsc::Receiver<(usize, Arc<Transfer>)>,
    /// Kept until the store has taken its file over.
    last: Option<Arc<Transfer>>,
}

impl Feed for Queue {
    fn begin(&mut self, missing: &[bool]) {
        if let Some(begin) = self.begin.take() {
            let _ = begin.send(missing.to_vec());
        }
    }

    fn next(&mut self) -> Option<(usize, PathBuf)> {
        let (index, transfer) = self.ready.recv().ok()?;
        let path = transfer.path().to_owned();
        self.last = Some(transfer);
        Some((index, path))
    }
}
