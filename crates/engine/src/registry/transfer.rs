//! Downloads of layers, one per layer whoever wants it: pulls at the same time share them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use skep_image::{Digest, ImageStore};
use skep_registry::{Descriptor, Download, DownloadEvent, Registry, RegistryError, Repository};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How a download goes.
#[derive(Debug, Clone)]
pub(super) enum State {
    Started,
    /// All slots are taken.
    Waiting,
    Downloading(u64),
    Retrying(u64),
    Verifying,
    Done,
    Failed(RegistryError),
}

/// One layer's download. It ends when nobody wants it any more, and its file goes with it.
pub(super) struct Transfer {
    state: watch::Receiver<State>,
    task: AbortHandle,
    path: PathBuf,
    images: ImageStore,
}

impl Transfer {
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The file, with the verified layer once the state is `Done`.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = self.images.discard(&self.path) {
            tracing::warn!(%error, "could not remove a download");
        }
    }
}

/// The running downloads by digest.
#[derive(Default)]
pub(super) struct Transfers(Mutex<HashMap<Digest, Weak<Transfer>>>);

impl Transfers {
    /// The layer's running download, or a new one.
    pub(super) fn join(
        &self,
        registry: &Registry,
        repository: &Repository,
        blob: &Descriptor,
        images: &ImageStore,
    ) -> Arc<Transfer> {
        let mut running = self.0.lock();
        running.retain(|_, transfer| transfer.strong_count() > 0);
        if let Some(transfer) = running.get(&blob.digest).and_then(Weak::upgrade)
            && !matches!(*transfer.state.borrow(), State::Failed(_))
        {
            return transfer;
        }
        let (sender, state) = watch::channel(State::Started);
        let path = images
            .scratch()
            .join(format!("pull-{}", crate::names::random_id()));
        let download = Download::new(repository.clone(), blob.clone(), &path);
        let registry = registry.clone();
        let task = tokio::spawn(async move {
            let slot = if let Some(slot) = registry.try_download_slot() {
                slot
            } else {
                sender.send_replace(State::Waiting);
                registry.download_slot().await
            };
            let tell = |event| {
                sender.send_replace(match event {
                    DownloadEvent::Progress(bytes) => State::Downloading(bytes),
                    DownloadEvent::Retrying(seconds) => State::Retrying(seconds),
                    DownloadEvent::Verifying => State::Verifying,
                });
            };
            let outcome = download.run(&tell).await;
            drop(slot);
            sender.send_replace(match outcome {
                Ok(()) => State::Done,
                Err(error) => State::Failed(error),
            });
        });
        let transfer = Arc::new(Transfer {
            state,
            task: task.abort_handle(),
            path,
            images: images.clone(),
        });
        running.insert(blob.digest.clone(), Arc::downgrade(&transfer));
        transfer
    }
}
