//! `docker build`, by the classic builder's API.

use std::collections::BTreeMap;

use bollard_stubs::models as m;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::json;
use skep_build::{BuildError, BuildOptions, Message};
use skep_engine::{Credentials, EngineError};

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::state::ApiState;
use crate::{gojson, reply};

pub(crate) async fn build(mut call: Call<ApiState>) -> ApiResult {
    refuse_unsupported(&call)?;
    let options = options(&call)?;
    let quiet = call.query.bool("q");
    let images = call.version.at_least(30);
    let body = call.byte_stream();
    let engine = call.state.engine.clone();
    let prepared = skep_build::prepare(engine, options, body)
        .await
        .map_err(to_engine)?;
    let messages = prepared.run();
    if quiet {
        return quietly(messages).await;
    }
    let wanted = move |message: &Result<Message, BuildError>| {
        images || !matches!(message, Ok(Message::Image(_)))
    };
    let lines = messages
        .filter(move |message| futures::future::ready(wanted(message)))
        .map(line);
    Ok(reply::stream(reply::JSON, lines))
}

/// There is no build cache beside the images, which have a prune of their own.
pub(crate) async fn prune(_call: Call<ApiState>) -> ApiResult {
    Ok(reply::json(
        &json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }),
    ))
}

/// With `-q` only the image's id is told; what was printed before, only if the build fails.
async fn quietly(
    messages: futures::stream::BoxStream<'static, Result<Message, BuildError>>,
) -> ApiResult {
    let mut lines = Vec::new();
    let mut image = None;
    let mut messages = messages;
    loop {
        match messages.try_next().await {
            Ok(Some(Message::Image(id))) => image = Some(id),
            Ok(Some(message)) => lines.push(line(Ok(message))),
            Ok(None) => break,
            Err(error) => {
                lines.push(line(Err(error)));
                return Ok(reply::stream(reply::JSON, futures::stream::iter(lines)));
            }
        }
    }
    let id = image.unwrap_or_default();
    let only = line(Ok(Message::Stream(format!("{id}\n"))));
    Ok(reply::stream(reply::JSON, futures::stream::iter([only])))
}

fn line(message: Result<Message, BuildError>) -> Bytes {
    let value = match message {
        Ok(message) => message.to_json(),
        Err(BuildError::Command { code, message }) => {
            json!({ "errorDetail": { "code": code, "message": message }, "error": message })
        }
        Err(BuildError::Other(error)) => {
            json!({ "errorDetail": { "message": error.message }, "error": error.message })
        }
    };
    format!("{value}\r\n").into()
}

fn to_engine(error: BuildError) -> EngineError {
    EngineError::new(error.kind(), error.message())
}

fn refuse_unsupported(call: &Call<ApiState>) -> ApiResult<()> {
    let query = &call.query;
    match query.get("version") {
        "" | "1" => {}
        "2" => {
            return Err(ApiError::not_implemented(
                "skep: there is no BuildKit in this daemon: build with DOCKER_BUILDKIT=0, or with buildx and its docker-container driver",
            ));
        }
        other => return Err(ApiError::invalid(format!("invalid version {other:?}"))),
    }
    if query.bool("squash") {
        return Err(ApiError::invalid(
            "squash is only supported with experimental mode",
        ));
    }
    if !query.all("securityopt").is_empty() {
        return Err(ApiError::invalid(
            "security options are not supported on linux",
        ));
    }
    let remote = query.get("remote");
    if remote == "client-session" {
        return Err(ApiError::invalid(
            "experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead",
        ));
    }
    if !remote.is_empty() {
        return Err(ApiError::not_implemented(format!(
            "skep: fetching the context {remote} is not implemented yet: send it as a tar"
        )));
    }
    if !matches!(query.get("outputs"), "" | "[]" | "null") {
        return Err(ApiError::invalid("outputs requires BuildKit"));
    }
    Ok(())
}

fn options(call: &Call<ApiState>) -> ApiResult<BuildOptions> {
    let query = &call.query;
    let force_remove = query.bool("forcerm");
    Ok(BuildOptions {
        dockerfile: query.get("dockerfile").to_owned(),
        tags: query
            .all("t")
            .into_iter()
            .filter(|tag| !tag.is_empty())
            .collect(),
        no_cache: query.bool("nocache"),
        cache_from: decoded(call, "cachefrom", "cache-from")?.unwrap_or_default(),
        remove: force_remove || query.bool_or("rm", true),
        force_remove,
        args: decoded::<Option<BTreeMap<_, _>>>(call, "buildargs", "build args")?
            .flatten()
            .unwrap_or_default(),
        labels: decoded::<Option<BTreeMap<_, _>>>(call, "labels", "labels")?
            .flatten()
            .unwrap_or_default(),
        target: query.get("target").to_owned(),
        pull: query.bool("pull"),
        credentials: credentials(&call.headers),
        platform: query.some("platform").filter(|_| call.version.at_least(32)),
        host: host(call)?,
    })
}

/// `X-Registry-Config`: credentials by registry. Nonsense is nobody, as with dockerd.
fn credentials(headers: &HeaderMap) -> BTreeMap<String, Credentials> {
    let header = headers.get("x-registry-config");
    header
        .and_then(|value| value.to_str().ok())
        .map(Credentials::by_host)
        .unwrap_or_default()
}

fn decoded<T: DeserializeOwned>(
    call: &Call<ApiState>,
    key: &str,
    what: &str,
) -> ApiResult<Option<T>> {
    let Some(text) = call.query.some(key) else {
        return Ok(None);
    };
    gojson::from_slice(text.as_bytes())
        .map(Some)
        .map_err(|error| ApiError::invalid(format!("error reading {what}: {error}")))
}

/// Limits and network of the steps' containers.
fn host(call: &Call<ApiState>) -> ApiResult<m::HostConfig> {
    let query = &call.query;
    let number = |key: &str| -> ApiResult<Option<i64>> {
        let Some(text) = query.some(key) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(0) => Ok(None),
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(ApiError::invalid(format!(
                "strconv.ParseInt: parsing {text:?}: invalid syntax"
            ))),
        }
    };
    let network = query.some("networkmode").filter(|mode| mode != "default");
    Ok(m::HostConfig {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: query.some("cpusetcpus"),
        cpuset_mems: query.some("cpusetmems"),
        cgroup_parent: query.some("cgroupparent"),
        shm_size: number("shmsize")?,
        ulimits: decoded::<Vec<m::ResourcesUlimits>>(call, "ulimits", "ulimit settings")?,
        network_mode: network,
        extra_hosts: Some(query.all("extrahosts")).filter(|hosts| !hosts.is_empty()),
        ..m::HostConfig::default()
    })
}
