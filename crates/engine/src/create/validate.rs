//! What dockerd refuses before it makes a container, in its words.

use bollard_stubs::models as m;

use super::ports;
use crate::config::EngineConfig;
use crate::error::{EngineError, Result};
use crate::host::HostFacts;
use crate::{mounts, signal};

/// Docker's least interval of health checks, in nanoseconds.
const LEAST_INTERVAL: i64 = 1_000_000;
const LONGEST_HOSTNAME: usize = 64;

/// Checks the container's own part, and cleans the working directory.
pub(crate) fn check_config(config: &mut m::ContainerConfig) -> Result<()> {
    if let Some(dir) = config.working_dir.as_mut().filter(|dir| !dir.is_empty()) {
        if !dir.starts_with('/') {
            return Err(EngineError::invalid(format!(
                "the working directory '{dir}' is invalid, it needs to be an absolute path"
            )));
        }
        *dir = mounts::clean_path(dir);
    }
    if let Some(stop) = config
        .stop_signal
        .as_deref()
        .filter(|stop| !stop.is_empty())
    {
        signal::parse(stop)?;
    }
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(EngineError::invalid(format!(
                "invalid environment variable: {variable}"
            )));
        }
    }
    let hostname = config.hostname.as_deref().unwrap_or_default();
    if hostname.len() > LONGEST_HOSTNAME {
        return Err(EngineError::invalid(format!(
            "hostname \"{hostname}\" is too long (maximum {LONGEST_HOSTNAME} bytes)"
        )));
    }
    check_healthcheck(config.healthcheck.as_ref())
}

