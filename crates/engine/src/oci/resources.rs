//! Limits as the OCI spec has them.

use std::os::unix::fs::MetadataExt as _;

use bollard_stubs::models as m;
use serde_json::{Map, Value, json};
use skep_runtime::oci_spec::runtime::LinuxResources;

use crate::error::{EngineError, Result};

/// The period that `--cpus` is a share of, in microseconds.
const PERIOD: i64 = 100_000;

/// A container's limits, or a change of them; what is not set is left out.
pub(crate) fn resources(host: &m::HostConfig) -> Result<LinuxResources> {
    let mut all = Map::new();
    put(&mut all, "memory", memory(host));
    put(&mut all, "cpu", cpu(host));
    if let Some(limit) = host.pids_limit {
        all.insert(
            "pids".to_owned(),
            json!({ "limit": if limit <= 0 { -1 } else { limit } }),
        );
    }
    put(&mut all, "blockIO", block_io(host)?);
    serde_json::from_value(Value::Object(all))
        .map_err(|error| EngineError::system(format!("resources of the container: {error}")))
}

fn put(all: &mut Map<String, Value>, key: &str, part: Map<String, Value>) {
    if !part.is_empty() {
        all.insert(key.to_owned(), Value::Object(part));
    }
}

fn memory(host: &m::HostConfig) -> Map<String, Value> {
    let mut memory = Map::new();
    for (key, value) in [
        ("limit", host.memory),
        ("reservation", host.memory_reservation),
        ("swap", host.memory_swap),
    ] {
        // -1 is "no limit"; 0 is "not set".
        if let Some(value) =
            value.filter(|&value| value > 0 || (value == -1 && host.memory.unwrap_or(0) > 0))
        {
            memory.insert(key.to_owned(), json!(value));
        }
    }
    if let Some(swappiness) = host.memory_swappiness {
        memory.insert("swappiness".to_owned(), json!(swappiness));
    }
    if host.oom_kill_disable == Some(true) {
        memory.insert("disableOOMKiller".to_owned(), json!(true));
    }
    memory
}

fn cpu(host: &m::HostConfig) -> Map<String, Value> {
    let mut cpu = Map::new();
    if let Some(shares) = host.cpu_shares.filter(|&shares| shares > 0) {
        cpu.insert("shares".to_owned(), json!(shares));
    }
    if let Some(nano) = host.nano_cpus.filter(|&nano| nano > 0) {
        cpu.insert("period".to_owned(), json!(PERIOD));
        cpu.insert("quota".to_owned(), json!(nano * PERIOD / 1_000_000_000));
    }
    if let Some(period) = host.cpu_period.filter(|&period| period != 0) {
        cpu.insert("period".to_owned(), json!(period));
    }
    if let Some(quota) = host.cpu_quota.filter(|&quota| quota != 0) {
        cpu.insert("quota".to_owned(), json!(quota));
    }
    for (key, value) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            cpu.insert(key.to_owned(), json!(value));
        }
    }
    cpu
}

fn block_io(host: &m::HostConfig) -> Result<Map<String, Value>> {
    let mut io = Map::new();
    if let Some(weight) = host.blkio_weight.filter(|&weight| weight != 0) {
        io.insert("weight".to_owned(), json!(weight));
    }
    let mut weights = Vec::new();
    for device in host.blkio_weight_device.iter().flatten() {
        let (major, minor) = device_number(device.path.as_deref().unwrap_or_default())?;
        weights.push(json!({ "major": major, "minor": minor, "weight": device.weight }));
    }
    if !weights.is_empty() {
        io.insert("weightDevice".to_owned(), Value::Array(weights));
    }
    for (key, list) in [
        ("throttleReadBpsDevice", &host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &host.blkio_device_write_iops),
    ] {
        let mut limits = Vec::new();
        for device in list.iter().flatten() {
            let (major, minor) = device_number(device.path.as_deref().unwrap_or_default())?;
            limits.push(json!({ "major": major, "minor": minor, "rate": device.rate }));
        }
        if !limits.is_empty() {
            io.insert(key.to_owned(), Value::Array(limits));
        }
    }
    Ok(io)
}

fn device_number(path: &str) -> Result<(u32, u32)> {
    let meta = std::fs::metadata(path)
        .map_err(|error| EngineError::invalid(format!("stat {path}: {error}")))?;
    Ok((
        rustix::fs::major(meta.rdev()),
        rustix::fs::minor(meta.rdev()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_left_out() {
        let host = m::HostConfig {
            memory: Some(0),
            cpu_shares: Some(0),
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_value(resources(&host).unwrap()).unwrap(),
            json!({})
        );
    }

    #[test]
    fn limits_are_the_runtimes() {
        let host = m::HostConfig {
            memory: Some(64 << 20),
            memory_swap: Some(-1),
            nano_cpus: Some(1_500_000_000),
            pids_limit: Some(0),
            cpuset_cpus: Some("0-1".to_owned()),
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_value(resources(&host).unwrap()).unwrap(),
            json!({
                "memory": { "limit": 64 << 20, "swap": -1 },
                "cpu": { "period": 100_000, "quota": 150_000, "cpus": "0-1" },
                "pids": { "limit": -1 },
            })
        );
    }
}
