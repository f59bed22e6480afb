//! How many services can be created, by one client after the other and by many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;

use crate::cluster::{Cluster, control, service};

pub(crate) const CLIENTS: usize = 64;

pub(crate) struct Writes {
    pub(crate) per_second: f64,
    /// Each call's milliseconds, in order.
    pub(crate) latencies: Vec<f64>,
}

/// Each client has a connection of its own to the leader and one call under way. The services have
/// no tasks: what is measured is the way into the log.
pub(crate) async fn measure(
    cluster: &Cluster,
    clients: usize,
    writes: usize,
) -> anyhow::Result<Writes> {
    let (_, leader) = cluster.leader().await?;
    let operator = cluster.operator().await?;
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(control(&operator, &leader).await?);
    }
    let left = Arc::new(AtomicUsize::new(writes));
    let started = Instant::now();
    let mut working = JoinSet::new();
    for mut client in connected {
        let left = Arc::clone(&left);
        working.spawn(async move {
            let mut latencies = Vec::new();
            let take = |left: usize| left.checked_sub(1);
            while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
                let request = service(&format!("service{clients}-{number}"), Some(0));
                let called = Instant::now();
                client.create_service(request).await?;
                latencies.push(called.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::with_capacity(writes);
    while let Some(outcome) = working.join_next().await {
        latencies.extend(outcome??);
    }
    let per_second = writes as f64 / started.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    Ok(Writes {
        per_second,
        latencies,
    })
}

impl Writes {
    /// The latency that this share of the calls did not exceed.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        self.latencies.get(index).copied().unwrap_or(f64::NAN)
    }
}
