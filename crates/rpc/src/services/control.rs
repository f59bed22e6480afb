//! Control, as other managers call it.

use skep_manager::Control;
use skep_proto as proto;
use tonic::{Request, Response, Status};

use crate::slot::Slot;

#[derive(Clone)]
pub(super) struct ControlService(pub(super) Slot<Control>);

/// What the manager's control API does not have is refused by name.
fn lacking(what: &str) -> Status {
    Status::unimplemented(format!("{what} are not supported"))
}

macro_rules! control_service {
    (
        writes { $($write:ident: $write_request:ident => $write_response:ident,)* }
        gets { $($get:ident: $get_request:ident => $get_response:ident,)* }
        lists { $($list:ident: $list_request:ident => $list_response:ident,)* }
        lacks { $($lack:ident: $lack_request:ident => $lack_response:ident, $what:literal;)* }
    ) => {
        #[async_trait::async_trait]
        impl proto::control_server::Control for ControlService {
            $(async fn $write(
                &self,
                request: Request<proto::$write_request>,
            ) -> Result<Response<proto::$write_response>, Status> {
                Ok(Response::new(self.0.need()?.$write(request.into_inner()).await?))
            })*
            $(async fn $get(
                &self,
                request: Request<proto::$get_request>,
            ) -> Result<Response<proto::$get_response>, Status> {
                Ok(Response::new(self.0.need()?.$get(request.get_ref())?))
            })*
            $(async fn $list(
                &self,
                request: Request<proto::$list_request>,
            ) -> Result<Response<proto::$list_response>, Status> {
                Ok(Response::new(self.0.need()?.$list(request.get_ref())))
            })*
            $(async fn $lack(
                &self,
                _request: Request<proto::$lack_request>,
            ) -> Result<Response<proto::$lack_response>, Status> {
                Err(lacking($what))
            })*
        }
    };
}

control_service! {
    writes {
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
    gets {
        get_node: GetNodeRequest => GetNodeResponse,
        get_task: GetTaskRequest => GetTaskResponse,
        get_service: GetServiceRequest => GetServiceResponse,
        get_network: GetNetworkRequest => GetNetworkResponse,
        get_cluster: GetClusterRequest => GetClusterResponse,
        get_secret: GetSecretRequest => GetSecretResponse,
        get_config: GetConfigRequest => GetConfigResponse,
    }
    lists {
        list_nodes: ListNodesRequest => ListNodesResponse,
        list_tasks: ListTasksRequest => ListTasksResponse,
        list_services: ListServicesRequest => ListServicesResponse,
        list_service_statuses: ListServiceStatusesRequest => ListServiceStatusesResponse,
        list_networks: ListNetworksRequest => ListNetworksResponse,
        list_clusters: ListClustersRequest => ListClustersResponse,
        list_secrets: ListSecretsRequest => ListSecretsResponse,
        list_configs: ListConfigsRequest => ListConfigsResponse,
    }
    lacks {
        get_extension: GetExtensionRequest => GetExtensionResponse, "extensions";
        create_extension: CreateExtensionRequest => CreateExtensionResponse, "extensions";
        remove_extension: RemoveExtensionRequest => RemoveExtensionResponse, "extensions";
        get_resource: GetResourceRequest => GetResourceResponse, "resources";
        update_resource: UpdateResourceRequest => UpdateResourceResponse, "resources";
        list_resources: ListResourcesRequest => ListResourcesResponse, "resources";
        create_resource: CreateResourceRequest => CreateResourceResponse, "resources";
        remove_resource: RemoveResourceRequest => RemoveResourceResponse, "resources";
        create_volume: CreateVolumeRequest => CreateVolumeResponse, "cluster volumes";
        get_volume: GetVolumeRequest => GetVolumeResponse, "cluster volumes";
        update_volume: UpdateVolumeRequest => UpdateVolumeResponse, "cluster volumes";
        list_volumes: ListVolumesRequest => ListVolumesResponse, "cluster volumes";
        remove_volume: RemoveVolumeRequest => RemoveVolumeResponse, "cluster volumes";
    }
}
