//! The leader's allocation loop: gives networks, services, tasks and nodes what they need before
//! the scheduler sees them.
//!
//! Beside the scheduler's loop: what it waits for is a task that is no longer NEW. All that is known
//! follows from the store, so a write that failed or was overtaken only means to begin again.

mod picture;
#[cfg(test)]
mod tests;

use std::time::Duration;

use skep_model::ObjectKind;
use skep_store::{Store, WatchError, WatchFilter};
use tokio_util::sync::CancellationToken;

use picture::Picture;

/// How long to wait before trying again when writing failed.
const RETRY_AFTER: Duration = Duration::from_millis(50);

enum End {
    Stopped,
    StartOver,
}

/// Runs until stopped, which is when this manager no longer leads.
pub(crate) async fn run(store: Store, stopped: CancellationToken) {
    while let End::StartOver = allocate(&store, &stopped).await {
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(RETRY_AFTER) => {}
        }
    }
}

async fn allocate(store: &Store, stopped: &CancellationToken) -> End {
    let kinds = [
        ObjectKind::Network,
        ObjectKind::Service,
        ObjectKind::Task,
        ObjectKind::Node,
    ];
    let (snapshot, mut watch) = store.snapshot_and_watch(WatchFilter::kinds(kinds));
    let mut picture = Picture::new(&snapshot);
    loop {
        let writes = picture.decide(&store.snapshot());
        if !writes.is_empty() {
            let outcome = store.batch(writes, picture::apply).await;
            tracing::debug!(
                outcome.committed,
                stale = outcome.rejected.len(),
                "wrote allocations"
            );
            if outcome.failed.is_some() || !outcome.rejected.is_empty() {
                return End::StartOver;
            }
        }
        let mut next = tokio::select! {
            biased;
            () = stopped.cancelled() => return End::Stopped,
            event = watch.next() => Some(event),
        };
        while let Some(event) = next {
            match event {
                Ok(event) => picture.observe(&event),
                Err(WatchError::Lagged) => return End::StartOver,
                Err(WatchError::Closed) => return End::Stopped,
            }
            next = watch.try_next();
        }
    }
}