fn check_healthcheck(health: Option<&m::HealthConfig>) -> Result<()> {
    let Some(health) = health else { return Ok(()) };
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value.is_some_and(|value| value != 0 && value < LEAST_INTERVAL) {
            return Err(EngineError::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if health.retries.is_some_and(|retries| retries < 0) {
        return Err(EngineError::invalid(
            "Retries in Healthcheck cannot be negative",
        ));
    }
    Ok(())
}

/// Checks the host's part and drops what this machine cannot do; returns the warnings.
pub(crate) fn check_host_config(
    host: &mut m::HostConfig,
    daemon: &EngineConfig,
    facts: &HostFacts,
) -> Result<Vec<String>> {
    let restart = host.restart_policy.clone().unwrap_or_default();
    if host.auto_remove == Some(true) && crate::restart::restarts(Some(&restart)) {
        return Err(EngineError::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    for mount in host.mounts.iter().flatten() {
        mounts::parse_mount(mount)?;
    }
    for extra in host.extra_hosts.iter().flatten() {
        check_extra_host(extra)?;
    }
    ports::check_bindings(host.port_bindings.as_ref())?;
    check_restart_policy(&restart)?;
    super::security::check_capabilities(host)?;
    if host
        .annotations
        .iter()
        .flatten()
        .any(|(key, _)| key.is_empty())
    {
        return Err(EngineError::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    check_unsupported(host)?;
    let mut warnings = super::resources::check(host, facts, false)?;
    check_modes(host)?;
    if host.shm_size.is_some_and(|size| size < 0) {
        return Err(EngineError::invalid("SHM size can not be less than 0"));
    }
    if let Some(score) = host
        .oom_score_adj
        .filter(|score| !(-1000..=1000).contains(score))
    {
        return Err(EngineError::invalid(format!(
            "Invalid value {score}, range for oom score adj is [-1000, 1000]"
        )));
    }
    if host.network_mode.as_deref() == Some("host")
        && host
            .port_bindings
            .as_ref()
            .is_some_and(|ports| !ports.is_empty())
    {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if let Some(runtime) = host
        .runtime
        .as_deref()
        .filter(|runtime| !runtime.is_empty())
        && !daemon.knows_runtime(runtime)
    {
        return Err(EngineError::invalid(format!(
            "unknown or invalid runtime name: {runtime}"
        )));
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        mounts::check_tmpfs_target(target)?;
        mounts::check_tmpfs_options(options)?;
    }
    check_log(host, daemon)?;
    Ok(warnings)
}

/// What exists in Docker and not here yet, said clearly rather than ignored.
fn check_unsupported(host: &m::HostConfig) -> Result<()> {
    if let Some(request) = host.device_requests.iter().flatten().next() {
        let capabilities: Vec<_> = request
            .capabilities
            .iter()
            .flatten()
            .map(|set| format!("[{}]", set.join(" ")))
            .collect();
        return Err(EngineError::invalid(format!(
            "could not select device driver \"{}\" with capabilities: [{}]",
            request.driver.as_deref().unwrap_or_default(),
            capabilities.join(" ")
        )));
    }
    if let Some(driver) = host
        .volume_driver
        .as_deref()
        .filter(|driver| !matches!(*driver, "" | "local"))
    {
        return Err(EngineError::not_found(format!(
            "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
        )));
    }
    // Sizes need project quotas, which overlay2 has on xfs only and this daemon does not set.
    if let Some((option, _)) = host.storage_opt.iter().flatten().next() {
        return Err(EngineError::system(if option == "size" {
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
                .to_owned()
        } else {
            format!("Unknown option {option}")
        }));
    }
    if host
        .userns_mode
        .as_deref()
        .is_some_and(|mode| !matches!(mode, "" | "host"))
    {
        return Err(EngineError::invalid(
            "invalid user namespace mode: this daemon does not remap users",
        ));
    }
    if host.cpu_realtime_period.unwrap_or(0) != 0 || host.cpu_realtime_runtime.unwrap_or(0) != 0 {
        return Err(EngineError::invalid(
            "Your kernel does not support CPU real-time scheduler, or it is not enabled in this daemon",
        ));
    }
    if host
        .cgroup
        .as_deref()
        .is_some_and(|cgroup| !cgroup.is_empty())
    {
        return Err(EngineError::invalid("the option Cgroup is not supported"));
    }
    if let Some(isolation) = host.isolation.map(|isolation| isolation.to_string())
        && !matches!(isolation.as_str(), "" | "default")
    {
        return Err(EngineError::invalid(format!(
            "invalid isolation '{isolation}' on linux"
        )));
    }
    Ok(())
}

fn check_modes(host: &m::HostConfig) -> Result<()> {
    let shares = |mode: &str| {
        mode.strip_prefix("container:")
            .is_some_and(|name| !name.is_empty())
    };
    let ipc = host.ipc_mode.as_deref().unwrap_or_default();
    if !matches!(ipc, "" | "private" | "shareable" | "host" | "none") && !shares(ipc) {
        return Err(EngineError::invalid(format!("invalid IPC mode: {ipc}")));
    }
    let pid = host.pid_mode.as_deref().unwrap_or_default();
    if !matches!(pid, "" | "host") && !shares(pid) {
        return Err(EngineError::invalid(format!("invalid PID mode: {pid}")));
    }
    let uts = host.uts_mode.as_deref().unwrap_or_default();
    if !matches!(uts, "" | "host") {
        return Err(EngineError::invalid(format!("invalid UTS mode: {uts}")));
    }
    Ok(())
}

/// dockerd's rules for restart policies.
pub(crate) fn check_restart_policy(policy: &m::RestartPolicy) -> Result<()> {
    use m::RestartPolicyNameEnum as Name;
    let retries = policy.maximum_retry_count.unwrap_or(0);
    match policy.name {
        Some(Name::ON_FAILURE) if retries < 0 => Err(EngineError::invalid(
            "invalid restart policy: maximum retry count cannot be negative",
        )),
        Some(Name::ALWAYS | Name::UNLESS_STOPPED | Name::NO) if retries != 0 => {
            let mut text =
                "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                    .to_owned();
            if retries < 0 {
                text.push_str(" and cannot be negative");
            }
            Err(EngineError::invalid(text))
        }
        _ => Ok(()),
    }
}

fn check_extra_host(extra: &str) -> Result<()> {
    let Some((name, address)) = extra
        .split_once(['=', ':'])
        .filter(|(name, _)| !name.is_empty())
    else {
        return Err(EngineError::invalid(format!(
            "bad format for add-host: {extra:?}"
        )));
    };
    let _ = name;
    let bare = address
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(address);
    if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(EngineError::invalid(format!(
            "invalid IP address in add-host: {address:?}"
        )));
    }
    Ok(())
}

/// Fills in the daemon's log driver and refuses what it cannot do.
fn check_log(host: &mut m::HostConfig, daemon: &EngineConfig) -> Result<()> {
    let log = host
        .log_config
        .get_or_insert_with(m::HostConfigLogConfig::default);
    if log.typ.as_ref().is_none_or(String::is_empty) {
        let default = daemon.reloadable.log_driver.as_str();
        log.typ = Some(
            if default.is_empty() {
                "json-file"
            } else {
                default
            }
            .to_owned(),
        );
    }
    let own = log.config.get_or_insert_with(Default::default);
    if log.typ.as_deref() == Some(daemon.default_log_driver()) {
        for (key, value) in &daemon.reloadable.log_opts {
            own.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    crate::logs::options::check(log.typ.as_deref().unwrap_or_default(), own)
}

#[cfg(test)]
mod tests;
