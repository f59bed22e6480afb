//! Docker's progress messages, sent without ever waiting for a slow reader where they may be lost.

use std::time::{Duration, Instant};

use bollard_stubs::models as m;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::error::Result;
use crate::types::ProgressMessage;

/// dockerd's: bars need no more.
const EVERY: Duration = Duration::from_millis(100);

/// Where a pull or push tells how it goes.
#[derive(Clone)]
pub(super) struct Progress {
    sender: mpsc::Sender<Result<ProgressMessage>>,
}

impl Progress {
    pub(super) fn new(sender: mpsc::Sender<Result<ProgressMessage>>) -> Self {
        Self { sender }
    }

    /// `Digest: …`: a line of its own.
    pub(super) async fn message(&self, id: &str, text: impl Into<String>) {
        self.send(ProgressMessage {
            id: (!id.is_empty()).then(|| id.to_owned()),
            status: Some(text.into()),
            ..ProgressMessage::default()
        })
        .await;
    }

    /// A layer's new status.
    pub(super) async fn update(&self, id: &str, status: impl Into<String>) {
        self.send(of(id, status, None)).await;
    }

    /// The same from a thread that may block.
    pub(super) fn update_blocking(&self, id: &str, status: impl Into<String>) {
        // The reader has gone: whoever does the work is told otherwise.
        let _ = self.sender.blocking_send(Ok(of(id, status, None)));
    }

    /// How far a layer is. Lost if nobody reads: the next one says more.
    pub(super) fn bar(&self, id: &str, status: &str, current: u64, total: u64) {
        let _ = self
            .sender
            .try_send(Ok(of(id, status, Some((current, total)))));
    }

    pub(super) async fn aux(&self, value: serde_json::Value) {
        self.send(ProgressMessage {
            progress_detail: Some(m::ProgressDetail::default()),
            aux: Some(value),
            ..ProgressMessage::default()
        })
        .await;
    }

    async fn send(&self, message: ProgressMessage) {
        let _ = self.sender.send(Ok(message)).await;
    }
}

fn of(id: &str, status: impl Into<String>, bar: Option<(u64, u64)>) -> ProgressMessage {
    let number = |value: u64| i64::try_from(value).ok().filter(|value| *value > 0);
    ProgressMessage {
        id: Some(id.to_owned()),
        status: Some(status.into()),
        progress_detail: Some(m::ProgressDetail {
            current: bar.and_then(|(current, _)| number(current)),
            total: bar.and_then(|(_, total)| number(total)),
        }),
        ..ProgressMessage::default()
    }
}

/// Lets ten through a second.
#[derive(Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    pub(super) fn due(&self) -> bool {
        let mut last = self.0.lock();
        let now = Instant::now();
        let due = last.is_none_or(|last| now.duration_since(last) >= EVERY);
        if due {
            *last = Some(now);
        }
        due
    }
}
