//! The way to the managers, as the agent needs it: SwarmKit's Dispatcher and LogBroker services as a
//! worker calls them. In one process with a manager there is no network between; the messages and
//! status codes are the same.

use futures::stream::BoxStream;
use skep_proto as proto;
use tonic::Status;

pub type ResponseStream<T> = BoxStream<'static, Result<T, Status>>;

/// Which manager is asked is the client's business. It may choose anew at each `session`; the other
/// calls go to the manager of the latest session.
#[async_trait::async_trait]
pub trait DispatcherClient: Send + Sync + 'static {
    async fn session(
        &self,
        request: proto::SessionRequest,
    ) -> Result<ResponseStream<proto::SessionMessage>, Status>;

    async fn heartbeat(
        &self,
        request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Status>;

    async fn update_task_status(
        &self,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<proto::UpdateTaskStatusResponse, Status>;

    async fn assignments(
        &self,
        request: proto::AssignmentsRequest,
    ) -> Result<ResponseStream<proto::AssignmentsMessage>, Status>;

    /// The endpoint feed of skep's managers; others do not have it.
    async fn endpoints(
        &self,
        _request: proto::feed::WatchEndpointsRequest,
    ) -> Result<ResponseStream<proto::feed::EndpointUpdate>, Status> {
        Err(Status::unimplemented("this manager has no endpoint feed"))
    }
}

#[async_trait::async_trait]
pub trait LogBrokerClient: Send + Sync + 'static {
    async fn listen_subscriptions(
        &self,
        request: proto::ListenSubscriptionsRequest,
    ) -> Result<ResponseStream<proto::SubscriptionMessage>, Status>;

    /// Returns when the stream has ended or the manager wants no more.
    async fn publish_logs(
        &self,
        messages: BoxStream<'static, proto::PublishLogsMessage>,
    ) -> Result<proto::PublishLogsResponse, Status>;
}
