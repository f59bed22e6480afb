//! `docker stats`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard_stubs::models as m;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use skep_runtime::cgroup::{BlockIo, Stats};

use crate::container::Container;
use crate::engine::Engine;
use crate::error::Result;
use crate::time::UnixNanos;

impl Engine {
    /// Samples a container each second; one sample (after a second, to have a rate) without
    /// `stream`, at once with `one_shot`. Of a container that is down the samples are empty.
    pub async fn stats_container(
        self: &Arc<Self>,
        id: &str,
        stream: bool,
        one_shot: bool,
    ) -> Result<BoxStream<'static, Result<m::ContainerStatsResponse>>> {
        let container = self.containers.get(id)?;
        let engine = self.clone();
        if !stream {
            return Ok(futures::stream::once(async move {
                if one_shot {
                    return Ok(engine.sample(&container, None));
                }
                let first = engine.sample(&container, None);
                if container.record().state.is_up() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(engine.sample(&container, Some(&first)))
            })
            .boxed());
        }
        let samples = futures::stream::unfold(
            (engine, container, None),
            |(engine, container, last)| async move {
                let first_of_stream = last.is_none();
                if !first_of_stream {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                if container.progress.borrow().removed {
                    return None;
                }
                let sample = engine.sample(&container, last.as_ref());
                Some((Ok(sample.clone()), (engine, container, Some(sample))))
            },
        );
        Ok(samples.boxed())
    }

    fn sample(
        &self,
        container: &Container,
        last: Option<&m::ContainerStatsResponse>,
    ) -> m::ContainerStatsResponse {
        let (name, pid) = {
            let record = container.record();
            (format!("/{}", record.name), record.state.pid)
        };
        let mut sample = m::ContainerStatsResponse {
            id: Some(container.id.clone()),
            name: Some(name),
            os_type: Some("linux".to_owned()),
            read: Some(crate::time::ZERO_TIME.to_owned()),
            preread: Some(
                last.and_then(|last| last.read.clone())
                    .unwrap_or_else(|| crate::time::ZERO_TIME.to_owned()),
            ),
            cpu_stats: Some(m::ContainerCpuStats::default()),
            memory_stats: Some(m::ContainerMemoryStats::default()),
            networks: None,
            pids_stats: Some(m::ContainerPidsStats::default()),
            blkio_stats: Some(m::ContainerBlkioStats::default()),
            num_procs: Some(0),
            storage_stats: Some(m::ContainerStorageStats::default()),
            precpu_stats: Some(
                last.and_then(|last| last.cpu_stats.clone())
                    .unwrap_or_default(),
            ),
        };
        let stats = container.shim().and_then(|shim| Ok(shim.stats()?));
        if let Ok(stats) = stats {
            sample.read = Some(UnixNanos::now().rfc3339());
            self.fill(&mut sample, stats);
            sample.networks = interfaces(pid);
        }
        sample
    }

    fn fill(&self, sample: &mut m::ContainerStatsResponse, stats: Stats) {
        let machine = u64::try_from(self.facts.memory_total).unwrap_or(0);
        sample.cpu_stats = Some(m::ContainerCpuStats {
            cpu_usage: Some(m::ContainerCpuUsage {
                total_usage: Some(stats.cpu.total),
                percpu_usage: (!stats.cpu.per_cpu.is_empty()).then_some(stats.cpu.per_cpu),
                usage_in_kernelmode: Some(stats.cpu.kernel),
                usage_in_usermode: Some(stats.cpu.user),
            }),
            system_cpu_usage: system_cpu(),
            online_cpus: u32::try_from(self.facts.cpus).ok(),
            throttling_data: Some(m::ContainerThrottlingData {
                periods: Some(stats.cpu.periods),
                throttled_periods: Some(stats.cpu.throttled_periods),
                throttled_time: Some(stats.cpu.throttled_time),
            }),
        });
        sample.memory_stats = Some(m::ContainerMemoryStats {
            usage: Some(stats.memory.usage),
            max_usage: stats.memory.max_usage,
            stats: Some(stats.memory.detail.into_iter().collect()),
            failcnt: stats.memory.failures,
            limit: Some(
                stats
                    .memory
                    .limit
                    .map_or(machine, |limit| limit.min(machine)),
            ),
            ..Default::default()
        });
        sample.pids_stats = Some(m::ContainerPidsStats {
            current: Some(stats.pids.current),
            limit: stats.pids.limit,
        });
        sample.blkio_stats = Some(m::ContainerBlkioStats {
            io_service_bytes_recursive: Some(stats.io_bytes.into_iter().map(block_io).collect()),
            io_serviced_recursive: Some(stats.io_operations.into_iter().map(block_io).collect()),
            ..Default::default()
        });
    }
}

fn block_io(entry: BlockIo) -> m::ContainerBlkioStatEntry {
    m::ContainerBlkioStatEntry {
        major: Some(entry.major),
        minor: Some(entry.minor),
        op: Some(entry.operation),
        value: Some(entry.value),
    }
}

/// All of the machine's CPU time so far, in nanoseconds.
fn system_cpu() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find(|line| line.starts_with("cpu "))?;
    // user to steal; what follows is counted in them already.
    let ticks: u64 = line
        .split_ascii_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // The kernel reports in hundredths of a second, whatever its own clock.
    Some(ticks * 10_000_000)
}

/// The container's interfaces, but for the loopback.
fn interfaces(pid: i32) -> Option<HashMap<String, m::ContainerNetworkStats>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    Some(parse_interfaces(&text))
}

fn parse_interfaces(text: &str) -> HashMap<String, m::ContainerNetworkStats> {
    let rows = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    rows.map(|(name, counters)| (name.trim(), counters))
        .filter(|(name, _)| *name != "lo")
        .map(|(name, counters)| {
            let numbers: Vec<u64> = counters
                .split_ascii_whitespace()
                .filter_map(|field| field.parse().ok())
                .collect();
            let at = |index: usize| Some(numbers.get(index).copied().unwrap_or(0));
            let stats = m::ContainerNetworkStats {
                rx_bytes: at(0),
                rx_packets: at(1),
                rx_errors: at(2),
                rx_dropped: at(3),
                tx_bytes: at(8),
                tx_packets: at(9),
                tx_errors: at(10),
                tx_dropped: at(11),
                ..Default::default()
            };
            (name.to_owned(), stats)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_without_the_loopback() {
        let text = "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 0 1 0 0 0 0 20 3 4 5 0 0 0 0\n";
        let all = parse_interfaces(text);
        assert_eq!(all.len(), 1);
        assert_eq!(
            (
                all["eth0"].rx_bytes,
                all["eth0"].rx_dropped,
                all["eth0"].tx_errors
            ),
            (Some(10), Some(1), Some(4))
        );
    }
}
