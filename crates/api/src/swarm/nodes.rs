//! `/nodes`.

use http::StatusCode;
use skep_proto as p;

use super::control::Control;
use super::tasks::own_node;
use super::{convert, filters, lookup, types as t};
use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::reply;
use crate::state::ApiState;

pub(crate) async fn list(call: Call<ApiState>) -> ApiResult {
    let filters = filters::nodes(&call.filters()?)?;
    let control = Control::of(&call.state)?;
    let found = control
        .list_nodes(&p::ListNodesRequest {
            filters: Some(filters),
        })
        .nodes;
    let nodes: Vec<_> = found.iter().map(convert::node).collect();
    Ok(reply::json(&nodes))
}

pub(crate) async fn inspect(call: Call<ApiState>) -> ApiResult {
    let control = Control::of(&call.state)?;
    let node = lookup::node(&control, &own_node(&call.state, call.param("id")))?;
    Ok(reply::json(&convert::node(&node)))
}

pub(crate) async fn update(mut call: Call<ApiState>) -> ApiResult {
    let spec: t::NodeSpec = call.json().await?;
    let version = call.query.object_version().map_err(|reason| {
        ApiError::invalid(format!(
            "invalid node version '{}': {reason}",
            call.query.get("version")
        ))
    })?;
    let control = Control::of(&call.state)?;
    let spec = convert::node_spec_to(&spec).map_err(ApiError::invalid)?;
    let node = lookup::node(&control, &own_node(&call.state, call.param("id")))?;
    let request = p::UpdateNodeRequest {
        node_id: node.id,
        node_version: Some(p::Version { index: version }),
        spec: Some(spec),
    };
    control.update_node(request).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn remove(call: Call<ApiState>) -> ApiResult {
    let control = Control::of(&call.state)?;
    let node = lookup::node(&control, call.param("id"))?;
    let request = p::RemoveNodeRequest {
        node_id: node.id,
        force: call.query.bool("force"),
    };
    control.remove_node(request).await?;
    Ok(reply::empty(StatusCode::OK))
}
