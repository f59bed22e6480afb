//! How long a container waits for its network: first endpoint on the default bridge, with and
//! without a published port, and its release; one at a time and many at once.
//!
//! `cargo bench -p skep-network`; needs root. All in namespaces of its own.

use std::time::{Duration, Instant};

use skep_netlink::{Namespace, RouteSocket};
use skep_network::{EndpointRequest, LocalNetworks, NetworkConfig, PortRequest, Protocol};

const ROUNDS: usize = 50;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let host = Namespace::create_unnamed()?;
    let path = directory.path().join("host");
    host.bind_at(&path)?;
    RouteSocket::open_in(&host)?.set_up(1, true)?;
    let outcome = measure(directory.path(), &path).await;
    Namespace::delete_at(&path)?;
    outcome
}

async fn measure(
    directory: &std::path::Path,
    host: &std::path::Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = NetworkConfig::new(directory.join("data"), directory.join("exec"));
    config.host_namespace = Some(host.to_owned());
    let begin = Instant::now();
    let networks = LocalNetworks::open(config).await?;
    report("open", &mut [begin.elapsed()]);
    for (name, ports) in [("connect", 0), ("connect, one port", 1)] {
        let (mut connects, mut releases) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let id = id(round);
            let begin = Instant::now();
            networks.connect(&id, &request(ports, round)).await?;
            connects.push(begin.elapsed());
            let begin = Instant::now();
            networks.release(&id).await?;
            releases.push(begin.elapsed());
        }
        report(name, &mut connects);
        report("release", &mut releases);
    }
    at_once(&networks).await
}

async fn at_once(networks: &LocalNetworks) -> Result<(), Box<dyn std::error::Error>> {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let networks = networks.clone();
            tokio::spawn(async move { networks.connect(&id(round), &request(0, round)).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    report("connect, 50 at once, all", &mut [begin.elapsed()]);
    let begin = Instant::now();
    for round in 0..ROUNDS {
        networks.release(&id(round)).await?;
    }
    report("release, 50 in turn, all", &mut [begin.elapsed()]);
    Ok(())
}

/// The first digits have to differ: namespaces are named after them.
fn id(round: usize) -> String {
    format!("{round:064}").chars().rev().collect()
}

fn request(ports: usize, round: usize) -> EndpointRequest {
    let port = PortRequest {
        container_port: 80,
        protocol: Protocol::Tcp,
        host_ip: None,
        host_ports: (9000 + round as u16, 9000 + round as u16),
    };
    EndpointRequest {
        network: "bridge".to_owned(),
        container_name: format!("c{round}"),
        ports: vec![port; ports],
        ..Default::default()
    }
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort();
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    eprintln!(
        "{name:28} median {:7.2} ms   most {:7.2} ms",
        millis(median),
        millis(most)
    );
}
