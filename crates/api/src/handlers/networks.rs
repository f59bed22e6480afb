//! Networks, local ones and the swarm's.

use bollard_stubs::models as m;
use http::StatusCode;
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::reply;
use crate::shape::{self, shaped, shaped_all};
use crate::state::ApiState;
use crate::swarm::networks as swarm;

pub(crate) async fn list(call: Call<ApiState>) -> ApiResult {
    let filters = call.filters()?;
    let mut networks = swarm::list(&call.state, &filters);
    let local = call.state.engine.list_networks(filters).await?;
    // A swarm's network that has come down to this node is in both lists.
    let known: Vec<_> = networks.iter().map(|network| network.id.clone()).collect();
    networks.extend(
        local
            .into_iter()
            .filter(|network| !known.contains(&network.id)),
    );
    let mut list = shaped_all(&networks, shape::NETWORK);
    for network in list.iter_mut().filter_map(Value::as_object_mut) {
        // Who is attached is told by inspect only; the empty map was there until 1.52.
        if call.version.before(52) {
            network.insert("Containers".to_owned(), json!({}));
        } else {
            network.shift_remove("Containers");
        }
        network.shift_remove("Status");
    }
    Ok(reply::json(&list))
}

pub(crate) async fn inspect(call: Call<ApiState>) -> ApiResult {
    let term = call.param("id");
    call.query.strict_bool("verbose").map_err(|value| {
        ApiError::invalid(format!(
            "invalid value for verbose: {value}: strconv.ParseBool: parsing {value:?}: invalid syntax"
        ))
    })?;
    let network = find(&call.state, term, call.query.get("scope")).await?;
    let mut network = shaped(&network, shape::NETWORK);
    if call.version.before(52)
        && let Some(fields) = network.as_object_mut()
    {
        fields.shift_remove("Status");
    }
    Ok(reply::json(&network))
}

/// This node's own first, then the swarm's.
async fn find(state: &ApiState, term: &str, scope: &str) -> ApiResult<m::NetworkInspect> {
    let local = match scope {
        "swarm" => Err(ApiError::not_found(format!("network {term} not found"))),
        _ => state
            .engine
            .inspect_network(term)
            .await
            .map_err(ApiError::from),
    };
    match local {
        Err(error) if error.status == StatusCode::NOT_FOUND && matches!(scope, "" | "swarm") => {
            swarm::find(state, term)?.ok_or(error)
        }
        local => local,
    }
}

pub(crate) async fn create(mut call: Call<ApiState>) -> ApiResult {
    let mut request: m::NetworkCreateRequest = call.json().await?;
    if call.version.before(48) {
        request.enable_ipv4 = None;
    }
    if swarm::find(&call.state, &request.name)?
        .is_some_and(|network| network.name.as_ref() == Some(&request.name))
    {
        return Err(ApiError::conflict(format!(
            "network with name {} already exists",
            request.name
        )));
    }
    let created = if swarm::is_swarm_scoped(&request) {
        m::NetworkCreateResponse {
            id: swarm::create(&call.state, &request).await?,
            warning: String::new(),
        }
    } else {
        call.state.engine.create_network(request).await?
    };
    Ok(reply::json_with(StatusCode::CREATED, &created))
}

pub(crate) async fn connect(mut call: Call<ApiState>) -> ApiResult {
    let request: m::NetworkConnectRequest = call.json().await?;
    call.state
        .engine
        .connect_network(call.param("id"), request)
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn disconnect(mut call: Call<ApiState>) -> ApiResult {
    let request: m::NetworkDisconnectRequest = call.json().await?;
    call.state
        .engine
        .disconnect_network(call.param("id"), request)
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn remove(call: Call<ApiState>) -> ApiResult {
    let term = call.param("id");
    let network = find(&call.state, term, "").await?;
    if network.scope.as_deref() == Some("swarm") {
        swarm::remove(&call.state, network.id.as_deref().unwrap_or(term)).await?;
    } else {
        call.state.engine.remove_network(term).await?;
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn prune(call: Call<ApiState>) -> ApiResult {
    let report = call.state.engine.prune_networks(call.filters()?).await?;
    Ok(reply::json(&shaped(&report, shape::NETWORK_PRUNE)))
}
