//! How long the leader takes to give tasks their nodes, and what a task costs in memory.
//!
//! The same work as SwarmKit's `BenchmarkScheduler…`: a store without a log, nodes and pending tasks
//! written to it at once; the clock stops when the last task is ASSIGNED in the store. Its figures
//! are those of its own benchmark on a machine of this kind. One-off tasks have no service, so each
//! is decided alone; «service» rows start from `service create`, so they include making the tasks.
//!
//! Takes the sizes of a quick look by default; `--full` adds the largest; `--test` runs each once, small.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program of its own, for people to read"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_manager::{Caller, Manager, ManagerConfig};
use skep_model::{Task, TaskState, TaskStatus};
use skep_proto as proto;
use skep_store::{MemoryProposer, Selector, Store, StoreError, WatchError, WatchFilter};
use tokio::sync::watch;

struct Row {
    nodes: usize,
    tasks: usize,
    /// Only each third node will do.
    constrained: bool,
    service: bool,
    /// Seconds, where SwarmKit has the same benchmark.
    swarmkit: Option<f64>,
}

const fn row(nodes: usize, tasks: usize, swarmkit: Option<f64>) -> Row {
    Row {
        nodes,
        tasks,
        constrained: false,
        service: false,
        swarmkit,
    }
}

const QUICK: [Row; 3] = [
    row(1_000, 1_000, Some(0.33)),
    row(1_000, 10_000, Some(3.9)),
    row(1_000, 100_000, Some(22.0)),
];
const FULL: [Row; 1] = [row(100_000, 1_000, Some(44.5))];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let mut rows: Vec<Row> = QUICK.into();
    if has("--full") {
        rows.extend(FULL);
    }
    if has("--test") {
        rows = vec![row(10, 20, None)];
    }
    println!(
        "{:>8} {:>8} {:<9} {:<12} {:>10} {:>10} {:>8} {:>10}",
        "nodes", "tasks", "as", "constraints", "skep", "SwarmKit", "times", "bytes/task"
    );
    for row in rows {
        for (service, constrained) in [(false, false), (false, true), (true, false), (true, true)] {
            let row = Row {
                constrained,
                service,
                ..row
            };
            let rounds = if row.tasks > 10_000 { 1 } else { 3 };
            let mut results = Vec::new();
            for _ in 0..rounds {
                results.push(measure(&row).await);
            }
            results.sort_by_key(|(took, _)| *took);
            let (took, bytes) = results[results.len() / 2];
            let seconds = took.as_secs_f64();
            println!(
                "{:>8} {:>8} {:<9} {:<12} {:>8.1}ms {:>9} {:>8} {:>10}",
                row.nodes,
                row.tasks,
                if service { "service" } else { "one-off" },
                if constrained { "each third" } else { "none" },
                seconds * 1e3,
                row.swarmkit
                    .map_or("-".to_owned(), |theirs| format!("{theirs}s")),
                row.swarmkit
                    .map_or("-".to_owned(), |theirs| format!("{:.0}", theirs / seconds)),
                bytes,
            );
        }
    }
}

