//! Snapshots in pieces: a gRPC message of SwarmKit's holds 4 MiB at most.

use prost::Message as _;
use skep_proto::raftpb;
use skep_proto::raftpb::MessageType;
use tonic::Status;

/// SwarmKit's limit for one request.
const MAX_REQUEST: usize = 4 << 20;
/// For the field headers around message, snapshot and data.
const FRAMING: usize = 64;
/// No snapshot is larger: whoever sends more is broken.
const MAX_SNAPSHOT: usize = 4 << 30;

/// The requests that carry a message: one, unless it is a large snapshot. Each piece repeats all of
/// the message but the data.
pub(crate) fn pieces(mut message: raftpb::Message) -> Vec<raftpb::Message> {
    if message.r#type() != MessageType::MsgSnap || message.encoded_len() + FRAMING <= MAX_REQUEST {
        return vec![message];
    }
    let data = match &mut message.snapshot {
        Some(snapshot) => std::mem::take(&mut snapshot.data),
        None => return vec![message],
    };
    let room = MAX_REQUEST - FRAMING - message.encoded_len();
    let piece = |data: &[u8]| {
        let mut piece = message.clone();
        if let Some(snapshot) = &mut piece.snapshot {
            snapshot.data = data.to_vec();
        }
        piece
    };
    data.chunks(room).map(piece).collect()
}

/// Puts pieces together again.
#[derive(Default)]
pub(crate) struct Assembly(Option<raftpb::Message>);

impl Assembly {
    /// Refuses pieces that do not belong together, in SwarmKit's words.
    pub(crate) fn add(&mut self, piece: raftpb::Message) -> Result<(), Status> {
        let Some(whole) = &mut self.0 else {
            self.0 = Some(piece);
            return Ok(());
        };
        if piece.index != whole.index {
            return Err(Status::invalid_argument(format!(
                "Raft message chunk with index {} is different from the previously received raft \
                 message index {}",
                piece.index, whole.index
            )));
        }
        if piece.r#type() != MessageType::MsgSnap {
            return Err(Status::invalid_argument(format!(
                "Raft message chunk is not of type {}",
                MessageType::MsgSnap as i32
            )));
        }
        let more = piece.snapshot.unwrap_or_default().data;
        let data = &mut whole.snapshot.get_or_insert_default().data;
        if data.len() + more.len() > MAX_SNAPSHOT {
            return Err(Status::resource_exhausted("the snapshot is too large"));
        }
        data.extend_from_slice(&more);
        Ok(())
    }

    pub(crate) fn finish(self) -> Option<raftpb::Message> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(size: usize) -> raftpb::Message {
        let data = (0..size).map(|i| (i % 251) as u8).collect();
        raftpb::Message {
            r#type: MessageType::MsgSnap.into(),
            from: 1,
            to: 2,
            index: 9,
            snapshot: Some(raftpb::Snapshot {
                data,
                metadata: Some(raftpb::SnapshotMetadata {
                    index: 7,
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_large_snapshot_is_cut_into_requests_that_fit_and_put_together_again() {
        let whole = snapshot(9 << 20);
        let pieces = pieces(whole.clone());
        assert_eq!(pieces.len(), 3);
        let mut assembly = Assembly::default();
        for piece in pieces {
            let request = skep_proto::StreamRaftMessageRequest {
                message: Some(piece.clone()),
            };
            assert!(request.encoded_len() <= MAX_REQUEST);
            assembly.add(piece).unwrap();
        }
        assert_eq!(assembly.finish(), Some(whole));
    }

    #[test]
    fn anything_else_goes_in_one_piece() {
        assert_eq!(pieces(snapshot(1000)).len(), 1);
        let append = raftpb::Message {
            r#type: MessageType::MsgApp.into(),
            context: vec![0; 5 << 20],
            ..Default::default()
        };
        assert_eq!(pieces(append).len(), 1);
    }

    #[test]
    fn pieces_that_do_not_belong_together_are_refused() {
        let mut assembly = Assembly::default();
        assembly.add(snapshot(10)).unwrap();
        let other = raftpb::Message {
            index: 10,
            ..snapshot(10)
        };
        let error = assembly.add(other).unwrap_err();
        assert_eq!(
            error.message(),
            "Raft message chunk with index 10 is different from the previously received raft \
             message index 9"
        );
        let append = raftpb::Message {
            r#type: MessageType::MsgApp.into(),
            ..snapshot(10)
        };
        let error = assembly.add(append).unwrap_err();
        assert_eq!(error.message(), "Raft message chunk is not of type 7");
    }
}
