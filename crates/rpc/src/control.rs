//! The control API on any manager: reads are answered here, writes by the leader.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use skep_manager::{Code, Control, ControlError};
use skep_proto as proto;
use skep_proto::control_client::ControlClient;
use skep_proto::logs_client::LogsClient;
use skep_store::Store;
use tonic::Status;

use crate::backend::{LogBackend, ResponseStream};
use crate::connect::MAX_RESPONSE;
use crate::leader::{Leader, LeaderRoute};

/// How long a write that another manager has made may take to arrive here.
const CATCH_UP: Duration = Duration::from_secs(5);

/// What this manager's users ask. The same calls as [`Control`]'s.
#[derive(Clone)]
pub struct ControlRouter {
    local: Control,
    store: Store,
    leader: Arc<dyn LeaderRoute>,
    logs: Arc<dyn LogBackend>,
}

macro_rules! writes {
    ($($name:ident: $request:ident => $response:ident,)*) => {$(
        /// Answered by the leader.
        pub async fn $name(
            &self,
            request: proto::$request,
        ) -> Result<proto::$response, ControlError> {
            match self.leader.wait().await.map_err(error_of)? {
                Leader::Here => self.local.$name(request).await,
                Leader::There { channel, .. } => {
                    let mut client = ControlClient::new(channel)
                        .max_decoding_message_size(MAX_RESPONSE);
                    let answer = client.$name(request).await.map_err(error_of)?.into_inner();
                    self.catch_up(Written::version(&answer)).await;
                    Ok(answer)
                }
            }
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
        update_node: UpdateNodeRequest => UpdateNodeResponse,
        remove_node: RemoveNodeRequest => RemoveNodeResponse,
        remove_task: RemoveTaskRequest => RemoveTaskResponse,
        create_service: CreateServiceRequest => CreateServiceResponse,
        update_service: UpdateServiceRequest => UpdateServiceResponse,
        remove_service: RemoveServiceRequest => RemoveServiceResponse,
        create_network: CreateNetworkRequest => CreateNetworkResponse,
        remove_network: RemoveNetworkRequest => RemoveNetworkResponse,
        update_cluster: UpdateClusterRequest => UpdateClusterResponse,
        create_secret: CreateSecretRequest => CreateSecretResponse,
        update_secret: UpdateSecretRequest => UpdateSecretResponse,
        remove_secret: RemoveSecretRequest => RemoveSecretResponse,
        create_config: CreateConfigRequest => CreateConfigResponse,
        update_config: UpdateConfigRequest => UpdateConfigResponse,
        remove_config: RemoveConfigRequest => RemoveConfigResponse,
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

    /// Users read here what they have just written: a moment's patience makes that so.
    async fn catch_up(&self, version: Option<u64>) {
        let Some(version) = version else { return };
        let mut changed = self.store.changed();
        let arrived = async {
            while self.store.snapshot().version() < version {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // A manager that lags more than this answers from what it has.
        let _ = tokio::time::timeout(CATCH_UP, arrived).await;
    }
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

/// The log index that an answer's object was written at.
trait Written {
    fn version(&self) -> Option<u64>;
}

macro_rules! written {
    ($($response:ident: $object:ident,)*) => {$(
        impl Written for proto::$response {
            fn version(&self) -> Option<u64> {
                let version = self.$object.as_ref()?.meta.as_ref()?.version.as_ref()?;
                Some(version.index)
            }
        }
    )*};
}

macro_rules! unversioned {
    ($($response:ident,)*) => {$(
        impl Written for proto::$response {
            fn version(&self) -> Option<u64> {
                None
            }
        }
    )*};
}

written! {
    UpdateNodeResponse: node,
    CreateServiceResponse: service,
    UpdateServiceResponse: service,
    CreateNetworkResponse: network,
    UpdateClusterResponse: cluster,
    CreateSecretResponse: secret,
    UpdateSecretResponse: secret,
    CreateConfigResponse: config,
    UpdateConfigResponse: config,
}

// A removed object has no version to wait for.
unversioned! {
    RemoveNodeResponse,
    RemoveTaskResponse,
    RemoveServiceResponse,
    RemoveNetworkResponse,
    RemoveSecretResponse,
    RemoveConfigResponse,
}
