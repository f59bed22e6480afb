//! Dispatcher, LogBroker, Logs and ResourceAllocator.

use futures::{StreamExt as _, TryStreamExt as _};
use skep_proto as proto;
use tonic::{Request, Response, Status, Streaming};

use super::caller;
use crate::backend::{DispatcherBackend, LogBackend, ResourceBackend, ResponseStream};
use crate::slot::Slot;

#[derive(Clone)]
pub(super) struct AgentService {
    pub(super) dispatcher: Slot<dyn DispatcherBackend>,
    pub(super) logs: Slot<dyn LogBackend>,
}

#[async_trait::async_trait]
impl proto::dispatcher_server::Dispatcher for AgentService {
    type SessionStream = ResponseStream<proto::SessionMessage>;
    type TasksStream = ResponseStream<proto::TasksMessage>;
    type AssignmentsStream = ResponseStream<proto::AssignmentsMessage>;

    async fn session(
        &self,
        request: Request<proto::SessionRequest>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = caller(&request)?;
        let dispatcher = self.dispatcher.need()?;
        let stream = dispatcher.session(&caller, request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let caller = caller(&request)?;
        let dispatcher = self.dispatcher.need()?;
        let answer = dispatcher.heartbeat(&caller, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn update_task_status(
        &self,
        request: Request<proto::UpdateTaskStatusRequest>,
    ) -> Result<Response<proto::UpdateTaskStatusResponse>, Status> {
        let caller = caller(&request)?;
        let dispatcher = self.dispatcher.need()?;
        let request = request.into_inner();
        let answer = dispatcher.update_task_status(&caller, request).await?;
        Ok(Response::new(answer))
    }

    /// Agents that know cluster volumes go on without.
    async fn update_volume_status(
        &self,
        _request: Request<proto::UpdateVolumeStatusRequest>,
    ) -> Result<Response<proto::UpdateVolumeStatusResponse>, Status> {
        Err(Status::unimplemented("cluster volumes are not supported"))
    }

    /// The predecessor of assignments, which Docker has not called since 1.13.
    async fn tasks(
        &self,
        _request: Request<proto::TasksRequest>,
    ) -> Result<Response<Self::TasksStream>, Status> {
        Err(Status::unimplemented("use Assignments"))
    }

    async fn assignments(
        &self,
        request: Request<proto::AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        let caller = caller(&request)?;
        let dispatcher = self.dispatcher.need()?;
        let stream = dispatcher
            .assignments(&caller, request.into_inner())
            .await?;
        Ok(Response::new(stream))
    }
}

#[async_trait::async_trait]
impl proto::log_broker_server::LogBroker for AgentService {
    type ListenSubscriptionsStream = ResponseStream<proto::SubscriptionMessage>;

    async fn listen_subscriptions(
        &self,
        request: Request<proto::ListenSubscriptionsRequest>,
    ) -> Result<Response<Self::ListenSubscriptionsStream>, Status> {
        let caller = caller(&request)?;
        let logs = self.logs.need()?;
        let stream = logs
            .listen_subscriptions(&caller, request.into_inner())
            .await?;
        Ok(Response::new(stream))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<proto::PublishLogsMessage>>,
    ) -> Result<Response<proto::PublishLogsResponse>, Status> {
        let caller = caller(&request)?;
        let logs = self.logs.need()?;
        // A stream that breaks off ends here; the broker notes which nodes did not finish.
        let messages = request
            .into_inner()
            .inspect_err(|error| tracing::debug!(%error, "a log stream broke off"))
            .take_while(|message| std::future::ready(message.is_ok()))
            .filter_map(|message| std::future::ready(message.ok()));
        let answer = logs.publish_logs(&caller, messages.boxed()).await?;
        Ok(Response::new(answer))
    }
}

#[async_trait::async_trait]
impl proto::logs_server::Logs for AgentService {
    type SubscribeLogsStream = ResponseStream<proto::SubscribeLogsMessage>;

    async fn subscribe_logs(
        &self,
        request: Request<proto::SubscribeLogsRequest>,
    ) -> Result<Response<Self::SubscribeLogsStream>, Status> {
        let stream = self
            .logs
            .need()?
            .subscribe_logs(request.into_inner())
            .await?;
        Ok(Response::new(stream))
    }
}

#[derive(Clone)]
pub(super) struct ResourceService(pub(super) Slot<dyn ResourceBackend>);

impl ResourceService {
    fn backend(&self) -> Result<std::sync::Arc<dyn ResourceBackend>, Status> {
        let none =
            || Status::unimplemented("attaching containers to swarm networks is not supported");
        self.0.get().ok_or_else(none)
    }
}

#[async_trait::async_trait]
impl proto::resource_allocator_server::ResourceAllocator for ResourceService {
    async fn attach_network(
        &self,
        request: Request<proto::AttachNetworkRequest>,
    ) -> Result<Response<proto::AttachNetworkResponse>, Status> {
        let caller = caller(&request)?;
        let backend = self.backend()?;
        let answer = backend
            .attach_network(&caller, request.into_inner())
            .await?;
        Ok(Response::new(answer))
    }

    async fn detach_network(
        &self,
        request: Request<proto::DetachNetworkRequest>,
    ) -> Result<Response<proto::DetachNetworkResponse>, Status> {
        let caller = caller(&request)?;
        let backend = self.backend()?;
        let answer = backend
            .detach_network(&caller, request.into_inner())
            .await?;
        Ok(Response::new(answer))
    }
}