async fn measure(row: &Row) -> (Duration, usize) {
    let (store, _log) = MemoryProposer::with_store();
    let (_leads, leadership) = watch::channel(true);
    let (_members, members) = watch::channel(Arc::default());
    let config = ManagerConfig {
        node_id: "manager".into(),
        store: store.clone(),
        leadership,
        members,
    };
    let manager = Manager::start(config);
    until_it_leads(&manager).await;
    let nodes: Vec<proto::Node> = (0..row.nodes).map(node).collect();
    store
        .update(|tx| {
            for node in nodes {
                tx.create(node)?;
            }
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    let before = resident();
    let took = if row.service {
        as_service(&store, &manager, row).await
    } else {
        one_off(&store, row).await
    };
    let bytes = resident().saturating_sub(before) / row.tasks;
    manager.stop().await;
    store.close();
    (took, bytes)
}

async fn one_off(store: &Store, row: &Row) -> Duration {
    let spec = Arc::new(spec(row));
    let tasks: Vec<Task> = (0..row.tasks).map(|number| task(number, &spec)).collect();
    let start = Instant::now();
    let assigned = assigned(store, row.tasks);
    store
        .update(|tx| {
            for task in tasks {
                tx.create(task)?;
            }
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    assigned.await;
    start.elapsed()
}

async fn as_service(store: &Store, manager: &Manager, row: &Row) -> Duration {
    let spec = proto::ServiceSpec {
        annotations: Some(proto::Annotations {
            name: "bench".to_owned(),
            ..Default::default()
        }),
        task: Some(spec(row)),
        mode: Some(proto::service_spec::Mode::Replicated(
            proto::ReplicatedService {
                replicas: row.tasks as u64,
            },
        )),
        ..Default::default()
    };
    let start = Instant::now();
    let assigned = assigned(store, row.tasks);
    let request = proto::CreateServiceRequest { spec: Some(spec) };
    manager.control().create_service(request).await.unwrap();
    assigned.await;
    start.elapsed()
}

/// Returns once so many tasks have a node.
fn assigned(store: &Store, tasks: usize) -> impl Future<Output = ()> + use<> {
    let store = store.clone();
    let mut watch = store.watch(WatchFilter::from_iter([Selector::Kind(
        skep_model::ObjectKind::Task,
    )]));
    async move {
        let mut seen = 0;
        while seen < tasks {
            match watch.next().await {
                Ok(event) => {
                    if let Some(skep_model::Object::Task(task)) = &event.new
                        && task.status.state == TaskState::Assigned
                    {
                        seen += 1;
                    }
                }
                Err(WatchError::Lagged) => {
                    let has_node = |task: &&Arc<Task>| task.status.state == TaskState::Assigned;
                    while store.snapshot().tasks().filter(has_node).count() < tasks {
                        let _ = store.changed().changed().await;
                    }
                    return;
                }
                Err(WatchError::Closed) => return,
            }
        }
    }
}

async fn until_it_leads(manager: &Manager) {
    let caller = Caller {
        node_id: "nobody".into(),
        addr: None,
    };
    loop {
        let request = proto::HeartbeatRequest::default();
        match manager.dispatcher().heartbeat(&caller, request).await {
            Err(status) if status.code() == tonic::Code::Aborted => tokio::task::yield_now().await,
            _ => return,
        }
    }
}

fn spec(row: &Row) -> proto::TaskSpec {
    let constraints = if row.constrained {
        vec!["node.labels.third==yes".to_owned()]
    } else {
        Vec::new()
    };
    proto::TaskSpec {
        runtime: Some(proto::task_spec::Runtime::Container(proto::ContainerSpec {
            image: "busybox".to_owned(),
            ..Default::default()
        })),
        placement: Some(proto::Placement {
            constraints,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn task(number: usize, spec: &Arc<proto::TaskSpec>) -> Task {
    Task {
        id: format!("task{number:021}").into(),
        spec: Arc::clone(spec),
        desired_state: TaskState::Running,
        status: TaskStatus {
            state: TaskState::Pending,
            ..TaskStatus::default()
        },
        ..Task::default()
    }
}

fn node(number: usize) -> proto::Node {
    let third = number
        .is_multiple_of(3)
        .then(|| ("third".to_owned(), "yes".to_owned()));
    proto::Node {
        id: format!("node{number:021}"),
        spec: Some(proto::NodeSpec {
            annotations: Some(proto::Annotations {
                labels: third.into_iter().collect(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        status: Some(proto::NodeStatus {
            state: proto::node_status::State::Ready.into(),
            ..Default::default()
        }),
        description: Some(proto::NodeDescription {
            engine: Some(proto::EngineDescription::default()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Bytes of memory of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
