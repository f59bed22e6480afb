//! The agent's calls.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use skep_agent::{DispatcherClient, LogBrokerClient, ResponseStream};
use skep_proto as proto;
use skep_proto::dispatcher_client::DispatcherClient as Dispatcher;
use skep_proto::log_broker_client::LogBrokerClient as LogBroker;
use tonic::Status;
use tonic::transport::Channel;

use super::{Route, Uplink};
use crate::connect::MAX_RESPONSE;
use crate::remotes::{Remote, Remotes};

fn dispatcher(channel: Channel) -> Dispatcher<Channel> {
    Dispatcher::new(channel).max_decoding_message_size(MAX_RESPONSE)
}

fn log_broker(channel: Channel) -> LogBroker<Channel> {
    LogBroker::new(channel).max_decoding_message_size(MAX_RESPONSE)
}

#[async_trait::async_trait]
impl DispatcherClient for Uplink {
    async fn session(
        &self,
        request: proto::SessionRequest,
    ) -> Result<ResponseStream<proto::SessionMessage>, Status> {
        let route = self.choose().await?;
        *self.route.lock() = Some(route.clone());
        match route {
            Route::Local(local) => {
                let stream = local.dispatcher.session(&local.caller, request).await?;
                Ok(learn(stream, Arc::clone(&self.remotes), None))
            }
            Route::Remote { channel, remote } => {
                let begun = dispatcher(channel).session(request).await;
                if let (Err(_), Some(remote)) = (&begun, &remote) {
                    self.remotes.observe(remote, false);
                }
                let stream = begun?.into_inner().boxed();
                Ok(learn(stream, Arc::clone(&self.remotes), remote))
            }
        }
    }

    async fn heartbeat(
        &self,
        request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Status> {
        match self.route()? {
            Route::Local(local) => local.dispatcher.heartbeat(&local.caller, request).await,
            Route::Remote { channel, .. } => {
                Ok(dispatcher(channel).heartbeat(request).await?.into_inner())
            }
        }
    }

    async fn update_task_status(
        &self,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<proto::UpdateTaskStatusResponse, Status> {
        match self.route()? {
            Route::Local(local) => {
                local
                    .dispatcher
                    .update_task_status(&local.caller, request)
                    .await
            }
            Route::Remote { channel, .. } => {
                let answer = dispatcher(channel).update_task_status(request).await?;
                Ok(answer.into_inner())
            }
        }
    }

    async fn assignments(
        &self,
        request: proto::AssignmentsRequest,
    ) -> Result<ResponseStream<proto::AssignmentsMessage>, Status> {
        match self.route()? {
            Route::Local(local) => local.dispatcher.assignments(&local.caller, request).await,
            Route::Remote { channel, .. } => {
                let stream = dispatcher(channel).assignments(request).await?;
                Ok(stream.into_inner().boxed())
            }
        }
    }

    /// Only where the leader is, so far: the feed does not cross the wire yet.
    async fn endpoints(
        &self,
        _request: proto::feed::WatchEndpointsRequest,
    ) -> Result<ResponseStream<proto::feed::EndpointUpdate>, Status> {
        match self.route()? {
            Route::Local(local) => local.dispatcher.endpoints(&local.caller),
            Route::Remote { .. } => Err(Status::unimplemented(
                "the endpoint feed does not cross the wire yet",
            )),
        }
    }
}

#[async_trait::async_trait]
impl LogBrokerClient for Uplink {
    async fn listen_subscriptions(
        &self,
        request: proto::ListenSubscriptionsRequest,
    ) -> Result<ResponseStream<proto::SubscriptionMessage>, Status> {
        match self.route()? {
            Route::Local(local) => {
                local
                    .logs
                    .listen_subscriptions(&local.caller, request)
                    .await
            }
            Route::Remote { channel, .. } => {
                let stream = log_broker(channel).listen_subscriptions(request).await?;
                Ok(stream.into_inner().boxed())
            }
        }
    }

    async fn publish_logs(
        &self,
        messages: BoxStream<'static, proto::PublishLogsMessage>,
    ) -> Result<proto::PublishLogsResponse, Status> {
        match self.route()? {
            Route::Local(local) => local.logs.publish_logs(&local.caller, messages).await,
            Route::Remote { channel, .. } => {
                let answer = log_broker(channel).publish_logs(Outgoing(messages)).await?;
                Ok(answer.into_inner())
            }
        }
    }
}

/// The compiler cannot see that a boxed stream is `Send` for every lifetime; of a type it can.
struct Outgoing(BoxStream<'static, proto::PublishLogsMessage>);

impl futures::Stream for Outgoing {
    type Item = proto::PublishLogsMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// Takes from the session's messages who the managers are, and from its course how good this one is.
fn learn(
    stream: ResponseStream<proto::SessionMessage>,
    remotes: Arc<Remotes>,
    remote: Option<Remote>,
) -> ResponseStream<proto::SessionMessage> {
    let mut is_first = true;
    stream
        .inspect(move |message| {
            if let Ok(message) = message {
                remotes.replace(&message.managers);
            }
            let Some(remote) = &remote else { return };
            match message {
                Ok(_) if std::mem::take(&mut is_first) => {
                    // From the address it was reached at to the manager that it is.
                    let known = remotes
                        .list()
                        .into_iter()
                        .find(|known| known.addr == remote.addr);
                    remotes.observe(known.as_ref().unwrap_or(remote), true);
                }
                Ok(_) => {}
                Err(_) => {
                    let known = remotes
                        .list()
                        .into_iter()
                        .find(|known| known.addr == remote.addr);
                    remotes.observe(known.as_ref().unwrap_or(remote), false);
                }
            }
        })
        .boxed()
}
