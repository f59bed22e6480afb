//! An agent without an engine: joins, keeps its session, takes assignments and reports on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use skep_agent::{DispatcherClient as _, ResponseStream};
use skep_ca::JoinToken;
use skep_proto as proto;
use skep_proto::TaskState;
use skep_proto::assignment::Item;
use skep_rpc::{Connector, NodeSecurity, Remotes, Slot, Uplink};
use tokio::time::sleep;

use crate::joins::Counts;

/// What a task goes through once its node has it.
const COURSE: [TaskState; 4] = [
    TaskState::Accepted,
    TaskState::Preparing,
    TaskState::Starting,
    TaskState::Running,
];

pub(crate) struct Agent {
    uplink: Uplink,
    session: ResponseStream<proto::SessionMessage>,
    session_id: String,
    /// The state last reported of each task.
    tasks: BTreeMap<String, TaskState>,
    counts: Arc<Counts>,
}

impl Agent {
    /// Everything a node does until its session with a manager stands.
    pub(crate) async fn join(
        number: usize,
        managers: &[String],
        token: &JoinToken,
        counts: Arc<Counts>,
    ) -> anyhow::Result<Self> {
        let remotes = Arc::new(Remotes::of_addrs(managers));
        let active = proto::node_spec::Availability::Active;
        let admission = skep_rpc::admission(&remotes, token, active).await?;
        let security = NodeSecurity::new(&admission.root, admission.certificate)?;
        let connector = Connector::new(Arc::new(security));
        let uplink = Uplink::new(connector, remotes, Slot::default());
        let request = proto::SessionRequest {
            description: Some(description(number)),
            session_id: String::new(),
        };
        let mut session = uplink.session(request).await?;
        let first = session.next().await.context("no session message")??;
        Ok(Self {
            uplink,
            session,
            session_id: first.session_id,
            tasks: BTreeMap::new(),
            counts,
        })
    }

    /// Beats and works until the session ends.
    pub(crate) async fn serve(mut self) -> anyhow::Result<()> {
        let session_id = self.session_id.clone();
        let request = proto::AssignmentsRequest {
            session_id: session_id.clone(),
        };
        let mut assignments = self.uplink.assignments(request).await?;
        let mut beat = Duration::ZERO;
        loop {
            tokio::select! {
                message = self.session.next() => drop(message.context("the session ended")??),
                message = assignments.next() => {
                    let message = message.context("the assignments ended")??;
                    self.take(message).await?;
                }
                () = sleep(beat) => beat = beat_once(&self.uplink, &session_id).await?,
            }
        }
    }

    async fn take(&mut self, message: proto::AssignmentsMessage) -> anyhow::Result<()> {
        use proto::assignment_change::AssignmentAction;
        let mut wanted = Vec::new();
        for change in message.changes {
            let action = change.action();
            let Some(Item::Task(task)) = change.assignment.and_then(|a| a.item) else {
                continue;
            };
            if action == AssignmentAction::Remove {
                self.tasks.remove(&task.id);
            } else {
                wanted.push((task.id.clone(), task.desired_state()));
            }
        }
        for step in COURSE {
            self.report(&wanted, step).await?;
        }
        self.end(&wanted).await
    }

    /// Brings all tasks that are to run one step on.
    async fn report(
        &mut self,
        wanted: &[(String, TaskState)],
        step: TaskState,
    ) -> anyhow::Result<()> {
        let due: Vec<String> = wanted
            .iter()
            .filter(|(task, desired)| {
                step <= *desired && self.tasks.get(task).is_none_or(|known| *known < step)
            })
            .filter(|(_, desired)| *desired <= TaskState::Running)
            .map(|(task, _)| task.clone())
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.update(&due, step).await?;
        if step == TaskState::Running {
            self.counts.running.fetch_add(due.len(), Ordering::Relaxed);
        }
        Ok(())
    }

    async fn end(&mut self, wanted: &[(String, TaskState)]) -> anyhow::Result<()> {
        let over: Vec<String> = wanted
            .iter()
            .filter(|(_, desired)| *desired > TaskState::Running)
            .map(|(task, _)| task.clone())
            .collect();
        if over.is_empty() {
            return Ok(());
        }
        self.update(&over, TaskState::Shutdown).await
    }

    async fn update(&mut self, tasks: &[String], state: TaskState) -> anyhow::Result<()> {
        let updates = tasks
            .iter()
            .map(|task| proto::update_task_status_request::TaskStatusUpdate {
                task_id: task.clone(),
                status: Some(proto::TaskStatus {
                    state: state.into(),
                    message: "simulated".to_owned(),
                    ..Default::default()
                }),
            })
            .collect();
        let request = proto::UpdateTaskStatusRequest {
            session_id: self.session_id.clone(),
            updates,
        };
        self.uplink.update_task_status(request).await?;
        for task in tasks {
            self.tasks.insert(task.clone(), state);
        }
        Ok(())
    }
}

/// Returns when the next one is due: at half of the time after which it would be missed.
async fn beat_once(uplink: &Uplink, session_id: &str) -> anyhow::Result<Duration> {
    let request = proto::HeartbeatRequest {
        session_id: session_id.to_owned(),
    };
    let answer = uplink.heartbeat(request).await?;
    let period = answer.period.context("a heartbeat without a period")?;
    let period = Duration::try_from(period).context("a period before now")?;
    Ok(period / 2)
}

fn description(number: usize) -> proto::NodeDescription {
    proto::NodeDescription {
        hostname: format!("agent{number}"),
        platform: Some(proto::Platform {
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
        }),
        resources: Some(proto::Resources {
            nano_cpus: 4_000_000_000,
            memory_bytes: 8 << 30,
            ..Default::default()
        }),
        engine: Some(proto::EngineDescription {
            engine_version: "28.0.0".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
