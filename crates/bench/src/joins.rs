//! How fast nodes join, and how fast a task reaches each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use skep_proto as proto;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::agent::Agent;
use crate::cluster::{Cluster, control, service};

/// More at the same moment would only wait in the kernel's queue, and some of them in vain.
const AT_ONCE: usize = 128;
const BOUND: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

/// What all agents have done together.
#[derive(Default)]
pub(crate) struct Counts {
    joined: AtomicUsize,
    /// Tasks that were reported running.
    pub(crate) running: AtomicUsize,
}

pub(crate) struct Joined {
    /// From the first node's first call to the last one's session, in seconds.
    pub(crate) joins: f64,
    /// From the creation of a global service to the last report of a task that runs, in seconds.
    pub(crate) tasks: f64,
}

pub(crate) async fn measure(cluster: &Cluster, agents: usize) -> anyhow::Result<Joined> {
    let (_, leader) = cluster.leader().await?;
    let operator = cluster.operator().await?;
    let counts = Arc::<Counts>::default();
    let started = Instant::now();
    let mut serving = start_all(cluster, agents, &counts)?;
    until(&mut serving, &counts.joined, agents, "joined").await?;
    let joins = started.elapsed().as_secs_f64();
    // What the swarm says counts, not what the agents believe.
    let mut control = control(&operator, &leader).await?;
    let listed = control.list_nodes(proto::ListNodesRequest::default());
    let listed = listed.await?.into_inner().nodes;
    let ready = |node: &&proto::Node| {
        let status = node.status.as_ref();
        let name = node.description.as_ref().map(|known| &known.hostname);
        name.is_some_and(|name| name.starts_with("agent"))
            && status.is_some_and(|s| s.state() == proto::node_status::State::Ready)
    };
    let ready = listed.iter().filter(ready).count();
    ensure!(ready == agents, "{ready} of {agents} nodes are ready");

    let started = Instant::now();
    control.create_service(service("everywhere", None)).await?;
    until(&mut serving, &counts.running, agents, "run their task").await?;
    Ok(Joined {
        joins,
        tasks: started.elapsed().as_secs_f64(),
    })
}

/// Waits until so many have done something. An agent that ends before is a failure.
async fn until(
    serving: &mut JoinSet<anyhow::Result<()>>,
    count: &AtomicUsize,
    all: usize,
    what: &str,
) -> anyhow::Result<()> {
    let reached = async {
        while count.load(Ordering::Relaxed) < all {
            if let Some(ended) = serving.try_join_next() {
                ended??;
            }
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(())
    };
    let reached = tokio::time::timeout(BOUND, reached).await;
    reached.with_context(|| format!("only {} agents {what}", count.load(Ordering::Relaxed)))?
}

/// Each joins and serves from then on: sessions without heartbeats would end while others join.
fn start_all(
    cluster: &Cluster,
    agents: usize,
    counts: &Arc<Counts>,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let token = cluster.token("Worker")?;
    let managers: Arc<[String]> = cluster.addresses().into();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut serving = JoinSet::new();
    for number in 0..agents {
        let (turns, managers, token) = (Arc::clone(&turns), Arc::clone(&managers), token.clone());
        let counts = Arc::clone(counts);
        serving.spawn(async move {
            let turn = turns.acquire().await?;
            let agent = Agent::join(number, &managers, &token, Arc::clone(&counts)).await?;
            drop(turn);
            counts.joined.fetch_add(1, Ordering::Relaxed);
            agent.serve().await
        });
    }
    Ok(serving)
}
