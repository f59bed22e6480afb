//! One reader's wish for logs.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use skep_model::{NodeId, ServiceId, Task, TaskId, TaskState};
use skep_proto as proto;
use skep_store::View;
use tokio::sync::{mpsc, watch};
use tonic::Status;

type Output = mpsc::Sender<Result<proto::SubscribeLogsMessage, Status>>;

#[derive(Debug)]
pub(super) struct Subscription {
    message: proto::SubscriptionMessage,
    output: Output,
    progress: Mutex<Progress>,
    /// True once no node has anything more to send.
    completed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Progress {
    /// All nodes that have been asked.
    asked: BTreeSet<NodeId>,
    /// Those of them that are not done.
    open: BTreeSet<NodeId>,
    /// Tasks that are on no node.
    unscheduled: BTreeSet<TaskId>,
    errors: Vec<String>,
}

impl Subscription {
    pub(super) fn new(message: proto::SubscriptionMessage, output: Output) -> Self {
        let completed = watch::Sender::new(false);
        Self {
            message,
            output,
            progress: Mutex::default(),
            completed,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.message.id
    }

    pub(super) fn message(&self) -> &proto::SubscriptionMessage {
        &self.message
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    pub(super) fn follows(&self) -> bool {
        self.message
            .options
            .as_ref()
            .is_some_and(|options| options.follow)
    }

    fn selector(&self) -> proto::LogSelector {
        self.message.selector.clone().unwrap_or_default()
    }

    /// The nodes to ask, from the tasks that there are.
    pub(super) fn select(&self, view: &View) -> Vec<NodeId> {
        let selector = self.selector();
        let mut nodes: BTreeSet<NodeId> = selector
            .node_ids
            .iter()
            .map(|id| NodeId::from(id.as_str()))
            .collect();
        let mut progress = self.progress.lock();
        let mut add = |task: &Task| match &task.node_id {
            Some(node) => drop(nodes.insert(node.clone())),
            None => drop(progress.unscheduled.insert(task.id.clone())),
        };
        for task in selector
            .task_ids
            .iter()
            .filter_map(|id| view.get::<Task>(id))
        {
            add(task);
        }
        for service in &selector.service_ids {
            view.tasks_of_service(&ServiceId::from(service.as_str()))
                // Who does not wait for more need not be told of what has not begun.
                .filter(|task| self.follows() || task.status.state >= TaskState::Running)
                .for_each(|task| add(task));
        }
        progress.asked.clone_from(&nodes);
        progress.open.clone_from(&nodes);
        self.check_completion(&progress);
        nodes.into_iter().collect()
    }

    /// Enters a task as it now is; returns its node if that is to be asked from now on.
    pub(super) fn add(&self, task: &Task) -> Option<NodeId> {
        let selector = self.selector();
        let service = task.service_id.as_ref().map_or("", ServiceId::as_str);
        let selected = selector.task_ids.iter().any(|id| task.id == *id)
            || selector.service_ids.iter().any(|id| id == service);
        if !selected {
            return None;
        }
        let mut progress = self.progress.lock();
        let Some(node) = &task.node_id else {
            progress.unscheduled.insert(task.id.clone());
            return None;
        };
        progress.unscheduled.remove(&task.id);
        progress.open.insert(node.clone());
        progress.asked.insert(node.clone()).then(|| node.clone())
    }

    pub(super) fn asks(&self, node: &NodeId) -> bool {
        self.progress.lock().asked.contains(node)
    }

    pub(super) fn asked(&self) -> Vec<NodeId> {
        self.progress.lock().asked.iter().cloned().collect()
    }

    /// A node has sent all it has, or cannot.
    pub(super) fn done(&self, node: &NodeId, error: Option<String>) {
        let mut progress = self.progress.lock();
        if progress.open.remove(node) {
            progress.errors.extend(error);
        }
        self.check_completion(&progress);
    }

    fn check_completion(&self, progress: &Progress) {
        if progress.open.is_empty() && !self.follows() {
            self.completed.send_replace(true);
        }
    }

    /// Resolves when all nodes are done; never for one that follows.
    pub(super) async fn completed(&self) {
        // The sender is ours, so the wait cannot fail.
        let _ = self
            .completed
            .subscribe()
            .wait_for(|completed| *completed)
            .await;
    }

    /// What is missing, if anything.
    pub(super) fn error(&self) -> Option<String> {
        let progress = self.progress.lock();
        let unscheduled = progress
            .unscheduled
            .iter()
            .map(|task| format!("task {task} has not been scheduled"));
        let reasons: Vec<String> = progress.errors.iter().cloned().chain(unscheduled).collect();
        (!reasons.is_empty()).then(|| {
            format!(
                "warning: incomplete log stream. some logs could not be retrieved for the \
                 following reasons: {}",
                reasons.join(", ")
            )
        })
    }
}
