//! The control API on any manager: reads are answered here, writes by the leader.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use skep_manager::{Code, Control, ControlError};
use skep_model::Task;
use skep_proto as proto;
use skep_proto::control_client::ControlClient;
use skep_proto::logs_client::LogsClient;
use skep_store::{Snapshot, Store};
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::Channel;

use crate::backend::{LogBackend, ResponseStream};
use crate::connect::MAX_RESPONSE;
use crate::leader::{Leader, LeaderRoute};

/// How long a write that another manager has made may take to arrive here.
const CATCH_UP: Duration = Duration::from_secs(1);
/// How long the successor of a leader that died is waited for.
const ELECTION: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);

/// What this manager's users ask. The same calls as [`Control`]'s.
#[derive(Clone)]
pub struct ControlRouter {
    local: Control,
    store: Store,
    leader: Arc<dyn LeaderRoute>,
    logs: Arc<dyn LogBackend>,
}

macro_rules! writes {
    ($($name:ident: $request:ident => $response:ident { $object:ident: $kind:ident },)*) => {$(
        /// Answered by the leader.
        pub async fn $name(
            &self,
            request: proto::$request,
        ) -> Result<proto::$response, ControlError> {
            let answer = self.ask(|mut client| {
                let request = request.clone();
                async move { client.$name(request).await }
            });
            let Some(answer) = answer.await? else {
                return self.local.$name(request).await;
            };
            if let Some(written) = &answer.$object {
                self.catch_up(|snapshot| {
                    let known = snapshot.get::<proto::$kind>(&written.id);
                    known.is_some_and(|known| index(known.meta.as_ref()) >= index(written.meta.as_ref()))
                })
                .await;
            }
            Ok(answer)
        }
    )*};
}

macro_rules! removals {
    ($($name:ident: $request:ident { $id:ident: $kind:ty } => $response:ident,)*) => {$(
        /// Answered by the leader.
        pub async fn $name(
            &self,
            request: proto::$request,
        ) -> Result<proto::$response, ControlError> {
            let answer = self.ask(|mut client| {
                let request = request.clone();
                async move { client.$name(request).await }
            });
            let Some(answer) = answer.await? else {
                return self.local.$name(request).await;
            };
            self.catch_up(|snapshot| snapshot.get::<$kind>(&request.$id).is_none()).await;
            Ok(answer)
        }
    )*};
}

macro_rules! gets {
    ($($name:ident: $request:ident => $response:ident,)*) => {$(
        pub fn $name(&self, request: &proto::$request) -> Result<proto::$response, ControlError> {
            self.local.$name(request)
        }
    )*};
}

macro_rules! lists {
    ($($name:ident: $request:ident => $response:ident,)*) => {$(
        pub fn $name(&self, request: &proto::$request) -> proto::$response {
            self.local.$name(request)
        }
    )*};
}

impl ControlRouter {
    pub fn new(
        local: Control,
        store: Store,
        leader: Arc<dyn LeaderRoute>,
        logs: Arc<dyn LogBackend>,
    ) -> Self {
        Self {
            local,
            store,
            leader,
            logs,
        }
    }

    writes! {
        update_node: UpdateNodeRequest => UpdateNodeResponse { node: Node },
        create_service: CreateServiceRequest => CreateServiceResponse { service: Service },
        update_service: UpdateServiceRequest => UpdateServiceResponse { service: Service },
        create_network: CreateNetworkRequest => CreateNetworkResponse { network: Network },
        update_cluster: UpdateClusterRequest => UpdateClusterResponse { cluster: Cluster },
        create_secret: CreateSecretRequest => CreateSecretResponse { secret: Secret },
        update_secret: UpdateSecretRequest => UpdateSecretResponse { secret: Secret },
        create_config: CreateConfigRequest => CreateConfigResponse { config: Config },
        update_config: UpdateConfigRequest => UpdateConfigResponse { config: Config },
    }

