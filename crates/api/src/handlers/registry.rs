//! What reaches for a registry: pull, push, login, search, distribution.

use futures::StreamExt;
use http::HeaderMap;
use serde_json::json;
use skep_engine::{
    AnyReference, Credentials, EngineError, Platform, PullOptions, PushOptions, Reference,
};

use super::images::status_or_progress;
use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::reply;
use crate::state::ApiState;

/// Who the client says it is. Nonsense is nobody, as with dockerd.
fn credentials(headers: &HeaderMap) -> Credentials {
    headers
        .get("x-registry-auth")
        .and_then(|value| value.to_str().ok())
        .map(Credentials::from_header)
        .unwrap_or_default()
}

/// `POST /images/create` with `fromImage`.
pub(crate) async fn pull(call: Call<ApiState>) -> ApiResult {
    let platform = call
        .query
        .some("platform")
        .filter(|_| call.version.at_least(32))
        .map(|text| Platform::parse(&text))
        .transpose()
        .map_err(EngineError::from)?;
    let reference =
        skep_engine::pull_reference(call.query.get("fromImage"), call.query.get("tag"))?;
    let options = PullOptions {
        reference,
        platform,
        credentials: credentials(&call.headers),
    };
    let progress = call.state.engine.pull_image(options).await?;
    status_or_progress(progress.take_until(call.shutdown()).boxed()).await
}

pub(crate) async fn push(call: Call<ApiState>) -> ApiResult {
    if call.version.at_least(46) && call.query.some("platform").is_some() {
        return Err(ApiError::not_implemented(
            "skep: an image is kept for one platform only: push it without --platform",
        ));
    }
    let tag = call.query.get("tag");
    let options = PushOptions {
        reference: skep_engine::pull_reference(call.param("name"), tag)?,
        credentials: credentials(&call.headers),
    };
    let progress = call.state.engine.push_image(options).await?;
    status_or_progress(progress.take_until(call.shutdown()).boxed()).await
}

pub(crate) async fn auth(mut call: Call<ApiState>) -> ApiResult {
    let body = call.json_text().await?.unwrap_or_default();
    let credentials = Credentials::from_json(&body)
        .ok_or_else(|| ApiError::invalid("invalid auth config: not a JSON object"))?;
    let token = call.state.engine.login(&credentials).await?;
    Ok(reply::json(
        &json!({ "Status": "Login Succeeded", "IdentityToken": token }),
    ))
}

pub(crate) async fn search(call: Call<ApiState>) -> ApiResult {
    let limit = call.query.int("limit")?.unwrap_or(0);
    let found = call
        .state
        .engine
        .search_images(
            call.query.get("term"),
            limit,
            &call.filters()?,
            &credentials(&call.headers),
        )
        .await?;
    Ok(reply::json(&found))
}

pub(crate) async fn distribution(call: Call<ApiState>) -> ApiResult {
    let name = call.param("name");
    let reference: Reference = match AnyReference::parse(name) {
        Ok(AnyReference::Named(reference)) => reference,
        Ok(AnyReference::Digest(_)) => {
            return Err(ApiError::internal("no manifest found for full image ID"));
        }
        Err(error) => return Err(ApiError::invalid(error.to_string())),
    };
    let found = call
        .state
        .engine
        .inspect_distribution(&reference, &credentials(&call.headers))
        .await?;
    Ok(reply::json(&found))
}
