//! Reading a container's accounts.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Cgroup, CgroupError, CgroupVersion};

/// One reading. Times are nanoseconds, sizes bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: PidsStats,
    /// `io_service_bytes_recursive` of Docker's API.
    pub io_bytes: Vec<BlockIo>,
    /// `io_serviced_recursive` (v1 only, as in Docker).
    pub io_operations: Vec<BlockIo>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    pub total: u64,
    pub user: u64,
    pub kernel: u64,
    /// v1 only.
    pub per_cpu: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    pub usage: u64,
    /// v1 only.
    pub max_usage: Option<u64>,
    /// `None`: no limit of its own.
    pub limit: Option<u64>,
    /// v1 only.
    pub failures: Option<u64>,
    /// The kernel's `memory.stat`.
    pub detail: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PidsStats {
    pub current: u64,
    /// `None`: no limit.
    pub limit: Option<u64>,
}

/// One counter of one block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIo {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, … (v1) or `read`, `write` (v2), as Docker passes them on.
    pub operation: String,
    pub value: u64,
}

/// From here on the kernel's "no limit" of v1, which is rounded to pages, begins.
const V1_UNLIMITED: u64 = i64::MAX as u64 / 2;

impl Cgroup {
    /// A controller that the host lacks counts as zero; a container that has gone is an error.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let Some(directory) = self
            .process_directory()
            .filter(|directory| directory.exists())
        else {
            return Err(CgroupError::NoController("running"));
        };
        Ok(match self.version {
            CgroupVersion::V1 => self.stats_v1(),
            CgroupVersion::V2 => stats_v2(directory),
        })
    }

    fn stats_v1(&self) -> Stats {
        let text = |controller: &str, file: &str| {
            self.directory(controller)
                .map(|directory| slurp(directory, file))
                .unwrap_or_default()
        };
        let number =
            |controller: &str, file: &str| text(controller, file).trim().parse::<u64>().ok();
        let throttling = text("cpu", "cpu.stat");
        let used = text("cpuacct", "cpuacct.stat");
        Stats {
            cpu: CpuStats {
                total: number("cpuacct", "cpuacct.usage").unwrap_or(0),
                user: ticks_to_nanoseconds(keyed(&used, "user").unwrap_or(0)),
                kernel: ticks_to_nanoseconds(keyed(&used, "system").unwrap_or(0)),
                per_cpu: text("cpuacct", "cpuacct.usage_percpu")
                    .split_whitespace()
                    .filter_map(|field| field.parse().ok())
                    .collect(),
                periods: keyed(&throttling, "nr_periods").unwrap_or(0),
                throttled_periods: keyed(&throttling, "nr_throttled").unwrap_or(0),
                throttled_time: keyed(&throttling, "throttled_time").unwrap_or(0),
            },
            memory: MemoryStats {
                usage: number("memory", "memory.usage_in_bytes").unwrap_or(0),
                max_usage: number("memory", "memory.max_usage_in_bytes"),
                limit: number("memory", "memory.limit_in_bytes")
                    .filter(|&limit| limit < V1_UNLIMITED),
                failures: number("memory", "memory.failcnt"),
                detail: table(&text("memory", "memory.stat")),
            },
            pids: PidsStats {
                current: number("pids", "pids.current").unwrap_or(0),
                limit: number("pids", "pids.max"),
            },
            io_bytes: block_v1(&text("blkio", "blkio.throttle.io_service_bytes_recursive")),
            io_operations: block_v1(&text("blkio", "blkio.throttle.io_serviced_recursive")),
        }
    }
}

fn stats_v2(directory: &Path) -> Stats {
    let cpu = slurp(directory, "cpu.stat");
    let microseconds = |key: &str| keyed(&cpu, key).unwrap_or(0).saturating_mul(1000);
    let number = |file: &str| slurp(directory, file).trim().parse::<u64>().ok();
    Stats {
        cpu: CpuStats {
            total: microseconds("usage_usec"),
            user: microseconds("user_usec"),
            kernel: microseconds("system_usec"),
            per_cpu: Vec::new(),
            periods: keyed(&cpu, "nr_periods").unwrap_or(0),
            throttled_periods: keyed(&cpu, "nr_throttled").unwrap_or(0),
            throttled_time: microseconds("throttled_usec"),
        },
        memory: MemoryStats {
            usage: number("memory.current").unwrap_or(0),
            max_usage: None,
            limit: number("memory.max"),
            failures: None,
            detail: table(&slurp(directory, "memory.stat")),
        },
        pids: PidsStats {
            current: number("pids.current").unwrap_or(0),
            limit: number("pids.max"),
        },
        io_bytes: block_v2(&slurp(directory, "io.stat")),
        io_operations: Vec::new(),
    }
}

fn slurp(directory: &Path, file: &str) -> String {
    std::fs::read_to_string(directory.join(file)).unwrap_or_default()
}

/// The number after `key` in lines of `key number`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// `cpuacct.stat` counts in USER_HZ, which is 100 on every architecture we build for.
fn ticks_to_nanoseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(10_000_000)
}

/// `8:0 Read 4096` lines, with a `Total` of all devices at the end that has no device.
fn block_v1(text: &str) -> Vec<BlockIo> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (major, minor) = fields.next()?.split_once(':')?;
            Some(BlockIo {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                operation: fields.next()?.to_owned(),
                value: fields.next()?.parse().ok()?,
            })
        })
        .collect()
}

/// `8:0 rbytes=1 wbytes=2 …` lines.
fn block_v2(text: &str) -> Vec<BlockIo> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let operation = match key {
                "rbytes" => "read",
                "wbytes" => "write",
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                entries.push(BlockIo {
                    major,
                    minor,
                    operation: operation.to_owned(),
                    value,
                });
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_taken_for_a_longer_one() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
    }

    #[test]
    fn block_counters_of_both_versions_are_read() {
        assert_eq!(block_v1("8:0 Read 42\n8:0 Total 42\nTotal 42\n").len(), 2);
        let v2 = block_v2("8:16 rbytes=10 wbytes=20 rios=1 wios=2\n");
        assert_eq!(
            v2[1],
            BlockIo {
                major: 8,
                minor: 16,
                operation: "write".into(),
                value: 20
            }
        );
    }
}
