//! Containers' lives: list, inspect, start, stop, wait, update, remove.

use bollard_stubs::models as m;
use futures::FutureExt;
use http::StatusCode;
use serde_json::{Value, json};
use skep_engine::{ListOptions, RemoveOptions, StopOptions, WaitCondition};

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::reply;
use crate::shape::{self, shaped, shaped_all};
use crate::state::ApiState;
use crate::version::ApiVersion;

pub(crate) async fn list(call: Call<ApiState>) -> ApiResult {
    let filters = call.filters()?;
    // A negative limit (the CLI's default) is none.
    let limit = call
        .query
        .int("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(0);
    let options = ListOptions {
        all: call.query.bool("all"),
        limit,
        size: call.query.bool("size"),
        filters,
    };
    let containers = call.state.engine.list_containers(options).await?;
    let mut list = shaped_all(&containers, shape::CONTAINER_SUMMARY);
    for container in &mut list {
        adapt_summary(container, call.version);
    }
    Ok(reply::json(&list))
}

fn adapt_summary(container: &mut Value, version: ApiVersion) {
    let Some(fields) = container.as_object_mut() else {
        return;
    };
    if version.before(52) {
        fields.shift_remove("Health");
    }
    if version.before(48) {
        fields.shift_remove("ImageManifestDescriptor");
    }
    if version.before(46)
        && let Some(host) = fields.get_mut("HostConfig").and_then(Value::as_object_mut)
    {
        host.shift_remove("Annotations");
    }
}

pub(crate) async fn inspect(call: Call<ApiState>) -> ApiResult {
    let found = call
        .state
        .engine
        .inspect_container(call.param("name"), call.query.bool("size"))
        .await?;
    let mut container = shaped(&found, shape::CONTAINER);
    if call.version.before(52) {
        add_legacy_network_settings(&mut container);
    }
    Ok(reply::json(&container))
}

/// Before API 1.52 the default bridge's endpoint was repeated beside the list of networks.
fn add_legacy_network_settings(container: &mut Value) {
    let Some(settings) = container.get_mut("NetworkSettings") else {
        return;
    };
    let mut legacy = settings.take();
    let bridge = legacy.pointer("/Networks/bridge").cloned();
    if let (Some(fields), Some(Value::Object(bridge))) = (legacy.as_object_mut(), bridge) {
        for key in [
            "EndpointID",
            "Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "MacAddress",
        ] {
            fields.insert(key.to_owned(), bridge.get(key).cloned().unwrap_or_default());
        }
    }
    *settings = shape::apply(legacy, shape::LEGACY_NETWORK_SETTINGS);
}

pub(crate) async fn start(call: Call<ApiState>) -> ApiResult {
    if call.content_length().is_none_or(|length| length > 7) {
        return Err(ApiError::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if call.query.some("checkpoint").is_some() {
        return Err(ApiError::not_implemented(
            "skep: starting from a checkpoint is not implemented yet",
        ));
    }
    call.state
        .engine
        .start_container(call.param("name"))
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn stop_options(call: &Call<ApiState>) -> ApiResult<StopOptions> {
    let signal = if call.version.at_least(42) {
        call.query.some("signal")
    } else {
        None
    };
    Ok(StopOptions {
        signal,
        timeout: call.query.int("t")?,
    })
}

pub(crate) async fn stop(call: Call<ApiState>) -> ApiResult {
    let options = stop_options(&call)?;
    call.state
        .engine
        .stop_container(call.param("name"), options)
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn restart(call: Call<ApiState>) -> ApiResult {
    let options = stop_options(&call)?;
    call.state
        .engine
        .restart_container(call.param("name"), options)
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn kill(call: Call<ApiState>) -> ApiResult {
    let name = call.param("name");
    let signal = call.query.some("signal");
    call.state
        .engine
        .kill_container(name, signal.as_deref())
        .await
        .map_err(|error| {
            ApiError::from(error).context(format_args!("cannot kill container: {name}"))
        })?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn pause(call: Call<ApiState>) -> ApiResult {
    call.state
        .engine
        .pause_container(call.param("name"))
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn unpause(call: Call<ApiState>) -> ApiResult {
    call.state
        .engine
        .unpause_container(call.param("name"))
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn rename(call: Call<ApiState>) -> ApiResult {
    call.state
        .engine
        .rename_container(call.param("name"), call.query.get("name"))
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn remove(call: Call<ApiState>) -> ApiResult {
    let options = RemoveOptions {
        force: call.query.bool("force"),
        volumes: call.query.bool("v"),
        link: call.query.bool("link"),
    };
    call.state
        .engine
        .remove_container(call.param("name"), options)
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn wait(call: Call<ApiState>) -> ApiResult {
    let condition = match call.query.get("condition") {
        _ if call.version.before(30) => WaitCondition::NotRunning,
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
    };
    let exit = call
        .state
        .engine
        .wait_container(call.param("name"), condition)
        .await?;
    let answer = exit.map(|result| {
        let result = result.unwrap_or_else(|error| m::ContainerWaitResponse {
            status_code: -1,
            error: Some(m::ContainerWaitExitError {
                message: Some(error.message),
            }),
        });
        reply::json_line(&shaped(&result, shape::WAIT))
    });
    if call.version.before(30) {
        let mut response = axum::response::Response::new(axum::body::Body::from(answer.await));
        reply::content_type(&mut response, reply::JSON);
        return Ok(response);
    }
    // The head goes out now: `docker run` starts the container only after it has seen it.
    Ok(reply::stream(reply::JSON, answer.into_stream()))
}

pub(crate) async fn top(call: Call<ApiState>) -> ApiResult {
    let processes = call
        .state
        .engine
        .top_container(call.param("name"), call.query.get("ps_args"))
        .await?;
    Ok(reply::json(&shaped(&processes, shape::TOP)))
}

pub(crate) async fn changes(call: Call<ApiState>) -> ApiResult {
    let changes = call
        .state
        .engine
        .changes_container(call.param("name"))
        .await?;
    // Go's nil slice.
    Ok(if changes.is_empty() {
        reply::json(&Value::Null)
    } else {
        reply::json(&changes)
    })
}

pub(crate) async fn update(mut call: Call<ApiState>) -> ApiResult {
    let mut update: m::ContainerUpdateBody = call.json().await?;
    if call.version.before(40) {
        update.pids_limit = None;
    }
    if update.pids_limit.is_some_and(|limit| limit <= 0) {
        update.pids_limit = Some(0);
    }
    let answer = call
        .state
        .engine
        .update_container(call.param("name"), update)
        .await?;
    Ok(reply::json(&shaped(&answer, shape::WARNINGS)))
}

pub(crate) async fn prune(call: Call<ApiState>) -> ApiResult {
    let report = call.state.engine.prune_containers(call.filters()?).await?;
    Ok(reply::json(&shaped(&report, shape::CONTAINER_PRUNE)))
}

pub(crate) async fn resize(call: Call<ApiState>) -> ApiResult {
    let (height, width) = size(&call)?;
    call.state
        .engine
        .resize_container(call.param("name"), height, width)
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

/// A terminal's height and width.
pub(crate) fn size(call: &Call<ApiState>) -> ApiResult<(u16, u16)> {
    let side = |key: &str, name: &str| {
        let number = call
            .query
            .uint32(key)
            .and_then(|n| u16::try_from(n).map_err(|_| "value out of range"));
        number.map_err(|reason| {
            ApiError::invalid(format!(
                "invalid resize {name} {:?}: {reason}",
                call.query.get(key)
            ))
        })
    };
    Ok((side("h", "height")?, side("w", "width")?))
}

pub(crate) async fn commit(mut call: Call<ApiState>) -> ApiResult {
    let config = match call.json_text().await? {
        Some(text) => {
            let config: Option<m::ContainerConfig> = crate::gojson::from_slice(&text)
                .map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))?;
            config
        }
        None => None,
    };
    let query = &call.query;
    let options = skep_engine::CommitOptions {
        container: query.get("container").to_owned(),
        repo: query.some("repo"),
        tag: query.some("tag"),
        comment: query.get("comment").to_owned(),
        author: query.get("author").to_owned(),
        pause: query.bool_or("pause", true),
        changes: query.all("changes"),
        config,
    };
    let id = call.state.engine.commit_container(options).await?;
    Ok(reply::json_with(StatusCode::CREATED, &json!({ "Id": id })))
}
