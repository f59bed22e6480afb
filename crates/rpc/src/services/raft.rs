//! Raft, RaftMembership, and the pipelined stream between skep managers.

use futures::{StreamExt as _, stream};
use skep_proto as proto;
use skep_proto::raftpb;
use tonic::{Request, Response, Status, Streaming};

use super::caller;
use crate::backend::ResponseStream;
use crate::generated::{RaftBatch, RaftProgress};
use crate::member::RaftMember;
use crate::slot::Slot;
use crate::snapshot::Assembly;

#[derive(Clone)]
pub(super) struct RaftService(pub(super) Slot<RaftMember>);

impl RaftService {
    /// Before this node is a member, messages are dropped without a word, as SwarmKit does: the
    /// leader begins to send as soon as it has added the member.
    fn step(&self, message: Option<raftpb::Message>) -> Result<(), Status> {
        match (self.0.get(), message) {
            (Some(member), Some(message)) => member.step(message),
            _ => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl proto::raft_server::Raft for RaftService {
    async fn process_raft_message(
        &self,
        request: Request<proto::ProcessRaftMessageRequest>,
    ) -> Result<Response<proto::ProcessRaftMessageResponse>, Status> {
        self.step(request.into_inner().message)?;
        Ok(Response::new(proto::ProcessRaftMessageResponse {}))
    }

    async fn stream_raft_message(
        &self,
        request: Request<Streaming<proto::StreamRaftMessageRequest>>,
    ) -> Result<Response<proto::StreamRaftMessageResponse>, Status> {
        let mut parts = request.into_inner();
        let mut assembly = Assembly::default();
        while let Some(part) = parts.message().await? {
            if let Some(part) = part.message {
                assembly.add(part)?;
            }
        }
        self.step(assembly.finish())?;
        Ok(Response::new(proto::StreamRaftMessageResponse {}))
    }

    async fn resolve_address(
        &self,
        request: Request<proto::ResolveAddressRequest>,
    ) -> Result<Response<proto::ResolveAddressResponse>, Status> {
        let member = self.0.need()?;
        let addr = member.resolve_address(request.get_ref().raft_id)?;
        Ok(Response::new(proto::ResolveAddressResponse { addr }))
    }
}

#[async_trait::async_trait]
impl proto::raft_membership_server::RaftMembership for RaftService {
    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinResponse>, Status> {
        let caller = caller(&request)?;
        let member = self.0.need()?;
        let answer = member.join(&caller, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn leave(
        &self,
        request: Request<proto::LeaveRequest>,
    ) -> Result<Response<proto::LeaveResponse>, Status> {
        let member = self.0.need()?;
        let node = request
            .into_inner()
            .node
            .ok_or_else(|| Status::invalid_argument("no node information provided"))?;
        member.leave(node.raft_id).await?;
        Ok(Response::new(proto::LeaveResponse {}))
    }
}

#[async_trait::async_trait]
impl crate::generated::raft_server::Raft for RaftService {
    type StreamStream = ResponseStream<RaftProgress>;

    async fn stream(
        &self,
        request: Request<Streaming<RaftBatch>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let service = self.clone();
        let begin = (service, request.into_inner(), 0_u64);
        let progress =
            stream::try_unfold(begin, |(service, mut batches, mut received)| async move {
                let Some(batch) = batches.message().await? else {
                    return Ok(None);
                };
                for message in batch.messages {
                    service.step(Some(message))?;
                    received += 1;
                }
                Ok(Some((
                    RaftProgress { received },
                    (service, batches, received),
                )))
            });
        Ok(Response::new(progress.boxed()))
    }
}
