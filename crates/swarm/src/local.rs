//! The agent's way to the manager in the same process: the calls and messages that cross the network
//! elsewhere, without the network.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use skep_agent::{DispatcherClient, LogBrokerClient, ResponseStream};
use skep_manager::{Caller, Dispatcher, LogBroker};
use skep_model::{NodeId, proto};
use tonic::Status;

pub(crate) struct LocalDispatcher {
    dispatcher: Arc<Dispatcher>,
    caller: Caller,
}

impl LocalDispatcher {
    pub(crate) fn new(dispatcher: Arc<Dispatcher>, node_id: NodeId) -> Self {
        Self {
            dispatcher,
            caller: Caller {
                node_id,
                addr: None,
            },
        }
    }
}

#[async_trait]
impl DispatcherClient for LocalDispatcher {
    async fn session(
        &self,
        request: proto::SessionRequest,
    ) -> Result<ResponseStream<proto::SessionMessage>, Status> {
        self.dispatcher.session(&self.caller, request).await
    }

    async fn heartbeat(
        &self,
        request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Status> {
        self.dispatcher.heartbeat(&self.caller, request).await
    }

    async fn update_task_status(
        &self,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<proto::UpdateTaskStatusResponse, Status> {
        self.dispatcher
            .update_task_status(&self.caller, request)
            .await
    }

    async fn assignments(
        &self,
        request: proto::AssignmentsRequest,
    ) -> Result<ResponseStream<proto::AssignmentsMessage>, Status> {
        self.dispatcher.assignments(&self.caller, request).await
    }
}

pub(crate) struct LocalLogBroker {
    broker: Arc<LogBroker>,
    caller: Caller,
}

impl LocalLogBroker {
    pub(crate) fn new(broker: Arc<LogBroker>, node_id: NodeId) -> Self {
        Self {
            broker,
            caller: Caller {
                node_id,
                addr: None,
            },
        }
    }
}

#[async_trait]
impl LogBrokerClient for LocalLogBroker {
    async fn listen_subscriptions(
        &self,
        request: proto::ListenSubscriptionsRequest,
    ) -> Result<ResponseStream<proto::SubscriptionMessage>, Status> {
        self.broker
            .listen_subscriptions(&self.caller, request)
            .await
    }

    async fn publish_logs(
        &self,
        messages: BoxStream<'static, proto::PublishLogsMessage>,
    ) -> Result<proto::PublishLogsResponse, Status> {
        self.broker.publish_logs(&self.caller, messages).await
    }
}
