//! `docker image`, over the image store. The store works on the disk and blocks, so its calls run
//! on threads of their own; bodies pass through a bounded channel.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bollard_stubs::models as m;
use bytes::Bytes;
use futures::StreamExt as _;
use skep_image::{AnyReference, ImageEvent, ImageUser, Reference, Removed};
use tokio::sync::mpsc;

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::filters::Filters;
use crate::time::UnixNanos;
use crate::types::{
    ByteStream, CommitOptions, ImageListOptions, ImageRemoveOptions, ImportOptions,
    ProgressMessage, ProgressStream,
};

impl Engine {
    pub(crate) fn image_event(&self, action: &str, id: &str, name: &str) {
        let mut attributes: HashMap<String, String> = self
            .images
            .get(id)
            .ok()
            .and_then(|image| image.run_config().and_then(|config| config.labels.clone()))
            .unwrap_or_default()
            .into_iter()
            .collect();
        attributes.insert("name".to_owned(), name.to_owned());
        self.events
            .publish_local(m::EventMessageTypeEnum::IMAGE, action, id, attributes);
    }

    /// Which containers use which images.
    pub(crate) fn image_users(&self) -> Vec<ImageUser> {
        let users = self.containers.all().into_iter().filter_map(|container| {
            let record = container.record();
            let image = self.images.get(&record.image_id).ok()?.id().clone();
            Some(ImageUser {
                container_id: record.id.clone(),
                image,
                running: record.state.is_running(),
            })
        });
        users.collect()
    }

    /// The ids of the images asked for and of those made on top of them.
    pub(crate) fn images_below<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<String> {
        let wanted: Vec<_> = names
            .filter_map(|name| self.images.get(name).ok())
            .collect();
        let layers = |image: &skep_image::Image| image.config().diff_ids().to_vec();
        let mut ids: Vec<String> = wanted.iter().map(|image| image.id().to_string()).collect();
        for container in self.containers.all() {
            let id = container.record().image_id.clone();
            let Ok(image) = self.images.get(&id) else {
                continue;
            };
            let own = layers(&image);
            if wanted
                .iter()
                .any(|base| !layers(base).is_empty() && own.starts_with(&layers(base)))
            {
                ids.push(id);
            }
        }
        ids
    }

    /// Lists images, newest first.
    pub async fn list_images(&self, options: ImageListOptions) -> Result<Vec<m::ImageSummary>> {
        let filters = options.filters;
        filters.check(&["before", "dangling", "label", "reference", "since", "until"])?;
        let all = |key: &str| filters.get(key).map(str::to_owned).collect::<Vec<_>>();
        let list = skep_image::ListOptions {
            all: options.all,
            dangling: filters.boolean("dangling")?,
            labels: all("label"),
            before: all("before"),
            since: all("since"),
            until: crate::prune::until(&filters)?
                .map(offset_time)
                .transpose()?,
            references: all("reference"),
            shared_size: options.shared_size,
        };
        let (images, users) = (self.images.clone(), self.image_users());
        blocking(move || Ok(images.list(&list, &users)?)).await
    }

    /// Everything about an image.
    pub async fn inspect_image(&self, name: &str) -> Result<m::ImageInspect> {
        let (images, name) = (self.images.clone(), name.to_owned());
        blocking(move || Ok(images.inspect(&name)?)).await
    }

    /// How an image was made.
    pub async fn history_image(&self, name: &str) -> Result<Vec<m::ImageHistoryResponseItem>> {
        let (images, name) = (self.images.clone(), name.to_owned());
        blocking(move || Ok(images.history(&name)?)).await
    }

    /// Gives an image another name.
    pub async fn tag_image(&self, source: &str, repo: &str, tag: &str) -> Result<()> {
        let target = if tag.is_empty() {
            repo.to_owned()
        } else {
            format!("{repo}:{tag}")
        };
        let (images, source) = (self.images.clone(), source.to_owned());
        let tagged = blocking(move || Ok(images.tag(&source, &target)?)).await?;
        self.image_event("tag", tagged.image.as_str(), &tagged.reference.familiar());
        Ok(())
    }

    /// Takes a name or the image away.
    pub async fn remove_image(
        &self,
        name: &str,
        options: ImageRemoveOptions,
    ) -> Result<Vec<m::ImageDeleteResponseItem>> {
        let (images, users, name) = (self.images.clone(), self.image_users(), name.to_owned());
        let options = skep_image::RemoveOptions {
            force: options.force,
            no_prune: options.no_prune,
        };
        let removed = blocking(move || Ok(images.remove(&name, options, &users)?)).await?;
        Ok(self.tell_removed(removed).0)
    }

