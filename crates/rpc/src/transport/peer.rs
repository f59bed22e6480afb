//! The task that sends to one other member.

use std::time::Duration;

use skep_proto::raftpb::{Message, MessageType};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::{RaftTransport, send};
use crate::authorize::says_removed;
use crate::generated::raft_client::RaftClient;
use crate::generated::{RaftBatch, RaftProgress};

/// SwarmKit's limit for sending a message: who takes longer is unreachable.
const SEND: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Short: a manager that comes back must not miss the election that waits for it.
const LAST_RETRY: Duration = Duration::from_millis(500);
const BATCH_MESSAGES: usize = 256;
const BATCH_BYTES: usize = 4 << 20;
/// Batches on their way into the connection.
const PIPELINE: usize = 8;

pub(super) struct Peer {
    id: u64,
    addr: String,
    transport: RaftTransport,
    messages: mpsc::Receiver<Message>,
    /// Its task ends when nobody wants to send any more.
    finished: bool,
}

/// A stream of skep's own, open.
struct Pipeline {
    batches: mpsc::Sender<RaftBatch>,
    progress: Streaming<RaftProgress>,
    sent: u64,
    received: u64,
    /// When something was sent that is not acknowledged yet.
    waiting_since: Option<Instant>,
}

impl Peer {
    pub(super) fn new(
        id: u64,
        addr: String,
        transport: RaftTransport,
        messages: mpsc::Receiver<Message>,
    ) -> Self {
        Self {
            id,
            addr,
            transport,
            messages,
            finished: false,
        }
    }

    /// Sends until the last sender is gone and the queue is empty.
    pub(super) async fn run(mut self) {
        let mut retry = FIRST_RETRY;
        while !self.finished {
            let started = Instant::now();
            if let Err(status) = self.connection().await {
                tracing::debug!(
                    raft.id = self.id,
                    code = ?status.code(),
                    message = status.message(),
                    "lost the way to a manager"
                );
                self.failed(&status);
                if started.elapsed() > LAST_RETRY * 2 {
                    retry = FIRST_RETRY;
                }
                sleep(retry).await;
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }

    /// One connection, until it fails.
    async fn connection(&mut self) -> Result<(), Status> {
        let channel = self.transport.connector().connect(&self.addr).await?;
        match timeout(SEND, open(channel.clone())).await {
            Err(_) => Err(Status::deadline_exceeded("the peer does not answer")),
            Ok(Ok(pipeline)) => {
                self.transport.set_dialect(self.id, false);
                self.transport.set_reachable(self.id, true);
                self.pipelined(pipeline, channel).await
            }
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                tracing::debug!(raft.id = self.id, "a manager speaks SwarmKit's raft only");
                self.transport.set_dialect(self.id, true);
                self.transport.set_reachable(self.id, true);
                self.one_by_one(channel).await
            }
            Ok(Err(status)) => Err(status),
        }
    }

    async fn pipelined(&mut self, mut pipeline: Pipeline, channel: Channel) -> Result<(), Status> {
        let mut taken = Vec::with_capacity(BATCH_MESSAGES);
        loop {
            let overdue = pipeline.waiting_since.map(|since| since + SEND);
            tokio::select! {
                biased;
                progress = pipeline.progress.message() => pipeline.acknowledge(progress?)?,
                () = sleep_until(overdue) => {
                    return Err(Status::deadline_exceeded("the peer does not acknowledge"));
                }
                count = self.messages.recv_many(&mut taken, BATCH_MESSAGES) => {
                    if count == 0 {
                        self.finished = true;
                        return Ok(());
                    }
                    for batch in self.batches(&mut taken, &channel) {
                        pipeline.send(batch).await?;
                    }
                }
            }
        }
    }

    /// Packs what was taken from the queue; snapshots go their own way.
    fn batches(&self, taken: &mut Vec<Message>, channel: &Channel) -> Vec<RaftBatch> {
        let mut batches = Vec::new();
        let mut batch = RaftBatch::default();
        let mut size = 0;
        for message in taken.drain(..) {
            if message.r#type() == MessageType::MsgSnap {
                self.send_snapshot(message, channel.clone());
                continue;
            }
            size += prost::Message::encoded_len(&message);
            batch.messages.push(message);
            if size >= BATCH_BYTES {
                batches.push(std::mem::take(&mut batch));
                size = 0;
            }
        }
        if !batch.messages.is_empty() {
            batches.push(batch);
        }
        batches
    }

    /// SwarmKit's way: a call for each message, one after the other.
    async fn one_by_one(&mut self, channel: Channel) -> Result<(), Status> {
        loop {
            let Some(message) = self.messages.recv().await else {
                self.finished = true;
                return Ok(());
            };
            if message.r#type() == MessageType::MsgSnap {
                self.send_snapshot(message, channel.clone());
                continue;
            }
            timeout(SEND, send::message(channel.clone(), message))
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("the peer does not answer")))?;
            self.transport.set_reachable(self.id, true);
        }
    }

    fn send_snapshot(&self, message: Message, channel: Channel) {
        let (transport, id) = (self.transport.clone(), self.id);
        tokio::spawn(async move {
            let index = message
                .snapshot
                .as_ref()
                .and_then(|s| s.metadata.as_ref())
                .map(|m| m.index);
            match send::snapshot(channel, message).await {
                Ok(()) => {
                    tracing::info!(raft.id = id, index, "sent a snapshot to a manager");
                    transport.report_snapshot(id, true);
                }
                Err(status) => {
                    tracing::warn!(raft.id = id, error = %status, "a snapshot did not arrive");
                    transport.report_snapshot(id, false);
                    transport.report_unreachable(id);
                }
            }
        });
    }

    fn failed(&mut self, status: &Status) {
        let removed = skep_raft::StepError::MemberRemoved.to_string();
        let is_no_member = status.code() == Code::NotFound && status.message() == removed;
        // A node that was removed altogether is not even let in to be told of its member.
        if is_no_member || says_removed(status) {
            self.transport.removed().cancel();
        }
        self.transport.report_unreachable(self.id);
        // Raft sends again what is still of use; the rest would only burden the next connection.
        loop {
            match self.messages.try_recv() {
                Ok(message) => self.transport.undelivered(&message),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.finished = true;
                    return;
                }
            }
        }
    }
}

impl Drop for Peer {
    /// Raft waits for the fate of every snapshot.
    fn drop(&mut self) {
        self.messages.close();
        while let Ok(message) = self.messages.try_recv() {
            self.transport.undelivered(&message);
        }
    }
}

async fn open(channel: Channel) -> Result<Pipeline, Status> {
    let (batches, outgoing) = mpsc::channel(PIPELINE);
    let progress = RaftClient::new(channel)
        .stream(ReceiverStream::new(outgoing))
        .await?
        .into_inner();
    Ok(Pipeline {
        batches,
        progress,
        sent: 0,
        received: 0,
        waiting_since: None,
    })
}

impl Pipeline {
    async fn send(&mut self, batch: RaftBatch) -> Result<(), Status> {
        let count = batch.messages.len() as u64;
        // The connection does not take it: the peer is stuck, or the way to it is.
        match timeout(SEND, self.batches.send(batch)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Status::unavailable("the stream has ended")),
            Err(_) => return Err(Status::deadline_exceeded("the peer takes no messages")),
        }
        self.sent += count;
        self.waiting_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn acknowledge(&mut self, progress: Option<RaftProgress>) -> Result<(), Status> {
        let progress = progress.ok_or_else(|| Status::unavailable("the peer ended the stream"))?;
        self.received = progress.received;
        self.waiting_since = (self.received < self.sent).then(Instant::now);
        Ok(())
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
