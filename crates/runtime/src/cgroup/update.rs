//! Changing the limits of a container that exists (`docker update`).

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::{Cgroup, CgroupError, CgroupVersion, read, write};

impl Cgroup {
    /// Writes the limits that are given and leaves the others as they are.
    pub(crate) fn update(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        match self.version {
            CgroupVersion::V1 => self.update_v1(resources),
            CgroupVersion::V2 => self.update_v2(resources),
        }
    }

    fn update_v1(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        if let Some(memory) = resources.memory() {
            let directory = self.required("memory")?;
            set_memory_v1(directory, memory.limit(), memory.swap())?;
            set(
                directory,
                "memory.soft_limit_in_bytes",
                memory.reservation(),
            )?;
        }
        if let Some(cpu) = resources.cpu() {
            if cpu.shares().is_some() || cpu.quota().is_some() || cpu.period().is_some() {
                let directory = self.required("cpu")?;
                set(directory, "cpu.shares", cpu.shares())?;
                set(directory, "cpu.cfs_period_us", cpu.period())?;
                set(directory, "cpu.cfs_quota_us", cpu.quota())?;
            }
            if cpu.realtime_period().is_some() || cpu.realtime_runtime().is_some() {
                let directory = self.required("cpu")?;
                set(directory, "cpu.rt_period_us", cpu.realtime_period())?;
                set(directory, "cpu.rt_runtime_us", cpu.realtime_runtime())?;
            }
            self.set_cpuset(cpu.cpus().as_deref(), cpu.mems().as_deref())?;
        }
        if let Some(limit) = resources
            .pids()
            .map(|pids| pids.limit())
            .filter(|&limit| limit != 0)
        {
            write(self.required("pids")?, "pids.max", &or_max(limit))?;
        }
        if let Some(weight) = resources
            .block_io()
            .as_ref()
            .and_then(oci_spec::runtime::LinuxBlockIo::weight)
        {
            write(
                self.required("blkio")?,
                "blkio.bfq.weight",
                &weight.to_string(),
            )?;
        }
        Ok(())
    }

    fn update_v2(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let directory = self.required("")?;
        if let Some(memory) = resources.memory() {
            // Without swap accounting in the kernel there is no such file, and nothing to set.
            let swap = memory
                .swap()
                .filter(|_| directory.join("memory.swap.max").exists());
            if let (Some(swap), limit) = (swap, memory.limit()) {
                // v2 counts swap alone, Docker and v1 count memory and swap together.
                let limit = match limit {
                    Some(limit) => limit,
                    None => read(directory, "memory.max")?.trim().parse().unwrap_or(0),
                };
                let only_swap = if swap < 0 { -1 } else { (swap - limit).max(0) };
                write(directory, "memory.swap.max", &or_max(only_swap))?;
            }
            if let Some(limit) = memory.limit() {
                write(directory, "memory.max", &or_max(limit))?;
            }
            if let Some(reservation) = memory.reservation() {
                write(directory, "memory.low", &or_max(reservation))?;
            }
        }
        if let Some(cpu) = resources.cpu() {
            if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
                write(
                    directory,
                    "cpu.weight",
                    &weight_of_shares(shares).to_string(),
                )?;
            }
            if cpu.quota().is_some() || cpu.period().is_some() {
                let old = read(directory, "cpu.max")?;
                let (old_quota, old_period) =
                    old.trim().split_once(' ').unwrap_or(("max", "100000"));
                let quota = cpu.quota().map_or_else(|| old_quota.to_owned(), or_max);
                let period = cpu
                    .period()
                    .map_or_else(|| old_period.to_owned(), |p| p.to_string());
                write(directory, "cpu.max", &format!("{quota} {period}"))?;
            }
            self.set_cpuset(cpu.cpus().as_deref(), cpu.mems().as_deref())?;
        }
        if let Some(limit) = resources
            .pids()
            .map(|pids| pids.limit())
            .filter(|&limit| limit != 0)
        {
            write(directory, "pids.max", &or_max(limit))?;
        }
        if let Some(weight) = resources
            .block_io()
            .as_ref()
            .and_then(oci_spec::runtime::LinuxBlockIo::weight)
        {
            write(directory, "io.bfq.weight", &weight.to_string())?;
        }
        Ok(())
    }

    fn set_cpuset(&self, cpus: Option<&str>, mems: Option<&str>) -> Result<(), CgroupError> {
        for (file, value) in [("cpuset.cpus", cpus), ("cpuset.mems", mems)] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                write(self.required("cpuset")?, file, value)?;
            }
        }
        Ok(())
    }
}

/// The kernel refuses any moment at which memory alone may be more than memory and swap together,
/// so which of the two is written first depends on where they come from.
fn set_memory_v1(
    directory: &Path,
    limit: Option<i64>,
    swap: Option<i64>,
) -> Result<(), CgroupError> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    // Without swap accounting in the kernel there is no such file, and nothing to set.
    let swap = swap.filter(|_| directory.join(BOTH).exists());
    let (Some(new_limit), Some(new_both)) = (limit, swap) else {
        set(directory, LIMIT, limit)?;
        return set(directory, BOTH, swap);
    };
    let both_now: u64 = read(directory, BOTH)?.trim().parse().unwrap_or(u64::MAX);
    let grows = new_both < 0 || new_both as u64 > both_now;
    if grows {
        write(directory, BOTH, &new_both.to_string())?;
        write(directory, LIMIT, &new_limit.to_string())
    } else {
        write(directory, LIMIT, &new_limit.to_string())?;
        write(directory, BOTH, &new_both.to_string())
    }
}

fn set<T: ToString>(directory: &Path, file: &str, value: Option<T>) -> Result<(), CgroupError> {
    value.map_or(Ok(()), |value| write(directory, file, &value.to_string()))
}

fn or_max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// The OCI runtimes' formula from shares (2 to 262144) to weight (1 to 10000).
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}