    /// Removes images that no container uses: untagged ones, or all with `dangling=false`.
    pub async fn prune_images(&self, filters: Filters) -> Result<m::ImagePruneResponse> {
        filters.check(&["dangling", "label", "label!", "until"])?;
        let options = skep_image::PruneOptions {
            dangling: filters.boolean("dangling")?.unwrap_or(true),
            until: crate::prune::until(&filters)?
                .map(offset_time)
                .transpose()?,
            labels: filters.get("label").map(str::to_owned).collect(),
            labels_not: filters.get("label!").map(str::to_owned).collect(),
        };
        let (images, users) = (self.images.clone(), self.image_users());
        let removed = blocking(move || Ok(images.prune(&options, &users)?)).await?;
        let (records, reclaimed) = self.tell_removed(removed);
        self.events.publish_local(
            m::EventMessageTypeEnum::IMAGE,
            "prune",
            "",
            HashMap::from([("reclaimed".to_owned(), reclaimed.to_string())]),
        );
        Ok(m::ImagePruneResponse {
            images_deleted: Some(records),
            space_reclaimed: Some(reclaimed),
        })
    }

    fn tell_removed(&self, removed: Removed) -> (Vec<m::ImageDeleteResponseItem>, i64) {
        for ImageEvent { action, image } in &removed.events {
            self.image_event(action, image.as_str(), image.as_str());
        }
        (
            removed.records,
            i64::try_from(removed.reclaimed).unwrap_or(i64::MAX),
        )
    }

    /// Loads a tarball of `docker save`, or of an OCI layout.
    pub async fn load_images(
        self: &Arc<Self>,
        body: ByteStream,
        quiet: bool,
    ) -> Result<ProgressStream> {
        let reader = BodyReader::new(body);
        let (sender, receiver) = mpsc::channel(64);
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            let progress_sender = sender.clone();
            let mut progress = |progress: skep_image::Progress| {
                if !quiet {
                    let _ = progress_sender.blocking_send(Ok(progress_message(progress)));
                }
            };
            match engine.images.load(reader, &mut progress) {
                Ok(loaded) => {
                    for image in &loaded {
                        engine.image_event("load", image.image.as_str(), image.image.as_str());
                    }
                    for text in skep_image::load_messages(&loaded) {
                        let _ = sender.blocking_send(Ok(ProgressMessage {
                            stream: Some(format!("{text}\n")),
                            ..Default::default()
                        }));
                    }
                }
                Err(error) => {
                    let _ = sender.blocking_send(Err(error.into()));
                }
            }
        });
        Ok(received(receiver))
    }

    /// Writes images as a tarball.
    pub async fn save_images(self: &Arc<Self>, names: Vec<String>) -> Result<ByteStream> {
        let images = self.images.clone();
        let save = blocking(move || Ok(images.save(&names)?)).await?;
        for image in save.images() {
            self.image_event("save", image.as_str(), image.as_str());
        }
        let (writer, stream) = body_writer();
        tokio::task::spawn_blocking(move || {
            let mut writer = writer;
            if let Err(error) = save.write_to(&mut writer) {
                writer.fail(io::Error::other(error));
            }
        });
        Ok(stream)
    }

    /// Makes an image of a root file system's tar.
    pub async fn import_image(
        self: &Arc<Self>,
        body: ByteStream,
        options: ImportOptions,
    ) -> Result<ProgressStream> {
        let reference = target_reference(options.repo.as_deref(), options.tag.as_deref())?;
        let name = reference.as_ref().map(Reference::familiar);
        let import = skep_image::ImportOptions {
            reference,
            changes: options.changes,
            message: options.message,
            platform: options.platform,
        };
        let reader = BodyReader::new(body);
        let engine = self.clone();
        let id = blocking(move || Ok(engine.images.import(reader, import)?)).await?;
        self.image_event(
            "import",
            id.as_str(),
            name.as_deref().unwrap_or(id.as_str()),
        );
        let done = ProgressMessage {
            status: Some(id.to_string()),
            ..Default::default()
        };
        Ok(futures::stream::iter([Ok(done)]).boxed())
    }

    /// Makes an image of a container; returns its id.
    pub async fn commit_container(self: &Arc<Self>, options: CommitOptions) -> Result<String> {
        let container = self.containers.get(&options.container)?;
        let reference = target_reference(options.repo.as_deref(), options.tag.as_deref())?;
        let name = reference.as_ref().map(Reference::familiar);
        let record = container.record().clone();
        let mut config = options.config.unwrap_or_default();
        overlay_config(&mut config, &record.config);
        let commit = skep_image::CommitOptions {
            parent: self
                .images
                .get(&record.image_id)
                .ok()
                .map(|image| image.id().clone()),
            reference,
            author: options.author,
            comment: options.comment,
            config: run_config(&config)?,
            changes: options.changes,
            container_id: record.id.clone(),
            created_by: {
                let (path, args) = record.command();
                std::iter::once(path)
                    .chain(args)
                    .collect::<Vec<_>>()
                    .join(" ")
            },
            container_config: serde_json::to_value(&record.config).ok(),
        };
        let shim = if options.pause {
            container
                .shim()
                .ok()
                .filter(|_| !record.state.phase.eq(&crate::container::Phase::Paused))
        } else {
            None
        };
        if let Some(shim) = &shim {
            shim.pause().await?;
        }
        let images = self.images.clone();
        let id = blocking(move || {
            let rootfs = images.open_rootfs(&record.id)?;
            Ok(images.commit(&rootfs, commit)?)
        })
        .await;
        if let Some(shim) = &shim {
            shim.resume().await?;
        }
        let id = id?;
        self.container_event_with(
            &container,
            "commit",
            &[
                ("comment", String::new()),
                ("imageID", id.to_string()),
                ("imageRef", name.unwrap_or_default()),
            ],
        );
        Ok(id.to_string())
    }
}

