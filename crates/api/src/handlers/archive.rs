//! `docker cp` and `docker export`.

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use skep_engine::{ByteStream, PathStat, PutArchiveOptions};

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::reply;
use crate::state::ApiState;

const TAR: &str = "application/x-tar";
const STAT: &str = "x-docker-container-path-stat";

fn path(call: &Call<ApiState>) -> ApiResult<String> {
    call.query
        .some("path")
        .ok_or_else(|| ApiError::invalid("bad parameter: path cannot be empty"))
}

fn set_stat(response: &mut Response, stat: &PathStat) -> ApiResult<()> {
    let json = serde_json::to_vec(stat).map_err(|error| ApiError::internal(error.to_string()))?;
    let value = HeaderValue::from_str(&STANDARD.encode(json)).expect("base64 is plain ASCII");
    response.headers_mut().insert(STAT, value);
    Ok(())
}

fn tar(body: ByteStream) -> Response {
    let mut response = Response::new(Body::from_stream(body));
    reply::content_type(&mut response, TAR);
    response
}

pub(crate) async fn stat(call: Call<ApiState>) -> ApiResult {
    let stat = call
        .state
        .engine
        .stat_archive(call.param("name"), &path(&call)?)
        .await?;
    let mut response = reply::empty(StatusCode::OK);
    set_stat(&mut response, &stat)?;
    Ok(response)
}

pub(crate) async fn get(call: Call<ApiState>) -> ApiResult {
    let (stat, body) = call
        .state
        .engine
        .get_archive(call.param("name"), &path(&call)?)
        .await?;
    let mut response = tar(body);
    set_stat(&mut response, &stat)?;
    Ok(response)
}

pub(crate) async fn put(mut call: Call<ApiState>) -> ApiResult {
    let path = path(&call)?;
    let options = PutArchiveOptions {
        no_overwrite_dir_non_dir: call.query.bool("noOverwriteDirNonDir"),
        copy_uid_gid: call.query.bool("copyUIDGID"),
    };
    let body = call.byte_stream();
    call.state
        .engine
        .put_archive(call.param("name"), &path, options, body)
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn export(call: Call<ApiState>) -> ApiResult {
    let body = call
        .state
        .engine
        .export_container(call.param("name"))
        .await?;
    let mut response = Response::new(Body::from_stream(body));
    reply::content_type(&mut response, "application/octet-stream");
    Ok(response)
}
