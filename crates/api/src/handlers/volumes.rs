//! Volumes of the local driver.

use bollard_stubs::models as m;
use http::StatusCode;

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::reply;
use crate::shape::{self, shaped};
use crate::state::ApiState;

pub(crate) async fn list(call: Call<ApiState>) -> ApiResult {
    let filters = call
        .filters()
        .map_err(|error| error.context("error reading volume filters"))?;
    let volumes = call.state.engine.list_volumes(filters).await?;
    Ok(reply::json(&shaped(&volumes, shape::VOLUME_LIST)))
}

pub(crate) async fn inspect(call: Call<ApiState>) -> ApiResult {
    let volume = call.state.engine.inspect_volume(call.param("name")).await?;
    Ok(reply::json(&shaped(&volume, shape::VOLUME)))
}

pub(crate) async fn create(mut call: Call<ApiState>) -> ApiResult {
    let request: m::VolumeCreateRequest = call.json().await?;
    if request.cluster_volume_spec.is_some() && call.version.at_least(42) {
        return Err(ApiError::not_implemented(
            "skep: cluster volumes are not implemented yet",
        ));
    }
    let volume = call.state.engine.create_volume(request).await?;
    Ok(reply::json_with(
        StatusCode::CREATED,
        &shaped(&volume, shape::VOLUME),
    ))
}

pub(crate) async fn remove(call: Call<ApiState>) -> ApiResult {
    call.state
        .engine
        .remove_volume(call.param("name"), call.query.bool("force"))
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn prune(call: Call<ApiState>) -> ApiResult {
    let mut filters = call.filters()?;
    if call.version.before(42) {
        // Older clients mean named volumes too.
        filters.add("all", "true");
    }
    let report = call.state.engine.prune_volumes(filters).await?;
    Ok(reply::json(&shaped(&report, shape::VOLUME_PRUNE)))
}
