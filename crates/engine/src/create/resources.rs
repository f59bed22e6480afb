//! Limits: dockerd's checks of them.

use bollard_stubs::models as m;

use crate::error::{EngineError, Result};
use crate::host::HostFacts;

const LEAST_MEMORY: i64 = 6 * 1024 * 1024;

/// Refuses impossible limits; drops, with a warning, those the machine cannot apply.
pub(crate) fn check(
    host: &mut m::HostConfig,
    facts: &HostFacts,
    update: bool,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    check_memory(host, facts, update, &mut warnings)?;
    check_cpu(host, facts, &mut warnings)?;
    check_cpuset(host, facts)?;
    check_io(host, facts, &mut warnings)?;
    Ok(warnings)
}

fn check_memory(
    host: &mut m::HostConfig,
    facts: &HostFacts,
    update: bool,
    warnings: &mut Vec<String>,
) -> Result<()> {
    // Clients that always send the field say "not set" with -1.
    if host.memory_swappiness == Some(-1) {
        host.memory_swappiness = None;
    }
    let memory = host.memory.unwrap_or(0);
    let swap = host.memory_swap.unwrap_or(0);
    let reservation = host.memory_reservation.unwrap_or(0);
    if memory != 0 && memory < LEAST_MEMORY {
        return Err(EngineError::invalid("Minimum memory limit allowed is 6MB"));
    }
    if memory > 0 && !facts.memory {
        warnings.push(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded."
                .to_owned(),
        );
        host.memory = Some(0);
        host.memory_swap = Some(-1);
    }
    if memory > 0 && swap != -1 && !facts.swap {
        warnings.push(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
                .to_owned(),
        );
        host.memory_swap = Some(-1);
    }
    if memory > 0 && swap > 0 && swap < memory {
        return Err(EngineError::invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ));
    }
    if memory == 0 && swap > 0 && !update {
        return Err(EngineError::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if host.memory_swappiness.is_some() && facts.cgroup_v2 {
        warnings.push(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."
                .to_owned(),
        );
        host.memory_swappiness = None;
    }
    if let Some(swappiness) = host
        .memory_swappiness
        .filter(|value| !(0..=100).contains(value))
    {
        return Err(EngineError::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if reservation > 0 && reservation < LEAST_MEMORY {
        return Err(EngineError::invalid(
            "Minimum memory reservation allowed is 6MB",
        ));
    }
    if memory > 0 && reservation > 0 && memory < reservation {
        return Err(EngineError::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if host.oom_kill_disable.is_some() && facts.cgroup_v2 {
        if host.oom_kill_disable == Some(true) {
            warnings.push(
                "Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned(),
            );
        }
        host.oom_kill_disable = None;
    }
    if host.oom_kill_disable == Some(true) && memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
                .to_owned(),
        );
    }
    if host.pids_limit.is_some() && !facts.pids {
        if host.pids_limit.is_some_and(|limit| limit > 0) {
            warnings.push(
                "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."
                    .to_owned(),
            );
        }
        host.pids_limit = None;
    }
    Ok(())
}

fn check_cpu(
    host: &mut m::HostConfig,
    facts: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let nano = host.nano_cpus.unwrap_or(0);
    let (period, quota) = (host.cpu_period.unwrap_or(0), host.cpu_quota.unwrap_or(0));
    if nano > 0 && period > 0 {
        return Err(EngineError::invalid(
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ));
    }
    if nano > 0 && quota > 0 {
        return Err(EngineError::invalid(
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ));
    }
    if nano > 0 && !facts.cpu_cfs {
        return Err(EngineError::invalid(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        ));
    }
    if nano < 0 || nano > facts.cpus * 1_000_000_000 {
        return Err(EngineError::invalid(format!(
            "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
            facts.cpus
        )));
    }
    if host.cpu_shares.is_some_and(|shares| shares < 0) {
        return Err(EngineError::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares.unwrap_or(0)
        )));
    }
    if (period != 0 || quota != 0) && !facts.cpu_cfs {
        warnings.push(
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."
                .to_owned(),
        );
        host.cpu_period = None;
        host.cpu_quota = None;
        return Ok(());
    }
    if period != 0 && !(1000..=1_000_000).contains(&period) {
        return Err(EngineError::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if quota > 0 && quota < 1000 {
        return Err(EngineError::invalid(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ));
    }
    if host.cpu_percent.unwrap_or(0) > 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".to_owned());
        host.cpu_percent = None;
    }
    Ok(())
}

fn check_cpuset(host: &m::HostConfig, facts: &HostFacts) -> Result<()> {
    for (text, available, label, what) in [
        (
            host.cpuset_cpus.as_deref(),
            &facts.cpuset_cpus,
            "cpuset cpus",
            "CPUs",
        ),
        (
            host.cpuset_mems.as_deref(),
            &facts.cpuset_mems,
            "cpuset mems",
            "memory nodes",
        ),
    ] {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            continue;
        };
        let Some(wanted) = parse_list(text) else {
            return Err(EngineError::invalid(format!(
                "Invalid value {text} for {label}: invalid format: {text}"
            )));
        };
        let have = parse_list(available).unwrap_or_default();
        if !have.is_empty() && !wanted.iter().all(|item| have.contains(item)) {
            return Err(EngineError::invalid(format!(
                "Requested {what} are not available - requested {text}, available: {available}"
            )));
        }
    }
    Ok(())
}

/// "0-2,5" as numbers.
fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut list = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last < first || last > 8192 {
            return None;
        }
        list.extend(first..=last);
    }
    Some(list)
}

fn check_io(host: &m::HostConfig, facts: &HostFacts, _warnings: &mut [String]) -> Result<()> {
    if host
        .blkio_weight
        .is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight))
    {
        return Err(EngineError::invalid(
            "Range of blkio weight is from 10 to 1000",
        ));
    }
    if host.io_maximum_bandwidth.unwrap_or(0) != 0 || host.io_maximum_iops.unwrap_or(0) != 0 {
        return Err(EngineError::invalid(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps",
        ));
    }
    let limits = host.blkio_weight.unwrap_or(0) != 0
        || host
            .blkio_weight_device
            .as_ref()
            .is_some_and(|list| !list.is_empty())
        || [
            &host.blkio_device_read_bps,
            &host.blkio_device_write_bps,
            &host.blkio_device_read_iops,
            &host.blkio_device_write_iops,
        ]
        .iter()
        .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()));
    if limits && !facts.blkio {
        return Err(EngineError::invalid(
            "Your kernel does not support Block I/O limits or the cgroup is not mounted",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_parsed_strictly() {
        assert_eq!(parse_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        for bad in ["", "a", "2-1", "1-", "1,,2"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }
}
