//! The daemon as a whole: ping, version, info, events, disk usage.

use axum::response::Response;
use bollard_stubs::models as m;
use futures::StreamExt;
use futures::future::ready;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::handlers::lines::Lines;
use crate::shape::{self, shaped};
use crate::state::ApiState;
use crate::version::ApiVersion;
use crate::{reply, timestamp};

pub(crate) async fn ping(call: Call<ApiState>) -> ApiResult {
    let mut response = reply::text(
        StatusCode::OK,
        if call.method == Method::HEAD {
            ""
        } else {
            "OK"
        },
    );
    let headers = response.headers_mut();
    headers.insert(
        "cache-control",
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert("pragma", HeaderValue::from_static("no-cache"));
    // There is no BuildKit here: clients fall back to `POST /build`, which says what to do.
    headers.insert("builder-version", HeaderValue::from_static("1"));
    let swarm = call.state.cluster.status();
    headers.insert(
        "swarm",
        HeaderValue::from_str(&swarm).expect("states are plain words"),
    );
    Ok(response)
}

pub(crate) async fn version(call: Call<ApiState>) -> ApiResult {
    let version = call.state.engine.version().await?;
    Ok(reply::json(&shaped(&version, shape::VERSION)))
}

pub(crate) async fn info(call: Call<ApiState>) -> ApiResult {
    let found = call.state.engine.info().await?;
    let mut info = shaped(&found, shape::INFO);
    info["Swarm"] = shaped(&call.state.cluster.info(), shape::SWARM_INFO);
    adapt_info(&mut info, call.version);
    Ok(reply::json(&info))
}

fn adapt_info(info: &mut Value, version: ApiVersion) {
    let Some(fields) = info.as_object_mut() else {
        return;
    };
    if version.before(53) {
        fields.shift_remove("NRI");
    }
    if version.before(50) {
        fields.shift_remove("DiscoveredDevices");
        fields.insert("BridgeNfIptables".to_owned(), json!(false));
        fields.insert("BridgeNfIp6tables".to_owned(), json!(false));
    }
    if version.before(49) {
        fields.shift_remove("FirewallBackend");
        for key in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            let id = fields
                .get(key)
                .and_then(|commit| commit.get("ID"))
                .cloned()
                .unwrap_or_default();
            if let Some(commit) = fields.get_mut(key).and_then(Value::as_object_mut) {
                commit.insert("Expected".to_owned(), id);
            }
        }
    }
    if version.before(46) {
        fields.shift_remove("Containerd");
    }
}

pub(crate) async fn events(call: Call<ApiState>) -> ApiResult {
    let since = timestamp::parameter(&call.query, "since", false)?;
    let until = timestamp::parameter(&call.query, "until", false)?;
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(ApiError::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            call.query.get("since"),
            call.query.get("until")
        )));
    }
    let events = call
        .state
        .engine
        .events()
        .subscribe(since, until, call.filters()?)?;
    let lines = Lines::negotiate(
        &call.headers,
        Lines::default_type(call.version.at_least(52)),
    );
    let version = call.version;
    let body = events
        .filter(move |event| ready(is_known(event, version)))
        .map(move |event| lines.encode(&event_value(&event, version)))
        .take_until(call.shutdown());
    Ok(reply::stream(lines.media_type, body))
}

/// Image creations are told since API 1.46.
fn is_known(event: &m::EventMessage, version: ApiVersion) -> bool {
    let image = event.typ == Some(m::EventMessageTypeEnum::IMAGE);
    version.at_least(46) || !(image && event.action.as_deref() == Some("create"))
}

/// Before API 1.52 containers' and images' events had their first form too.
fn event_value(event: &m::EventMessage, version: ApiVersion) -> Value {
    let mut value = serde_json::to_value(event).expect("events are plain");
    let kind = event.typ.filter(|_| version.before(52));
    let actor = event.actor.clone().unwrap_or_default();
    if let (
        Some(m::EventMessageTypeEnum::CONTAINER | m::EventMessageTypeEnum::IMAGE),
        Some(fields),
    ) = (kind, value.as_object_mut())
    {
        fields.insert("status".to_owned(), json!(event.action));
        fields.insert("id".to_owned(), json!(actor.id));
        if kind == Some(m::EventMessageTypeEnum::CONTAINER) {
            let image = actor
                .attributes
                .as_ref()
                .and_then(|attributes| attributes.get("image"));
            fields.insert("from".to_owned(), json!(image));
        }
    }
    shape::apply(value, shape::EVENT)
}

pub(crate) async fn disk_usage(call: Call<ApiState>) -> ApiResult {
    super::usage::answer(call).await
}

/// There is no plugin: the list is empty, and that is the truth.
pub(crate) async fn plugins(_: Call<ApiState>) -> ApiResult<Response> {
    Ok(reply::json(&json!([])))
}

/// For the same reason none is ever found; `docker inspect` asks for plugins last.
pub(crate) async fn no_plugin(call: Call<ApiState>) -> ApiResult {
    Err(ApiError::not_found(format!(
        "plugin {:?} not found",
        call.param("name")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: m::EventMessageTypeEnum) -> m::EventMessage {
        let attributes = [("image".to_owned(), "busybox".to_owned())].into();
        m::EventMessage {
            typ: Some(kind),
            action: Some("start".to_owned()),
            actor: Some(m::EventActor {
                id: Some("ab".to_owned()),
                attributes: Some(attributes),
            }),
            time: Some(1),
            ..m::EventMessage::default()
        }
    }

    #[test]
    fn old_clients_get_an_events_first_form_too() {
        let container = event(m::EventMessageTypeEnum::CONTAINER);
        let old = event_value(&container, ApiVersion::new(1, 41));
        assert_eq!(
            (&old["status"], &old["id"], &old["from"]),
            (&json!("start"), &json!("ab"), &json!("busybox"))
        );
        let new = event_value(&container, ApiVersion::new(1, 52));
        assert_eq!(
            (new.get("status"), new.get("id"), &new["Action"]),
            (None, None, &json!("start"))
        );
        let network = event_value(
            &event(m::EventMessageTypeEnum::NETWORK),
            ApiVersion::new(1, 41),
        );
        assert_eq!(network.get("status"), None);
    }

    #[test]
    fn info_has_the_fields_that_old_clients_read() {
        let mut info = shaped(&m::SystemInfo::default(), shape::INFO);
        adapt_info(&mut info, ApiVersion::new(1, 41));
        assert_eq!(info.pointer("/RuncCommit/Expected"), Some(&json!("")));
        assert_eq!(info.pointer("/BridgeNfIptables"), Some(&json!(false)));
    }
}
