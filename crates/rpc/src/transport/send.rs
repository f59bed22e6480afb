//! SwarmKit's calls that carry raft messages.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use skep_proto::raft_client::RaftClient;
use skep_proto::raftpb::Message;
use skep_proto::{ProcessRaftMessageRequest, StreamRaftMessageRequest};
use tokio::time::{Instant, sleep_until};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::snapshot;

/// A snapshot may take long, but not without any piece of it getting on its way.
const STALLED: Duration = Duration::from_secs(15);

/// One message that is no snapshot.
pub(super) async fn message(channel: Channel, message: Message) -> Result<(), Status> {
    let request = StreamRaftMessageRequest {
        message: Some(message.clone()),
    };
    let sent = RaftClient::new(channel.clone())
        .stream_raft_message(futures::stream::iter([request]))
        .await;
    match sent {
        Err(status) if status.code() == Code::Unimplemented => process(channel, message).await,
        sent => sent.map(drop),
    }
}

async fn process(channel: Channel, message: Message) -> Result<(), Status> {
    let request = ProcessRaftMessageRequest {
        message: Some(message),
    };
    RaftClient::new(channel)
        .process_raft_message(request)
        .await
        .map(drop)
}

pub(super) async fn snapshot(channel: Channel, message: Message) -> Result<(), Status> {
    let progress = Arc::new(Mutex::new(Instant::now()));
    let taken = Arc::clone(&progress);
    let pieces = futures::stream::iter(snapshot::pieces(message)).map(move |piece| {
        *taken.lock() = Instant::now();
        StreamRaftMessageRequest {
            message: Some(piece),
        }
    });
    let mut client = RaftClient::new(channel);
    let mut sending = std::pin::pin!(client.stream_raft_message(pieces));
    loop {
        let at = *progress.lock() + STALLED;
        tokio::select! {
            sent = sending.as_mut() => return sent.map(drop),
            () = sleep_until(at) => if *progress.lock() + STALLED <= Instant::now() {
                return Err(Status::deadline_exceeded("the snapshot got stuck"));
            },
        }
    }
}
