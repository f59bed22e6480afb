//! Clusters under load: real daemons, each in a namespace of its own, and clients and agents simulated
//! by this one process, which speak the real protocol over mutual TLS. `cargo xtask bench cluster`
//! builds it and runs it.
//!
//! Deliberately not here: containers. A simulated agent says of a task what an agent would say.

#![expect(clippy::print_stdout, reason = "a program for people to read")]

mod agent;
mod cluster;
mod failover;
mod figures;
mod joins;
mod writes;

use anyhow::bail;
use cluster::Cluster;
use figures::{Figures, Peer};

/// How much is measured.
#[derive(Clone, Copy)]
struct Sizes {
    rounds: usize,
    agents: usize,
    serial_writes: usize,
    parallel_writes: usize,
    failovers: usize,
}

const FULL: Sizes = Sizes {
    rounds: 3,
    agents: 1_000,
    serial_writes: 1_000,
    parallel_writes: 16_000,
    failovers: 5,
};

/// Sees that everything runs; its figures say nothing.
const QUICK: Sizes = Sizes {
    rounds: 1,
    agents: 50,
    serial_writes: 50,
    parallel_writes: 500,
    failovers: 1,
};

fn main() -> anyhow::Result<()> {
    let mut sizes = FULL;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => sizes = QUICK,
            other => bail!("no such option: {other}; there is --quick"),
        }
    }
    for (managers, peer) in [(1, &Peer::ONE_MANAGER), (3, &Peer::THREE_MANAGERS)] {
        let figures = measure(managers, sizes)?;
        figures.print(managers, sizes.agents, peer);
    }
    Ok(())
}

fn measure(managers: usize, sizes: Sizes) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    for round in 1..=sizes.rounds {
        println!("managers: {managers}, round {round} of {}", sizes.rounds);
        let cluster = Cluster::start(managers)?;
        let joined = cluster.run(async |cluster| joins::measure(cluster, sizes.agents).await)?;
        drop(cluster);
        figures.joins.push(joined.joins);
        figures.tasks.push(joined.tasks);
        // Another swarm: agents that are gone would be counted as failed nodes meanwhile.
        let (serial, parallel, failovers) = Cluster::start(managers)?.run(async |cluster| {
            let serial = writes::measure(cluster, 1, sizes.serial_writes).await?;
            let parallel = writes::measure(cluster, writes::CLIENTS, sizes.parallel_writes).await?;
            let is_last = round == sizes.rounds;
            let failovers = if managers > 2 && is_last {
                failover::measure(cluster, sizes.failovers).await?
            } else {
                Vec::new()
            };
            anyhow::Ok((serial, parallel, failovers))
        })?;
        figures.serial.push(serial);
        figures.parallel.push(parallel);
        figures.failovers.extend(failovers);
    }
    Ok(figures)
}
