//! `/services`.

use http::{HeaderMap, StatusCode};
use serde_json::json;
use skep_proto::{self as p, container_spec, service_spec, task_spec, update_service_request};

use super::control::Control;
use super::{compat, convert, filters, lookup, names, types as t};
use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::reply;
use crate::state::ApiState;

pub(crate) async fn list(call: Call<ApiState>) -> ApiResult {
    let filters = call.filters()?;
    let status = call.version.at_least(41) && strict_bool(&call, "status")?;
    let request = p::ListServicesRequest {
        filters: Some(filters::services(&filters)?),
    };
    let control = Control::of(&call.state)?;
    let found = control.list_services(&request).services;
    let mut services = found
        .iter()
        .filter(|service| filters.exact("mode", mode(service)))
        .map(|service| convert::service(service).map_err(ApiError::internal))
        .collect::<ApiResult<Vec<_>>>()?;
    if status {
        add_status(&control, &mut services);
    }
    Ok(reply::json(&services))
}

fn mode(service: &p::Service) -> &'static str {
    match service.spec.as_ref().and_then(|spec| spec.mode.as_ref()) {
        Some(service_spec::Mode::Global(_)) => "global",
        Some(service_spec::Mode::Replicated(_)) => "replicated",
        Some(service_spec::Mode::ReplicatedJob(_)) => "replicated-job",
        Some(service_spec::Mode::GlobalJob(_)) => "global-job",
        None => "",
    }
}

fn add_status(control: &Control, services: &mut [t::Service]) {
    let ids = services.iter().map(|service| service.id.clone()).collect();
    let statuses = control
        .list_service_statuses(&p::ListServiceStatusesRequest { services: ids })
        .statuses;
    for service in services {
        service.service_status = statuses
            .iter()
            .find(|status| status.service_id == service.id)
            .map(|status| t::ServiceStatus {
                running_tasks: status.running_tasks,
                desired_tasks: status.desired_tasks,
                completed_tasks: status.completed_tasks,
            });
    }
}

/// A parameter that Docker reads with Go's `ParseBool`, with its error.
fn strict_bool(call: &Call<ApiState>, key: &str) -> ApiResult<bool> {
    call.query.strict_bool(key).map_err(|value| {
        ApiError::invalid(format!(
            "invalid value for {key}: {value}: strconv.ParseBool: parsing {value:?}: invalid syntax"
        ))
    })
}

pub(crate) async fn inspect(call: Call<ApiState>) -> ApiResult {
    let insert_defaults = strict_bool(&call, "insertDefaults")?;
    let control = Control::of(&call.state)?;
    let mut service = lookup::service(&control, call.param("id"))?;
    if insert_defaults {
        let request = p::GetServiceRequest {
            service_id: service.id.clone(),
            insert_defaults,
        };
        service = control.get_service(&request)?.service.unwrap_or(service);
    }
    Ok(reply::json(
        &convert::service(&service).map_err(ApiError::internal)?,
    ))
}

pub(crate) async fn create(mut call: Call<ApiState>) -> ApiResult {
    let mut spec: t::ServiceSpec = call.json().await?;
    compat::adjust(&mut spec, call.version);
    if spec.name.is_empty() {
        spec.name = names::random();
    }
    let control = Control::of(&call.state)?;
    resolve_networks(&call.state, &control, &mut spec).await?;
    let mut wire = convert::service_spec_to(&spec).map_err(ApiError::invalid)?;
    let warnings = unpinned(&call, &wire);
    let auth = registry_auth(&call.headers);
    if let (Some(auth), Some(container)) = (auth, container_mut(&mut wire)) {
        container.pull_options = Some(container_spec::PullOptions {
            registry_auth: auth,
        });
    }
    let created = control
        .create_service(p::CreateServiceRequest { spec: Some(wire) })
        .await?;
    let id = created
        .service
        .map(|service| service.id)
        .unwrap_or_default();
    Ok(reply::json_with(
        StatusCode::CREATED,
        &json!({ "ID": id, "Warnings": warnings }),
    ))
}

pub(crate) async fn update(mut call: Call<ApiState>) -> ApiResult {
    let mut spec: t::ServiceSpec = call.json().await?;
    let version = call.query.object_version().map_err(|reason| {
        ApiError::invalid(format!(
            "invalid service version '{}': {reason}",
            call.query.get("version")
        ))
    })?;
    let from_previous = match call.query.get("registryAuthFrom") {
        "" | "spec" => false,
        "previous-spec" => true,
        other => {
            return Err(ApiError::invalid(format!(
                "invalid registryAuthFrom '{other}'"
            )));
        }
    };
    compat::adjust(&mut spec, call.version);
    let control = Control::of(&call.state)?;
    resolve_networks(&call.state, &control, &mut spec).await?;
    let mut wire = convert::service_spec_to(&spec).map_err(ApiError::invalid)?;
    let current = lookup::service(&control, call.param("id"))?;
    let pull_options = match registry_auth(&call.headers) {
        Some(registry_auth) => Some(container_spec::PullOptions { registry_auth }),
        None => kept_auth(&current, from_previous)?,
    };
    let warnings = unpinned(&call, &wire);
    if let Some(container) = container_mut(&mut wire) {
        container.pull_options = pull_options;
    }
    let rollback = match call.query.get("rollback") {
        "" | "none" => update_service_request::Rollback::None,
        "previous" => update_service_request::Rollback::Previous,
        other => {
            return Err(ApiError::internal(format!(
                "unrecognized rollback option {other}"
            )));
        }
    };
    let request = p::UpdateServiceRequest {
        service_id: current.id,
        service_version: Some(p::Version { index: version }),
        spec: Some(wire),
        rollback: rollback.into(),
    };
    control.update_service(request).await?;
    Ok(reply::json(&json!({ "Warnings": warnings })))
}

