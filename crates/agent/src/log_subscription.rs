//! Answers one subscription of the log broker with the logs of this node's tasks.

use crate::worker::Worker;
use crate::{Controller, LogBrokerClient};
use futures::channel::mpsc;
use futures::stream::FuturesUnordered;
use futures::{SinkExt as _, StreamExt as _};
use skep_model::{Task, TaskId};
use skep_proto as proto;
use std::collections::HashSet;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Messages waiting for the network; a task's log is read no faster.
const IN_FLIGHT: usize = 16;
/// Lines that go into one message when they are there already.
const LINES: usize = 128;

/// Publishes until the logs end or, when following, until the subscription is closed.
pub(crate) async fn serve(
    worker: Arc<Worker>,
    client: Arc<dyn LogBrokerClient>,
    subscription: proto::SubscriptionMessage,
    closed: CancellationToken,
) {
    let (mut sender, receiver) = mpsc::channel(IN_FLIGHT);
    let id = subscription.id.clone();
    let feed = async {
        tokio::select! {
            () = closed.cancelled() => {}
            () = feed(&worker, &subscription, &sender) => {}
        }
        // Tells the manager that this node has no more; it may be gone.
        let end = proto::PublishLogsMessage {
            subscription_id: id,
            close: true,
            messages: vec![],
        };
        let _ = sender.send(end).await;
        drop(sender);
    };
    let publish = client.publish_logs(receiver.boxed());
    tokio::pin!(feed, publish);
    let result = tokio::select! {
        result = &mut publish => result,
        () = &mut feed => publish.await,
    };
    if let Err(error) = result {
        tracing::debug!(subscription.id, %error, "publishing logs ended early");
    }
}

async fn feed(
    worker: &Worker,
    subscription: &proto::SubscriptionMessage,
    sender: &mpsc::Sender<proto::PublishLogsMessage>,
) {
    let options = subscription.options.clone().unwrap_or_default();
    let selector = subscription.selector.clone().unwrap_or_default();
    let mut added = worker.added();
    let mut seen: HashSet<TaskId> = HashSet::new();
    let mut running = FuturesUnordered::new();
    loop {
        added.borrow_and_update();
        for (task, controller) in worker.select(|task| selects(&selector, task)) {
            if seen.insert(task.id.clone()) {
                let pump = pump(
                    task,
                    controller,
                    options.clone(),
                    &subscription.id,
                    sender.clone(),
                );
                running.push(pump);
            }
        }
        // Without following, it ends with the logs of the tasks there are now.
        if !options.follow {
            while running.next().await.is_some() {}
            return;
        }
        tokio::select! {
            Some(()) = running.next() => {}
            changed = added.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

async fn pump(
    task: Task,
    controller: Arc<dyn Controller>,
    options: proto::LogSubscriptionOptions,
    subscription_id: &str,
    mut sender: mpsc::Sender<proto::PublishLogsMessage>,
) {
    let lines = match controller.logs(options).await {
        Ok(lines) => lines,
        Err(error) => {
            tracing::warn!(task.id = %task.id, %error, "the task's logs are unavailable");
            return;
        }
    };
    let mut chunks = lines.ready_chunks(LINES);
    while let Some(chunk) = chunks.next().await {
        let mut messages = Vec::with_capacity(chunk.len());
        for line in chunk {
            match line {
                Ok(line) => messages.push(with_context(line, &task)),
                Err(error) => {
                    tracing::warn!(task.id = %task.id, %error, "reading the task's logs failed");
                }
            }
        }
        let message = proto::PublishLogsMessage {
            subscription_id: subscription_id.to_owned(),
            messages,
            close: false,
        };
        // The publisher is gone, and with it the subscription.
        if sender.send(message).await.is_err() {
            return;
        }
    }
}

fn with_context(mut line: proto::LogMessage, task: &Task) -> proto::LogMessage {
    line.context.get_or_insert_with(|| proto::LogContext {
        service_id: task.service_id.as_ref().map(Into::into).unwrap_or_default(),
        node_id: task.node_id.as_ref().map(Into::into).unwrap_or_default(),
        task_id: (&task.id).into(),
    });
    line
}

fn selects(selector: &proto::LogSelector, task: &Task) -> bool {
    let among = |ids: &[String], id: Option<&str>| id.is_some_and(|id| ids.iter().any(|i| i == id));
    among(&selector.task_ids, Some(task.id.as_str()))
        || among(
            &selector.service_ids,
            task.service_id.as_ref().map(skep_model::ServiceId::as_str),
        )
        || among(
            &selector.node_ids,
            task.node_id.as_ref().map(skep_model::NodeId::as_str),
        )
}
