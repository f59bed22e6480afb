//! Finding one object by id, name or id prefix, in this order, as moby does.

use skep_proto as p;

use super::control::Control;
use crate::error::{ApiError, ApiResult};

macro_rules! lookup {
    ($name:ident, $kind:literal, $object:ty, $list:ident, $request:ident, $filters:ident, $items:ident, $get:ident,
     $get_request:expr, $field:ident) => {
        /// The one object that `input` means.
        #[allow(
            clippy::needless_update,
            reason = "only some requests have a field beside filters"
        )]
        pub(crate) fn $name(control: &Control, input: &str) -> ApiResult<$object> {
            if let Ok(response) = control.$get(&$get_request(input))
                && let Some(object) = response.$field
            {
                return Ok(object);
            }
            let by_name = p::$filters::Filters {
                names: vec![input.to_owned()],
                ..Default::default()
            };
            let mut found = control
                .$list(&p::$request {
                    filters: Some(by_name),
                    ..Default::default()
                })
                .$items;
            if found.is_empty() {
                let by_id = p::$filters::Filters {
                    id_prefixes: vec![input.to_owned()],
                    ..Default::default()
                };
                found = control
                    .$list(&p::$request {
                        filters: Some(by_id),
                        ..Default::default()
                    })
                    .$items;
            }
            only($kind, input, found)
        }
    };
}

lookup!(
    node,
    "node",
    p::Node,
    list_nodes,
    ListNodesRequest,
    list_nodes_request,
    nodes,
    get_node,
    |id: &str| p::GetNodeRequest {
        node_id: id.to_owned()
    },
    node
);
lookup!(
    service,
    "service",
    p::Service,
    list_services,
    ListServicesRequest,
    list_services_request,
    services,
    get_service,
    |id: &str| p::GetServiceRequest {
        service_id: id.to_owned(),
        insert_defaults: false
    },
    service
);
lookup!(
    task,
    "task",
    p::Task,
    list_tasks,
    ListTasksRequest,
    list_tasks_request,
    tasks,
    get_task,
    |id: &str| p::GetTaskRequest {
        task_id: id.to_owned()
    },
    task
);
lookup!(
    secret,
    "secret",
    p::Secret,
    list_secrets,
    ListSecretsRequest,
    list_secrets_request,
    secrets,
    get_secret,
    |id: &str| p::GetSecretRequest {
        secret_id: id.to_owned()
    },
    secret
);
lookup!(
    config,
    "config",
    p::Config,
    list_configs,
    ListConfigsRequest,
    list_configs_request,
    configs,
    get_config,
    |id: &str| p::GetConfigRequest {
        config_id: id.to_owned()
    },
    config
);
lookup!(
    network,
    "network",
    p::Network,
    list_networks,
    ListNetworksRequest,
    list_networks_request,
    networks,
    get_network,
    |id: &str| p::GetNetworkRequest {
        network_id: id.to_owned(),
        ..Default::default()
    },
    network
);

fn only<T>(kind: &str, input: &str, mut found: Vec<T>) -> ApiResult<T> {
    match found.len() {
        0 => Err(ApiError::not_found(format!("{kind} {input} not found"))),
        1 => Ok(found.remove(0)),
        count => Err(ApiError::invalid(format!(
            "{kind} {input} is ambiguous ({count} matches found)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_and_several_are_told_as_moby_tells_them() {
        assert_eq!(
            only::<u8>("service", "web", vec![]).unwrap_err().message,
            "service web not found"
        );
        let several = only("service", "web", vec![1, 2]).unwrap_err();
        assert_eq!(
            several.message,
            "service web is ambiguous (2 matches found)"
        );
        assert_eq!(only("service", "web", vec![7]), Ok(7));
    }
}
