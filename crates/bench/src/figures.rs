//! The table.

use crate::writes::Writes;

/// Samples of one size of swarm.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) joins: Vec<f64>,
    pub(crate) tasks: Vec<f64>,
    pub(crate) serial: Vec<Writes>,
    pub(crate) parallel: Vec<Writes>,
    pub(crate) failovers: Vec<f64>,
}

/// SwarmKit's figures, measured on another machine of this kind: it is not run here, so they are to
/// compare by order of magnitude only. `None`: not known.
pub(crate) struct Peer {
    /// Of a thousand nodes; of how many managers is not told.
    joins_seconds: f64,
    serial_per_second: f64,
    parallel_per_second: f64,
    parallel_p99_millis: Option<f64>,
    /// dockerd's main branch of August 2026, the same check.
    failover_seconds: Option<f64>,
}

impl Peer {
    pub(crate) const ONE_MANAGER: Self = Self {
        joins_seconds: 8.9,
        serial_per_second: 773.0,
        parallel_per_second: 1_139.0,
        parallel_p99_millis: None,
        failover_seconds: None,
    };
    pub(crate) const THREE_MANAGERS: Self = Self {
        joins_seconds: 8.9,
        serial_per_second: 275.0,
        parallel_per_second: 319.0,
        parallel_p99_millis: Some(325.0),
        failover_seconds: Some(20.1),
    };
}

impl Figures {
    pub(crate) fn print(&self, managers: usize, agents: usize, peer: &Peer) {
        let of = |writes: &[Writes], what: fn(&Writes) -> f64| -> Vec<f64> {
            writes.iter().map(what).collect()
        };
        let rate = |writes: &Writes| writes.per_second;
        let p50 = |writes: &Writes| writes.percentile(0.5);
        let p99 = |writes: &Writes| writes.percentile(0.99);
        let (serial, parallel) = (&self.serial, &self.parallel);
        println!(
            "\n{:<52} {:>14} {:>14} {:>3}",
            format!("{managers} manager(s), median"),
            "skep",
            "SwarmKit *",
            "n"
        );
        let joins = format!("{agents} nodes join");
        let tasks = format!("a global service until {agents} tasks run");
        let serial_peer = Some(peer.serial_per_second);
        let parallel_peer = Some(peer.parallel_per_second);
        let joins_peer = (agents == 1_000).then_some(peer.joins_seconds);
        row(&joins, &self.joins, joins_peer, "s");
        row(&tasks, &self.tasks, None, "s");
        row(
            "CreateService, 1 client",
            &of(serial, rate),
            serial_peer,
            "/s",
        );
        row("  p50", &of(serial, p50), None, "ms");
        row("  p99", &of(serial, p99), None, "ms");
        row(
            "CreateService, 64 clients",
            &of(parallel, rate),
            parallel_peer,
            "/s",
        );
        row("  p50", &of(parallel, p50), None, "ms");
        row("  p99", &of(parallel, p99), peer.parallel_p99_millis, "ms");
        if !self.failovers.is_empty() {
            let peer = peer.failover_seconds;
            row(
                "leader killed (-9) to next accepted write",
                &self.failovers,
                peer,
                "s",
            );
        }
        println!("* quoted, not measured here");
    }
}

fn row(name: &str, samples: &[f64], peer: Option<f64>, unit: &str) {
    let figure = |value: Option<f64>| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} {unit}"))
    };
    println!(
        "{name:<52} {:>14} {:>14} {:>3}",
        figure(median(samples)),
        figure(peer),
        samples.len()
    );
}

fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
