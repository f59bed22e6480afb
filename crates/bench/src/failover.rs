//! How long a swarm takes no writes when its leader is killed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, control, service};

/// A call may be stuck at a manager that believes in the old leader.
const CALL: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(5);
const BOUND: Duration = Duration::from_secs(60);

/// Seconds from `kill -9` of the leader to the next write that was accepted, by another manager.
pub(crate) async fn measure(cluster: &Cluster, times: usize) -> anyhow::Result<Vec<f64>> {
    let operator = cluster.operator().await?;
    let mut seconds = Vec::new();
    for round in 0..times {
        let (name, leader) = cluster.leader().await?;
        let mut others = Vec::new();
        for address in cluster.addresses() {
            if address != leader {
                others.push(control(&operator, &address).await?);
            }
        }
        let killed = Instant::now();
        cluster.kill(&name);
        for attempt in 0.. {
            if killed.elapsed() > BOUND {
                bail!("no write within {BOUND:?} of the leader's death");
            }
            let request = service(&format!("after{round}-{attempt}"), Some(0));
            let index = attempt % others.len();
            let other = others.get_mut(index).context("a swarm of one")?;
            if let Ok(Ok(_)) = timeout(CALL, other.create_service(request)).await {
                break;
            }
            sleep(PAUSE).await;
        }
        seconds.push(killed.elapsed().as_secs_f64());
        cluster.start_again(&name);
    }
    Ok(seconds)
}
