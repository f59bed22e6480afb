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
const TASKS_BOUND: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) struct Joined {
    /// From the first node's first call to the last one's session, in seconds.
    pub(crate) joins: f64,
    /// From the creation of a global service to the last report of a task that runs, in seconds.
    pub(crate) tasks: f64,
}

pub(crate) async fn measure(cluster: &Cluster, agents: usize) -> anyhow::Result<Joined> {
    let (_, leader) = cluster.leader().await?;
    let operator = cluster.operator().await?;
    let running = Arc::<AtomicUsize>::default();
    let started = Instant::now();
    let joined = join_all(cluster, agents, &running).await?;
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

    let mut serving = JoinSet::new();
    for agent in joined {
        serving.spawn(agent.serve());
    }
    let started = Instant::now();
    control.create_service(service("everywhere", None)).await?;
    let all = async {
        while running.load(Ordering::Relaxed) < agents {
            if let Some(ended) = serving.try_join_next() {
                ended??;
            }
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(TASKS_BOUND, all)
        .await
        .with_context(|| format!("only {} tasks run", running.load(Ordering::Relaxed)))??;
    Ok(Joined {
        joins,
        tasks: started.elapsed().as_secs_f64(),
    })
}

async fn join_all(
    cluster: &Cluster,
    agents: usize,
    running: &Arc<AtomicUsize>,
) -> anyhow::Result<Vec<Agent>> {
    let token = cluster.token("Worker")?;
    let managers: Arc<[String]> = cluster.addresses().into();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut joining = JoinSet::new();
    for number in 0..agents {
        let (turns, managers, token) = (Arc::clone(&turns), Arc::clone(&managers), token.clone());
        let running = Arc::clone(running);
        joining.spawn(async move {
            let _turn = turns.acquire().await?;
            Agent::join(number, &managers, &token, running).await
        });
    }
    let mut joined = Vec::with_capacity(agents);
    while let Some(outcome) = joining.join_next().await {
        joined.push(outcome??);
    }
    Ok(joined)
}