pub(crate) async fn remove(call: Call<ApiState>) -> ApiResult {
    let control = Control::of(&call.state)?;
    let service = lookup::service(&control, call.param("id"))?;
    control
        .remove_service(p::RemoveServiceRequest {
            service_id: service.id,
        })
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `X-Registry-Auth`, kept as it is for the nodes that will pull.
fn registry_auth(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-registry-auth")?.to_str().ok()?;
    Some(value.to_owned()).filter(|value| !value.is_empty())
}

/// An update without credentials keeps those the service has, or had before.
fn kept_auth(
    current: &p::Service,
    from_previous: bool,
) -> ApiResult<Option<container_spec::PullOptions>> {
    let spec = if from_previous {
        current
            .previous_spec
            .as_ref()
            .ok_or_else(|| ApiError::internal("service does not have a previous spec"))?
    } else {
        current
            .spec
            .as_ref()
            .ok_or_else(|| ApiError::internal("service does not use container tasks"))?
    };
    match spec.task.as_ref().and_then(|task| task.runtime.as_ref()) {
        Some(task_spec::Runtime::Container(container)) => Ok(container.pull_options.clone()),
        _ => Err(ApiError::internal("service does not use container tasks")),
    }
}

fn container_mut(spec: &mut p::ServiceSpec) -> Option<&mut p::ContainerSpec> {
    match spec.task.as_mut()?.runtime.as_mut()? {
        task_spec::Runtime::Container(container) => Some(container),
        _ => None,
    }
}

/// Before API 1.30 the daemon was to ask the registry for the image's digest; there is none to
/// ask yet, and Docker's text says what that means. `null` without warnings, as in Docker.
fn unpinned(call: &Call<ApiState>, spec: &p::ServiceSpec) -> Option<Vec<String>> {
    let image = match spec.task.as_ref()?.runtime.as_ref()? {
        task_spec::Runtime::Container(container) => &container.image,
        _ => return None,
    };
    if call.version.at_least(30) || image.contains("@sha256:") {
        return None;
    }
    Some(vec![format!(
        "image {image} could not be accessed on a registry to record\nits digest. Each node will access {image} \
         independently,\npossibly leading to different nodes running different\nversions of the image.\n"
    )])
}

/// Names of networks become ids, so that renaming or a second network of the name changes nothing.
async fn resolve_networks(
    state: &ApiState,
    control: &Control,
    spec: &mut t::ServiceSpec,
) -> ApiResult<()> {
    for attachment in &mut spec.task_template.networks {
        match lookup::network(control, &attachment.target) {
            Ok(network) => attachment.target = network.id,
            Err(error) => {
                // A network of this node only can never carry a service, except the predefined ones.
                let local = state.engine.inspect_network(&attachment.target).await;
                return Err(match local {
                    Ok(_) => ApiError::new(
                        StatusCode::FORBIDDEN,
                        format!(
                            "The network {} cannot be used with services. Only networks scoped to the swarm can be \
                             used, such as those created with the overlay driver.",
                            attachment.target
                        ),
                    ),
                    Err(_) => error,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_update_keeps_the_credentials_it_does_not_bring() {
        let with = |auth: &str| p::ServiceSpec {
            task: Some(p::TaskSpec {
                runtime: Some(task_spec::Runtime::Container(p::ContainerSpec {
                    pull_options: Some(container_spec::PullOptions {
                        registry_auth: auth.to_owned(),
                    }),
                    ..Default::default()
                })),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut service = p::Service {
            spec: Some(with("new")),
            ..Default::default()
        };
        assert_eq!(
            kept_auth(&service, false).unwrap().unwrap().registry_auth,
            "new"
        );
        assert_eq!(
            kept_auth(&service, true).unwrap_err().message,
            "service does not have a previous spec"
        );
        service.previous_spec = Some(with("old"));
        assert_eq!(
            kept_auth(&service, true).unwrap().unwrap().registry_auth,
            "old"
        );
    }

    #[test]
    fn an_empty_credentials_header_is_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(registry_auth(&headers), None);
        headers.insert("x-registry-auth", HeaderValue::from_static(""));
        assert_eq!(registry_auth(&headers), None);
        headers.insert("x-registry-auth", HeaderValue::from_static("e30="));
        assert_eq!(registry_auth(&headers).as_deref(), Some("e30="));
    }
}
