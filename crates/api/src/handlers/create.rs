//! `POST /containers/create`: the body's checks and what older API versions meant by it.

use bollard_stubs::models as m;
use http::StatusCode;
use serde_json::Value;
use skep_engine::CreateRequest;

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::gojson::{self, ReadError};
use crate::reply;
use crate::state::ApiState;
use crate::version::ApiVersion;

pub(crate) async fn create(mut call: Call<ApiState>) -> ApiResult {
    let text = call.json_text().await?.unwrap_or_default();
    let (body, mut warnings) = read_body(&text, call.version)?;
    let platform = if call.version.at_least(41) {
        call.query.some("platform")
    } else {
        None
    };
    let request = CreateRequest::from_body(body, platform);
    let mut created = call
        .state
        .engine
        .create_container(call.query.some("name"), request)
        .await?;
    created.warnings.append(&mut warnings);
    Ok(reply::json_with(StatusCode::CREATED, &created))
}

/// Reads the body and brings it to what the newest API version would say.
fn read_body(text: &[u8], version: ApiVersion) -> ApiResult<(m::ContainerCreateBody, Vec<String>)> {
    let raw: Value = gojson::from_slice(text).map_err(bad_json)?;
    if !has_config(&raw) {
        return Err(ApiError::invalid(
            "config cannot be empty in order to create a container",
        ));
    }
    check_words(&raw)?;
    let mac = raw
        .get("MacAddress")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let mut body: m::ContainerCreateBody = gojson::from_value(raw).map_err(bad_json)?;
    let mut warnings = Vec::new();
    if body
        .host_config
        .as_ref()
        .is_some_and(|host| host.network_mode.as_deref().is_none_or(str::is_empty))
    {
        // An empty mode is the default one.
        body.host_config.get_or_insert_default().network_mode = None;
    }
    default_network(&mut body);
    adapt_to_version(&mut body, version)?;
    endpoint_mac(&mut body, version, mac, &mut warnings)?;
    empty_port_bindings(&mut body, version, &mut warnings);
    let host = body.host_config.get_or_insert_default();
    host.pids_limit = host.pids_limit.filter(|limit| *limit > 0);
    Ok((body, warnings))
}

fn bad_json(error: ReadError) -> ApiError {
    ApiError::invalid(match error {
        ReadError::Empty => "invalid JSON: got EOF while reading request body".to_owned(),
        ReadError::Trailing => error.to_string(),
        other => format!("invalid JSON: {other}"),
    })
}

/// Whether anything beside the host's and the network's part is there, as Go's embedded pointer
/// is only set then.
fn has_config(raw: &Value) -> bool {
    raw.as_object().is_some_and(|map| {
        map.keys().any(|key| {
            !key.eq_ignore_ascii_case("HostConfig") && !key.eq_ignore_ascii_case("NetworkingConfig")
        })
    })
}

