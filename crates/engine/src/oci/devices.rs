//! `--device` and `--device-cgroup-rule`.

use std::path::Path;

use bollard_stubs::models as m;
use skep_runtime::spec::{ContainerSpec, device_at, device_cgroup_rule, host_devices};

use crate::error::{EngineError, Result};

/// Adds the devices of the host that were asked for.
pub(super) fn add(mut spec: ContainerSpec, host: &m::HostConfig) -> Result<ContainerSpec> {
    let privileged = host.privileged == Some(true);
    for mapping in host.devices.iter().flatten() {
        let on_host = mapping.path_on_host.as_deref().unwrap_or_default();
        let inside = mapping
            .path_in_container
            .as_deref()
            .filter(|path| !path.is_empty())
            .unwrap_or(on_host);
        // A privileged container has all devices at their own places already.
        if privileged && inside == on_host {
            continue;
        }
        let permissions = mapping
            .cgroup_permissions
            .as_deref()
            .filter(|text| !text.is_empty())
            .unwrap_or("rwm");
        for (from, to) in expand(on_host, inside) {
            let (device, rule) = device_at(Path::new(&from), Path::new(&to), permissions)
                .map_err(|error| EngineError::system(error.to_string()))?;
            spec = spec.device(device, rule);
        }
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        let rule =
            device_cgroup_rule(rule).map_err(|error| EngineError::system(error.to_string()))?;
        spec = spec.device_rule(rule);
    }
    Ok(spec)
}

/// A directory stands for the devices in it.
fn expand(on_host: &str, inside: &str) -> Vec<(String, String)> {
    if !Path::new(on_host).is_dir() {
        return vec![(on_host.to_owned(), inside.to_owned())];
    }
    let devices = host_devices(Path::new(on_host));
    let paths = devices
        .iter()
        .map(|device| device.path().display().to_string());
    paths
        .map(|path| (path.clone(), path.replacen(on_host, inside, 1)))
        .collect()
}
