use std::sync::Arc;

use futures::{StreamExt as _, stream};
use skep_model::{Task, TaskState, TaskStatus};
use skep_proto as proto;
use skep_store::MemoryProposer;
use tokio_util::sync::CancellationToken;

use super::LogBroker;
use crate::testing::caller;

async fn broker(tasks: &[(&str, Option<&str>)]) -> (Arc<LogBroker>, skep_store::Store) {
    let store = MemoryProposer::store();
    for (id, node) in tasks {
        let task = Task {
            id: (*id).into(),
            service_id: Some("web".into()),
            node_id: node.map(Into::into),
            status: TaskStatus {
                state: TaskState::Running,
                ..Default::default()
            },
            ..Default::default()
        };
        store.update(|tx| tx.create(task)).await.unwrap();
    }
    let broker = Arc::new(LogBroker::new(store.clone()));
    let running = Arc::clone(&broker);
    tokio::spawn(async move { running.run(CancellationToken::new()).await });
    while broker.stopped().is_err() {
        tokio::task::yield_now().await;
    }
    (broker, store)
}

fn request(follow: bool) -> proto::SubscribeLogsRequest {
    proto::SubscribeLogsRequest {
        selector: Some(proto::LogSelector {
            service_ids: vec!["web".into()],
            ..Default::default()
        }),
        options: Some(proto::LogSubscriptionOptions {
            follow,
            ..Default::default()
        }),
    }
}

fn logs(subscription: &str, node: &str, text: &str) -> proto::PublishLogsMessage {
    let context = proto::LogContext {
        node_id: node.into(),
        ..Default::default()
    };
    let message = proto::LogMessage {
        context: Some(context),
        data: text.as_bytes().to_vec(),
        ..Default::default()
    };
    proto::PublishLogsMessage {
        subscription_id: subscription.into(),
        messages: vec![message],
        close: false,
    }
}

async fn listen(
    broker: &Arc<LogBroker>,
    node: &str,
) -> crate::ResponseStream<proto::SubscriptionMessage> {
    let request = proto::ListenSubscriptionsRequest {};
    broker
        .listen_subscriptions(&caller(node), request)
        .await
        .unwrap()
}

fn text(message: Option<Result<proto::SubscribeLogsMessage, tonic::Status>>) -> String {
    let message = message.expect("a message").expect("no error");
    String::from_utf8(message.messages[0].data.clone()).unwrap()
}

#[tokio::test]
async fn logs_of_all_nodes_reach_the_subscriber_and_then_the_stream_ends() {
    let (broker, _store) = broker(&[("t1", Some("a")), ("t2", Some("b"))]).await;
    let mut agents = [listen(&broker, "a").await, listen(&broker, "b").await];
    let mut subscriber = broker.subscribe_logs(request(false)).unwrap();
    for (agent, node) in agents.iter_mut().zip(["a", "b"]) {
        let subscription = agent.next().await.unwrap().unwrap();
        assert_eq!(subscription.selector.unwrap().service_ids, ["web"]);
        let messages = stream::iter([logs(&subscription.id, node, &format!("from {node}"))]);
        broker.publish_logs(&caller(node), messages).await.unwrap();
    }
    assert_eq!(text(subscriber.next().await), "from a");
    assert_eq!(text(subscriber.next().await), "from b");
    assert!(subscriber.next().await.is_none());
    assert!(
        agents[0].next().await.unwrap().unwrap().close,
        "the nodes may forget it"
    );
}

#[tokio::test]
async fn what_is_missing_is_said_at_the_end() {
    let (broker, _store) = broker(&[("t1", Some("a")), ("t2", None)]).await;
    let mut subscriber = broker.subscribe_logs(request(false)).unwrap();
    let error = subscriber.next().await.unwrap().unwrap_err();
    assert_eq!(
        error.message(),
        "warning: incomplete log stream. some logs could not be retrieved for the following \
         reasons: node a is not available, task t2 has not been scheduled"
    );
}

#[tokio::test]
async fn an_agent_that_hangs_up_does_not_hold_the_reader() {
    let (broker, _store) = broker(&[("t1", Some("a"))]).await;
    let mut agent = listen(&broker, "a").await;
    let mut subscriber = broker.subscribe_logs(request(false)).unwrap();
    agent.next().await.unwrap().unwrap();
    drop(agent);
    let error = subscriber.next().await.unwrap().unwrap_err();
    assert!(
        error
            .message()
            .ends_with("node a disconnected unexpectedly"),
        "{error}"
    );
}

#[tokio::test]
async fn following_reaches_nodes_that_get_tasks_later() {
    let (broker, store) = broker(&[("t1", Some("a"))]).await;
    let mut a = listen(&broker, "a").await;
    let mut b = listen(&broker, "b").await;
    let mut subscriber = broker.subscribe_logs(request(true)).unwrap();
    a.next().await.unwrap().unwrap();
    let later = Task {
        id: "t2".into(),
        service_id: Some("web".into()),
        node_id: Some("b".into()),
        ..Default::default()
    };
    store.update(|tx| tx.create(later)).await.unwrap();
    let subscription = b.next().await.unwrap().unwrap();
    let messages = stream::iter([logs(&subscription.id, "b", "late")]);
    broker.publish_logs(&caller("b"), messages).await.unwrap();
    assert_eq!(text(subscriber.next().await), "late");
    drop(subscriber);
    assert!(b.next().await.unwrap().unwrap().close);
}

#[tokio::test]
async fn an_agent_that_connects_late_learns_of_what_is_followed() {
    let (broker, _store) = broker(&[("t1", Some("a"))]).await;
    let _subscriber = broker.subscribe_logs(request(true)).unwrap();
    let mut agent = listen(&broker, "a").await;
    assert!(!agent.next().await.unwrap().unwrap().close);
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let (broker, _store) = broker(&[("t1", Some("a"))]).await;
    let empty = proto::SubscribeLogsRequest::default();
    let error = broker.subscribe_logs(empty).err().unwrap();
    assert_eq!(error.message(), "log selector must be provided");
    let empty = proto::SubscribeLogsRequest {
        selector: Some(proto::LogSelector::default()),
        options: None,
    };
    let error = broker.subscribe_logs(empty).err().unwrap();
    assert_eq!(error.message(), "log selector must not be empty");

    let publish = |message| {
        let broker = Arc::clone(&broker);
        async move {
            let result = broker
                .publish_logs(&caller("a"), stream::iter([message]))
                .await;
            result.unwrap_err().message().to_owned()
        }
    };
    assert_eq!(publish(logs("", "a", "")).await, "missing subscription ID");
    assert_eq!(publish(logs("x", "a", "")).await, "unknown subscription ID");
    let mut agent = listen(&broker, "a").await;
    let _subscriber = broker.subscribe_logs(request(true)).unwrap();
    let id = agent.next().await.unwrap().unwrap().id;
    assert_eq!(
        publish(logs(&id, "b", "")).await,
        "invalid NodeID: expected=a;received=b"
    );
}
