//! The leader's loop: looks at what changed, decides, writes, waits.
//!
//! All decisions are made by one task, so that no two of them are made on the same thing at once.
//! Events only mark what to look at; decisions are made on a snapshot.

mod picture;
mod write;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use skep_model::{ObjectKind, Timestamp};
use skep_store::{Store, Watch, WatchError, WatchFilter};
use tokio_util::sync::CancellationToken;

use picture::Picture;

/// How long to wait before trying again when writing failed.
const RETRY_AFTER: Duration = Duration::from_millis(50);

enum End {
    Stopped,
    /// Events were missed, or a write failed: what we believe may be wrong.
    StartOver,
}

/// Runs until stopped, which is when this manager no longer leads.
pub(crate) async fn run(store: Store, stopped: CancellationToken) {
    while let End::StartOver = lead(&store, &stopped).await {
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(RETRY_AFTER) => {}
        }
    }
}

async fn lead(store: &Store, stopped: &CancellationToken) -> End {
    let kinds = [
        ObjectKind::Node,
        ObjectKind::Service,
        ObjectKind::Task,
        ObjectKind::Cluster,
    ];
    let (snapshot, mut watch) = store.snapshot_and_watch(WatchFilter::kinds(kinds));
    let mut picture = Picture::new(&snapshot, now());
    loop {
        let writes = picture.decide(&store.snapshot(), now());
        if !writes.is_empty() {
            let outcome = store.batch(writes, write::apply).await;
            tracing::debug!(
                outcome.committed,
                stale = outcome.rejected.len(),
                "wrote decisions"
            );
            if let Some(error) = outcome.failed {
                tracing::debug!(error = %error, "decisions were not written");
                return End::StartOver;
            }
            let snapshot = store.snapshot();
            for (write, _) in outcome.rejected {
                picture.look_again(&write, &snapshot, now());
            }
        }
        let wake_in = picture.wake_at().map(|at| at.saturating_since(now()));
        tokio::select! {
            biased;
            () = stopped.cancelled() => return End::Stopped,
            end = take_events(&mut watch, &mut picture) => if let Some(end) = end { return end },
            () = sleep(wake_in) => {}
        }
    }
}

/// Enters all events that have come by now, waiting for one unless there is work already.
async fn take_events(watch: &mut Watch, picture: &mut Picture) -> Option<End> {
    let mut next = match watch.try_next() {
        Some(event) => Some(event),
        None if picture.has_work() => None,
        None => Some(watch.next().await),
    };
    while let Some(event) = next {
        match event {
            Ok(event) => picture.observe(&event, now()),
            Err(WatchError::Lagged) => return Some(End::StartOver),
            Err(WatchError::Closed) => return Some(End::Stopped),
        }
        next = watch.try_next();
    }
    None
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