/// Words that our types do not know would fail as bad JSON; Docker names them better.
fn check_words(raw: &Value) -> ApiResult<()> {
    let Some(host) = raw.get("HostConfig") else {
        return Ok(());
    };
    let word = |pointer: &str| {
        host.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let policy = word("/RestartPolicy/Name");
    if !matches!(
        policy,
        "" | "no" | "always" | "on-failure" | "unless-stopped"
    ) {
        return Err(ApiError::invalid(format!(
            "invalid restart policy: unknown policy '{policy}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )));
    }
    let cgroup = word("/CgroupnsMode");
    if !matches!(cgroup, "" | "private" | "host") {
        return Err(ApiError::invalid(format!(
            "invalid cgroup namespace mode: {cgroup}"
        )));
    }
    let isolation = word("/Isolation");
    if !matches!(isolation, "" | "default") {
        return Err(ApiError::invalid(format!(
            "invalid isolation ({isolation}): linux does not support {isolation} isolation"
        )));
    }
    for mount in host
        .get("Mounts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let kind = mount
            .get("Type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !matches!(
            kind,
            "bind" | "volume" | "tmpfs" | "npipe" | "cluster" | "image"
        ) {
            return Err(ApiError::invalid(format!(
                "invalid mount config for type {kind:?}: mount type unknown"
            )));
        }
    }
    Ok(())
}

/// "default" is the word for the platform's default network; here it is `bridge`.
fn default_network(body: &mut m::ContainerCreateBody) {
    let host = body.host_config.get_or_insert_default();
    if host
        .network_mode
        .as_deref()
        .is_some_and(|mode| mode != "default")
    {
        return;
    }
    host.network_mode = Some("bridge".to_owned());
    if let Some(endpoints) = body
        .networking_config
        .as_mut()
        .and_then(|config| config.endpoints_config.as_mut())
        && let Some(endpoint) = endpoints.remove("default")
    {
        endpoints.insert("bridge".to_owned(), endpoint);
    }
}

/// Takes out what the client's version did not have, and refuses what it did not allow.
fn adapt_to_version(body: &mut m::ContainerCreateBody, version: ApiVersion) -> ApiResult<()> {
    let host = body.host_config.get_or_insert_default();
    if version.before(40) && host.ipc_mode.as_deref().is_none_or(str::is_empty) {
        host.ipc_mode = Some("shareable".to_owned());
    }
    if version.before(42) {
        host.console_size = None;
    }
    if version.before(43) {
        host.annotations = None;
    }
    if version.before(44)
        && let Some(health) = body.healthcheck.as_mut()
    {
        health.start_interval = None;
    }
    for mount in host.mounts.iter_mut().flatten() {
        adapt_mount(mount, version)?;
    }
    let endpoints = body
        .networking_config
        .as_mut()
        .and_then(|config| config.endpoints_config.as_mut());
    if let Some(endpoints) = endpoints {
        if version.before(44) && endpoints.len() > 1 {
            let mut names: Vec<_> = endpoints.keys().map(String::as_str).collect();
            names.sort_unstable();
            return Err(ApiError::invalid(format!(
                "Container cannot be created with multiple network endpoints: {}",
                names.join(", ")
            )));
        }
        if version.before(48) {
            for endpoint in endpoints.values_mut() {
                endpoint.gw_priority = None;
            }
        }
    }
    Ok(())
}

fn adapt_mount(mount: &mut m::Mount, version: ApiVersion) -> ApiResult<()> {
    use m::MountType::{BIND, IMAGE, TMPFS, VOLUME};
    let kind = mount.typ;
    if version.before(42) {
        if let Some(bind) = mount.bind_options.as_mut() {
            bind.create_mountpoint = None;
        }
        if kind != Some(VOLUME) {
            mount.volume_options = None;
        }
        if kind != Some(TMPFS) {
            mount.tmpfs_options = None;
        }
    } else {
        let name = kind.map(|kind| kind.to_string()).unwrap_or_default();
        for (given, wanted, option) in [
            (mount.volume_options.is_some(), VOLUME, "VolumeOptions"),
            (mount.bind_options.is_some(), BIND, "BindOptions"),
            (mount.tmpfs_options.is_some(), TMPFS, "TmpfsOptions"),
        ] {
            if given && kind != Some(wanted) {
                return Err(ApiError::invalid(format!(
                    "{option} must not be specified on mount type {name:?}"
                )));
            }
        }
    }
    if version.before(44)
        && mount
            .bind_options
            .as_ref()
            .is_some_and(|bind| bind.read_only_force_recursive == Some(true))
    {
        return Err(ApiError::invalid(
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ));
    }
    let subpath = mount
        .volume_options
        .as_ref()
        .and_then(|options| options.subpath.as_deref());
    if version.before(45) && subpath.is_some_and(|path| !path.is_empty()) {
        return Err(ApiError::invalid(
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ));
    }
    if version.before(48) && kind == Some(IMAGE) {
        return Err(ApiError::invalid(
            "Mount type \"Image\" needs API v1.48 or newer",
        ));
    }
    Ok(())
}

/// Before 1.44 the address was the container's; since then it is the endpoint's.
fn endpoint_mac(
    body: &mut m::ContainerCreateBody,
    version: ApiVersion,
    mac: String,
    warnings: &mut Vec<String>,
) -> ApiResult<()> {
    let mode = body
        .host_config
        .as_ref()
        .and_then(|host| host.network_mode.clone())
        .unwrap_or_default();
    let private = !matches!(mode.as_str(), "host" | "none") && !mode.starts_with("container:");
    if mac.is_empty() {
        if version.before(44) {
            let endpoints = body
                .networking_config
                .as_mut()
                .and_then(|config| config.endpoints_config.as_mut());
            endpoints
                .into_iter()
                .flat_map(|map| map.values_mut())
                .for_each(|endpoint| endpoint.mac_address = None);
        }
        return Ok(());
    }
    if version.at_least(52) {
        // Unknown to this version, as any other unknown field.
        return Ok(());
    }
    if version.before(44) && !private {
        return Err(ApiError::invalid(
            "conflicting options: mac-address and the network mode",
        ));
    }
    if private {
        let endpoints = body
            .networking_config
            .get_or_insert_default()
            .endpoints_config
            .get_or_insert_default();
        let key = if version.before(44) {
            endpoints.keys().next().cloned().unwrap_or(mode)
        } else {
            mode
        };
        if !endpoints.is_empty() && !endpoints.contains_key(&key) {
            return Err(ApiError::invalid(
                "unable to migrate container-wide MAC address to a specific network: \
                 HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
            ));
        }
        let endpoint = endpoints.entry(key).or_default();
        match endpoint.mac_address.as_deref() {
            Some(own) if version.at_least(44) && !own.is_empty() && own != mac => {
                return Err(ApiError::invalid(
                    "the container-wide MAC address must match the endpoint-specific MAC address for the \
                     main network, or be left empty",
                ));
            }
            _ => endpoint.mac_address = Some(mac),
        }
    }
    if version.at_least(44) {
        warnings.push(
            "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
                .to_owned(),
        );
    }
    Ok(())
}

/// A port with an empty list of bindings is published on any host port.
fn empty_port_bindings(
    body: &mut m::ContainerCreateBody,
    version: ApiVersion,
    warnings: &mut Vec<String>,
) {
    let Some(ports) = body
        .host_config
        .as_mut()
        .and_then(|host| host.port_bindings.as_mut())
    else {
        return;
    };
    let mut empty = Vec::new();
    for (port, bindings) in ports {
        if bindings.as_ref().is_none_or(Vec::is_empty) {
            *bindings = Some(vec![m::PortBinding::default()]);
            empty.push(port.clone());
        }
    }
    if version.at_least(52) && !empty.is_empty() {
        empty.sort_unstable();
        warnings.push(format!(
            "Following container port(s) have an empty list of port-bindings: {}. Such bindings will be discarded \
             in a future version.",
            empty.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests;
