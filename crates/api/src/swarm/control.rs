//! The way to the managers' control API, with its errors in the REST API's form.

use futures::StreamExt;
use futures::stream::BoxStream;
use skep_proto as p;
use skep_swarm::{ClusterError, ControlRouter};

use crate::error::{ApiError, ApiResult};
use crate::state::ApiState;

/// The control API of this node's manager: it reads here and writes through the leader.
pub(crate) struct Control(ControlRouter);

impl Control {
    /// Fails with Docker's text if this node is no manager.
    pub(crate) fn of(state: &ApiState) -> ApiResult<Self> {
        Ok(Self(state.cluster.control()?))
    }
}

macro_rules! reads {
    ($($name:ident $request:ident $response:ident;)*) => {
        impl Control {$(
            pub(crate) fn $name(&self, request: &p::$request) -> ApiResult<p::$response> {
                Ok(self.0.$name(request)?)
            }
        )*}
    };
}

macro_rules! lists {
    ($($name:ident $request:ident $response:ident;)*) => {
        impl Control {$(
            pub(crate) fn $name(&self, request: &p::$request) -> p::$response {
                self.0.$name(request)
            }
        )*}
    };
}

macro_rules! writes {
    ($($name:ident $request:ident $response:ident;)*) => {
        impl Control {$(
            pub(crate) async fn $name(&self, request: p::$request) -> ApiResult<p::$response> {
                Ok(self.0.$name(request).await?)
            }
        )*}
    };
}

reads! {
    get_node GetNodeRequest GetNodeResponse;
    get_task GetTaskRequest GetTaskResponse;
    get_service GetServiceRequest GetServiceResponse;
    get_network GetNetworkRequest GetNetworkResponse;
    get_secret GetSecretRequest GetSecretResponse;
    get_config GetConfigRequest GetConfigResponse;
}

lists! {
    list_nodes ListNodesRequest ListNodesResponse;
    list_tasks ListTasksRequest ListTasksResponse;
    list_services ListServicesRequest ListServicesResponse;
    list_service_statuses ListServiceStatusesRequest ListServiceStatusesResponse;
    list_networks ListNetworksRequest ListNetworksResponse;
    list_secrets ListSecretsRequest ListSecretsResponse;
    list_configs ListConfigsRequest ListConfigsResponse;
}

writes! {
    update_node UpdateNodeRequest UpdateNodeResponse;
    remove_node RemoveNodeRequest RemoveNodeResponse;
    create_service CreateServiceRequest CreateServiceResponse;
    update_service UpdateServiceRequest UpdateServiceResponse;
    remove_service RemoveServiceRequest RemoveServiceResponse;
    create_network CreateNetworkRequest CreateNetworkResponse;
    remove_network RemoveNetworkRequest RemoveNetworkResponse;
    create_secret CreateSecretRequest CreateSecretResponse;
    update_secret UpdateSecretRequest UpdateSecretResponse;
    remove_secret RemoveSecretRequest RemoveSecretResponse;
    create_config CreateConfigRequest CreateConfigResponse;
    update_config UpdateConfigRequest UpdateConfigResponse;
    remove_config RemoveConfigRequest RemoveConfigResponse;
}

/// The messages of a log subscription as they come.
pub(crate) type LogMessages = BoxStream<'static, Result<p::SubscribeLogsMessage, ApiError>>;

/// Asks the nodes that have them for logs, through the leader. Dropping the stream ends the
/// subscription.
pub(crate) async fn subscribe_logs(
    state: &ApiState,
    request: p::SubscribeLogsRequest,
) -> ApiResult<LogMessages> {
    let messages = state
        .cluster
        .control()?
        .subscribe_logs(request)
        .await
        .map_err(ClusterError::from)?;
    Ok(messages
        .map(|message| message.map_err(|status| ClusterError::from(status).into()))
        .boxed())
}

/// This node's id, if it is in a swarm.
pub(crate) fn node_id(state: &ApiState) -> Option<String> {
    state.cluster.node_id().map(|id| id.to_string())
}

impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        let status = http::StatusCode::from_u16(error.kind.status())
            .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, error.message)
    }
}

impl From<skep_manager::ControlError> for ApiError {
    fn from(error: skep_manager::ControlError) -> Self {
        use http::StatusCode as S;
        use skep_manager::Code;
        // moby's table for gRPC codes; the text keeps gRPC's prefix, as dockerd's does.
        let status = match error.code {
            Code::InvalidArgument | Code::FailedPrecondition => S::BAD_REQUEST,
            Code::NotFound => S::NOT_FOUND,
            Code::AlreadyExists => S::CONFLICT,
            Code::PermissionDenied => S::FORBIDDEN,
            Code::Unimplemented => S::NOT_IMPLEMENTED,
            Code::Unavailable => S::SERVICE_UNAVAILABLE,
            Code::Unknown | Code::Internal => S::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