/// The container's own settings where the request has none.
fn overlay_config(config: &mut m::ContainerConfig, own: &m::ContainerConfig) {
    let image = m::ImageConfig {
        user: own.user.clone(),
        exposed_ports: own.exposed_ports.clone(),
        env: own.env.clone(),
        cmd: own.cmd.clone(),
        healthcheck: own.healthcheck.clone(),
        volumes: own.volumes.clone(),
        working_dir: own.working_dir.clone(),
        entrypoint: own.entrypoint.clone(),
        labels: own.labels.clone(),
        stop_signal: own.stop_signal.clone(),
        shell: own.shell.clone(),
        ..Default::default()
    };
    // A container always has a command, so nothing can be refused here.
    let _ = crate::create::merge::merge(config, Some(&image));
}

fn run_config(config: &m::ContainerConfig) -> Result<skep_image::RunConfig> {
    let value = serde_json::to_value(config)
        .map_err(|error| EngineError::from_source("encode config", &error))?;
    serde_json::from_value(value).map_err(|error| EngineError::from_source("encode config", &error))
}

fn target_reference(repo: Option<&str>, tag: Option<&str>) -> Result<Option<Reference>> {
    let Some(repo) = repo.filter(|repo| !repo.is_empty()) else {
        return Ok(None);
    };
    let name = match tag.filter(|tag| !tag.is_empty()) {
        Some(tag) => format!("{repo}:{tag}"),
        None => repo.to_owned(),
    };
    match AnyReference::parse(&name).map_err(|error| EngineError::invalid(error.to_string()))? {
        AnyReference::Named(reference) if reference.digest().is_none() => {
            Ok(Some(reference.with_default_tag()))
        }
        _ => Err(EngineError::invalid("cannot import digest reference")),
    }
}

fn progress_message(progress: skep_image::Progress) -> ProgressMessage {
    ProgressMessage {
        id: Some(progress.id),
        status: Some(progress.status.to_owned()),
        progress_detail: Some(m::ProgressDetail {
            current: i64::try_from(progress.current).ok(),
            total: i64::try_from(progress.total).ok(),
        }),
        ..ProgressMessage::default()
    }
}

fn offset_time(at: UnixNanos) -> Result<time::OffsetDateTime> {
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0))
        .map_err(|error| EngineError::invalid(error.to_string()))
}

pub(crate) fn received<T: Send + 'static>(
    receiver: mpsc::Receiver<T>,
) -> futures::stream::BoxStream<'static, T> {
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
    .boxed()
}

/// A body as a blocking reader, to be used on a thread that may block.
pub struct BodyReader {
    body: ByteStream,
    handle: tokio::runtime::Handle,
    rest: Bytes,
}

impl BodyReader {
    /// To be made on a runtime's thread and read on another.
    pub fn new(body: ByteStream) -> Self {
        Self {
            body,
            handle: tokio::runtime::Handle::current(),
            rest: Bytes::new(),
        }
    }
}

// The stream is only ever used through `&mut self`.
impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.handle.block_on(self.body.next()) {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// The blocking end of a body that is sent.
pub(crate) struct BodyWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

const CHUNK: usize = 64 * 1024;

/// A writer for a blocking thread, and the body it makes.
pub(crate) fn body_writer() -> (BodyWriter, ByteStream) {
    let (sender, receiver) = mpsc::channel(16);
    (
        BodyWriter {
            sender,
            buffer: Vec::with_capacity(CHUNK),
        },
        received(receiver),
    )
}

impl BodyWriter {
    /// Ends the body with an error, so that the client does not take a part for the whole.
    pub(crate) fn fail(&mut self, error: io::Error) {
        self.buffer.clear();
        let _ = self.sender.blocking_send(Err(error));
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::replace(
            &mut self.buffer,
            Vec::with_capacity(CHUNK),
        ));
        self.sender
            .blocking_send(Ok(chunk))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}
