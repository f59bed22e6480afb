//! `/swarm`: making one, joining, leaving, locking, its settings.

use bollard_stubs::models as m;
use http::StatusCode;
use serde_json::json;
use skep_swarm::{InitRequest, JoinRequest, UpdateFlags};

use super::types::UnlockRequest;
use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::reply;
use crate::shape::{self, shaped};
use crate::state::ApiState;

pub(crate) async fn init(mut call: Call<ApiState>) -> ApiResult {
    let mut request: InitRequest = call.json().await?;
    if call.version.before(39) {
        request.default_addr_pool = None;
        request.subnet_size = None;
    }
    if call.version.before(40) {
        request.data_path_port = None;
    }
    let id = call.state.cluster.init(request).await?;
    Ok(reply::json(&id.to_string()))
}

pub(crate) async fn join(mut call: Call<ApiState>) -> ApiResult {
    let request: JoinRequest = call.json().await?;
    call.state.cluster.join(request).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn leave(call: Call<ApiState>) -> ApiResult {
    call.state.cluster.leave(call.query.bool("force")).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn inspect(call: Call<ApiState>) -> ApiResult {
    let swarm = call.state.cluster.inspect()?;
    Ok(reply::json(&shaped(&swarm, shape::SWARM)))
}

pub(crate) async fn update(mut call: Call<ApiState>) -> ApiResult {
    let spec: m::SwarmSpec = call.json().await?;
    let version = call.query.object_version().map_err(|reason| {
        ApiError::invalid(format!(
            "invalid swarm version '{}': {reason}",
            call.query.get("version")
        ))
    })?;
    let flag = |key: &str| {
        call.query
            .strict_bool(key)
            .map_err(|value| ApiError::invalid(format!("invalid value for {key}: {value}")))
    };
    let flags = UpdateFlags {
        rotate_worker_token: flag("rotateWorkerToken")?,
        rotate_manager_token: flag("rotateManagerToken")?,
        rotate_manager_unlock_key: flag("rotateManagerUnlockKey")?,
    };
    call.state.cluster.update(version, spec, flags).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn unlock_key(call: Call<ApiState>) -> ApiResult {
    let key = call.state.cluster.unlock_key()?;
    Ok(reply::json(&json!({ "UnlockKey": key })))
}

pub(crate) async fn unlock(mut call: Call<ApiState>) -> ApiResult {
    let request: UnlockRequest = call.json().await?;
    call.state.cluster.unlock(&request.unlock_key).await?;
    Ok(reply::empty(StatusCode::OK))
}
