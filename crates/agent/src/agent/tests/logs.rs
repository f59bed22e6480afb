use super::fakes::{Lab, running, task};
use skep_model::TaskState as S;
use skep_proto as proto;

fn subscribe(lab: &Lab, follow: bool) {
    let message = proto::SubscriptionMessage {
        id: "sub".into(),
        selector: Some(proto::LogSelector {
            service_ids: vec!["service".into()],
            ..Default::default()
        }),
        options: Some(proto::LogSubscriptionOptions {
            follow,
            ..Default::default()
        }),
        close: false,
    };
    send(lab, message);
}

fn send(lab: &Lab, message: proto::SubscriptionMessage) {
    let state = lab.manager.state.lock();
    state
        .subscriptions
        .as_ref()
        .unwrap()
        .unbounded_send(Ok(message))
        .unwrap();
}

fn lines(lab: &Lab) -> Vec<String> {
    let state = lab.manager.state.lock();
    let messages = state.published.iter().flat_map(|message| &message.messages);
    let mut lines: Vec<String> = messages
        .map(|line| String::from_utf8(line.data.clone()).unwrap())
        .collect();
    lines.sort();
    lines
}

fn ended(lab: &Lab) -> bool {
    lab.manager
        .state
        .lock()
        .published
        .last()
        .is_some_and(|message| message.close)
}

#[tokio::test(start_paused = true)]
async fn the_logs_of_a_service_are_published_with_their_context_and_an_end() {
    let lab = Lab::new();
    let _agent = lab.start();
    let other = skep_model::Task {
        service_id: Some("other".into()),
        ..running("c")
    };
    lab.manager
        .complete([running("a"), task("b", S::Ready), other]);
    lab.reported("a", S::Running).await;
    subscribe(&lab, false);
    lab.until("the end is told", || ended(&lab)).await;
    assert_eq!(lines(&lab), ["a one", "a two", "b one", "b two"]);
    let state = lab.manager.state.lock();
    let first = &state.published[0];
    assert_eq!(first.subscription_id, "sub");
    let context = first.messages[0].context.as_ref().unwrap();
    assert_eq!(
        (context.service_id.as_str(), context.node_id.as_str()),
        ("service", "node-1")
    );
    assert!(["a", "b"].contains(&context.task_id.as_str()));
}

#[tokio::test(start_paused = true)]
async fn following_goes_on_to_new_tasks_until_it_is_closed() {
    let lab = Lab::new();
    let _agent = lab.start();
    lab.manager.complete([running("a")]);
    lab.reported("a", S::Running).await;
    subscribe(&lab, true);
    subscribe(&lab, true);
    lab.until("the logs come", || lines(&lab) == ["a one", "a two"])
        .await;
    lab.manager.increment([running("b")]);
    lab.until("the new task's too", || lines(&lab).len() == 4)
        .await;
    assert!(!ended(&lab));
    let close = proto::SubscriptionMessage {
        id: "sub".into(),
        close: true,
        ..Default::default()
    };
    send(&lab, close);
    lab.until("the end is told", || ended(&lab)).await;
    assert_eq!(lines(&lab), ["a one", "a two", "b one", "b two"]);
}