    removals! {
        remove_node: RemoveNodeRequest { node_id: proto::Node } => RemoveNodeResponse,
        remove_task: RemoveTaskRequest { task_id: Task } => RemoveTaskResponse,
        remove_service: RemoveServiceRequest { service_id: proto::Service } => RemoveServiceResponse,
        remove_network: RemoveNetworkRequest { network_id: proto::Network } => RemoveNetworkResponse,
        remove_secret: RemoveSecretRequest { secret_id: proto::Secret } => RemoveSecretResponse,
        remove_config: RemoveConfigRequest { config_id: proto::Config } => RemoveConfigResponse,
    }

    gets! {
        get_node: GetNodeRequest => GetNodeResponse,
        get_task: GetTaskRequest => GetTaskResponse,
        get_service: GetServiceRequest => GetServiceResponse,
        get_network: GetNetworkRequest => GetNetworkResponse,
        get_cluster: GetClusterRequest => GetClusterResponse,
        get_secret: GetSecretRequest => GetSecretResponse,
        get_config: GetConfigRequest => GetConfigResponse,
    }

    lists! {
        list_nodes: ListNodesRequest => ListNodesResponse,
        list_tasks: ListTasksRequest => ListTasksResponse,
        list_services: ListServicesRequest => ListServicesResponse,
        list_service_statuses: ListServiceStatusesRequest => ListServiceStatusesResponse,
        list_networks: ListNetworksRequest => ListNetworksResponse,
        list_clusters: ListClustersRequest => ListClustersResponse,
        list_secrets: ListSecretsRequest => ListSecretsResponse,
        list_configs: ListConfigsRequest => ListConfigsResponse,
    }

    /// Logs of tasks on any nodes: the leader brings them together.
    pub async fn subscribe_logs(
        &self,
        request: proto::SubscribeLogsRequest,
    ) -> Result<ResponseStream<proto::SubscribeLogsMessage>, Status> {
        match self.leader.wait().await? {
            Leader::Here => self.logs.subscribe_logs(request).await,
            Leader::There { channel, .. } => {
                let mut client = LogsClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
                Ok(client.subscribe_logs(request).await?.into_inner().boxed())
            }
        }
    }

    /// Asks the leader. One that has just died is still taken for the leader: what could not even be
    /// sent to it goes to the next one. `None`: that is this manager.
    async fn ask<T, F>(
        &self,
        call: impl Fn(ControlClient<Channel>) -> F,
    ) -> Result<Option<T>, ControlError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let give_up = Instant::now() + ELECTION;
        loop {
            let Leader::There { channel, .. } = self.leader.wait().await.map_err(error_of)? else {
                return Ok(None);
            };
            let client = ControlClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
            match call(client).await {
                Ok(answer) => return Ok(Some(answer.into_inner())),
                Err(status) if is_unsent(&status) && Instant::now() < give_up => {
                    sleep(RETRY).await;
                }
                Err(status) => return Err(error_of(status)),
            }
        }
    }

    /// Users read here what they have just written: a moment's patience makes that so.
    async fn catch_up(&self, has_arrived: impl Fn(&Snapshot) -> bool) {
        let mut changed = self.store.changed();
        let arrived = async {
            loop {
                changed.borrow_and_update();
                if has_arrived(&self.store.snapshot()) || changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // A manager that lags more than this answers from what it has; and what was written may be
        // overwritten or gone already.
        let _ = tokio::time::timeout(CATCH_UP, arrived).await;
    }
}

fn index(meta: Option<&proto::Meta>) -> u64 {
    let version = meta.and_then(|meta| meta.version.as_ref());
    version.map_or(0, |version| version.index)
}

/// Whether there was no connection to send the request on.
fn is_unsent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The leader's refusal, as if it had been made here.
fn error_of(status: Status) -> ControlError {
    let code = match status.code() {
        tonic::Code::InvalidArgument => Code::InvalidArgument,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::AlreadyExists => Code::AlreadyExists,
        tonic::Code::PermissionDenied => Code::PermissionDenied,
        tonic::Code::FailedPrecondition => Code::FailedPrecondition,
        tonic::Code::Unimplemented => Code::Unimplemented,
        tonic::Code::Internal => Code::Internal,
        tonic::Code::Unavailable => Code::Unavailable,
        _ => Code::Unknown,
    };
    ControlError::new(code, status.message())
}
