use futures::StreamExt as _;
use skep_model::ext::NodeExt as _;
use skep_model::{Task, TaskState, TaskStatus};
use skep_proto as proto;
use skep_proto::assignment::Item;
use skep_proto::assignment_change::AssignmentAction;
use skep_proto::assignments_message::Type;
use tonic::Code;

use crate::testing::{Swarm, caller, register};

fn description(hostname: &str) -> proto::NodeDescription {
    proto::NodeDescription {
        hostname: hostname.into(),
        ..Default::default()
    }
}

async fn put(swarm: &Swarm, task: Task) {
    swarm
        .store
        .update(|tx| match tx.task(&task.id) {
            Some(_) => tx.modify::<Task>(task.id.clone(), |old| *old = task.clone()),
            None => tx.create(task.clone()),
        })
        .await
        .unwrap();
}

fn task(id: &str, node: &str, state: TaskState) -> Task {
    Task {
        id: id.into(),
        node_id: Some(node.into()),
        desired_state: TaskState::Running,
        status: TaskStatus {
            state,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// Each change as action and id.
fn changes(message: &proto::AssignmentsMessage) -> Vec<(AssignmentAction, String)> {
    let id = |change: &proto::AssignmentChange| match &change.assignment.as_ref().unwrap().item {
        Some(Item::Task(task)) => task.id.clone(),
        Some(Item::Secret(secret)) => format!("secret {}", secret.id),
        Some(Item::Config(config)) => format!("config {}", config.id),
        other => panic!("{other:?}"),
    };
    message
        .changes
        .iter()
        .map(|change| (change.action(), id(change)))
        .collect()
}

async fn assignments(
    swarm: &Swarm,
    node: &str,
    session: &str,
) -> super::ResponseStream<proto::AssignmentsMessage> {
    let request = proto::AssignmentsRequest {
        session_id: session.into(),
    };
    swarm
        .manager
        .dispatcher()
        .assignments(&caller(node), request)
        .await
        .unwrap()
}

async fn report(
    swarm: &Swarm,
    node: &str,
    session: &str,
    task: &str,
    state: TaskState,
) -> Result<(), tonic::Status> {
    let status = proto::TaskStatus {
        state: state.into(),
        ..Default::default()
    };
    let update = proto::update_task_status_request::TaskStatusUpdate {
        task_id: task.into(),
        status: Some(status),
    };
    let request = proto::UpdateTaskStatusRequest {
        session_id: session.into(),
        updates: vec![update],
    };
    swarm
        .manager
        .dispatcher()
        .update_task_status(&caller(node), request)
        .await
        .map(drop)
}

#[tokio::test]
async fn a_node_that_registers_is_ready_with_its_description_before_it_is_answered() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    register(swarm.manager.dispatcher(), "a", description("alpha")).await;
    let node = swarm.store.snapshot().node(&"a".into()).cloned().unwrap();
    assert_eq!(node.status().state(), proto::node_status::State::Ready);
    assert_eq!(node.description, Some(description("alpha")));
}

#[tokio::test]
async fn the_session_is_told_of_changes_of_its_node_and_the_cluster() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let dispatcher = swarm.manager.dispatcher();
    let session_id = register(dispatcher, "a", description("a")).await;
    let request = proto::SessionRequest {
        description: None,
        session_id: session_id.clone(),
    };
    let mut session = dispatcher.session(&caller("a"), request).await.unwrap();
    let first = session.next().await.unwrap().unwrap();
    assert_eq!(first.session_id, session_id, "the session goes on");
    assert_eq!(first.node.unwrap().id, "a");
    swarm
        .store
        .update(|tx| {
            tx.modify::<proto::Cluster>("cluster", |cluster| {
                cluster.root_ca.get_or_insert_default().ca_cert = b"new".to_vec();
            })
        })
        .await
        .unwrap();
    assert_eq!(session.next().await.unwrap().unwrap().root_ca, b"new");
}

#[tokio::test]
async fn who_has_no_session_is_told_how_to_go_on() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let dispatcher = swarm.manager.dispatcher();
    let first = register(dispatcher, "a", description("a")).await;
    let heartbeat = async |node: &str, session: &str| {
        let request = proto::HeartbeatRequest {
            session_id: session.into(),
        };
        dispatcher
            .heartbeat(&caller(node), request)
            .await
            .map_err(|status| status.code())
    };
    assert!(heartbeat("a", &first).await.is_ok());
    assert_eq!(heartbeat("a", "").await.unwrap_err(), Code::InvalidArgument);
    assert_eq!(
        heartbeat("a", "other").await.unwrap_err(),
        Code::InvalidArgument
    );
    assert_eq!(heartbeat("b", &first).await.unwrap_err(), Code::NotFound);
    register(dispatcher, "a", description("a")).await;
    assert_eq!(
        heartbeat("a", &first).await.unwrap_err(),
        Code::InvalidArgument
    );

    let unknown = proto::SessionRequest::default();
    let refused = dispatcher
        .session(&caller("nobody"), unknown)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.message(), "node not found");
}

#[tokio::test]
async fn a_node_gets_its_tasks_and_then_what_changes() {
    let swarm = Swarm::with_nodes(&["a", "b"]).await;
    let session = register(swarm.manager.dispatcher(), "a", description("a")).await;
    put(&swarm, task("t1", "a", TaskState::Assigned)).await;
    // Unwanted, so that the scheduler leaves it as it is.
    let mut pending = task("pending", "a", TaskState::Pending);
    pending.desired_state = TaskState::Shutdown;
    put(&swarm, pending).await;
    put(&swarm, task("elsewhere", "b", TaskState::Assigned)).await;
    let mut stream = assignments(&swarm, "a", &session).await;

    let complete = stream.next().await.unwrap().unwrap();
    assert_eq!(complete.r#type(), Type::Complete);
    assert_eq!(
        (complete.applies_to.as_str(), complete.results_in.as_str()),
        ("", "1")
    );
    assert_eq!(
        changes(&complete),
        [(AssignmentAction::Update, "t1".into())]
    );

    put(&swarm, task("t2", "a", TaskState::Assigned)).await;
    let incremental = stream.next().await.unwrap().unwrap();
    assert_eq!(incremental.r#type(), Type::Incremental);
    assert_eq!(
        (
            incremental.applies_to.as_str(),
            incremental.results_in.as_str()
        ),
        ("1", "2")
    );
    assert_eq!(
        changes(&incremental),
        [(AssignmentAction::Update, "t2".into())]
    );

    // What the agent reported itself is no news to it; that it shall stop is.
    report(&swarm, "a", &session, "t1", TaskState::Running)
        .await
        .unwrap();
    let running = |s: &skep_store::Snapshot| {
        s.task(&"t1".into())
            .filter(|t| t.status.state == TaskState::Running)
            .map(drop)
    };
    swarm.until("t1 running", running).await;
    let mut stop = swarm
        .store
        .snapshot()
        .task(&"t1".into())
        .unwrap()
        .as_ref()
        .clone();
    stop.desired_state = TaskState::Shutdown;
    put(&swarm, stop).await;
    let update = stream.next().await.unwrap().unwrap();
    assert_eq!(changes(&update), [(AssignmentAction::Update, "t1".into())]);

    swarm
        .store
        .update(|tx| tx.delete::<Task>("t1"))
        .await
        .unwrap();
    let removal = stream.next().await.unwrap().unwrap();
    assert_eq!(changes(&removal), [(AssignmentAction::Remove, "t1".into())]);
}

#[tokio::test]
async fn secrets_come_with_the_first_task_that_uses_them_and_go_with_the_last() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let session = register(swarm.manager.dispatcher(), "a", description("a")).await;
    let secret = proto::Secret {
        id: "s".into(),
        spec: Some(proto::SecretSpec {
            annotations: Some(proto::Annotations {
                name: "key".into(),
                ..Default::default()
            }),
            data: b"x".to_vec(),
            ..Default::default()
        }),
        ..Default::default()
    };
    swarm.store.update(|tx| tx.create(secret)).await.unwrap();
    let using = |id: &str| {
        let mut task = task(id, "a", TaskState::Assigned);
        let reference = proto::SecretReference {
            secret_id: "s".into(),
            secret_name: "key".into(),
            target: None,
        };
        let container = proto::ContainerSpec {
            secrets: vec![reference],
            ..Default::default()
        };
        task.spec = std::sync::Arc::new(proto::TaskSpec {
            runtime: Some(proto::task_spec::Runtime::Container(container)),
            ..Default::default()
        });
        task
    };
    let mut stream = assignments(&swarm, "a", &session).await;
    assert!(stream.next().await.unwrap().unwrap().changes.is_empty());
    put(&swarm, using("t1")).await;
    let expected = [
        (AssignmentAction::Update, "secret s".into()),
        (AssignmentAction::Update, "t1".into()),
    ];
    assert_eq!(changes(&stream.next().await.unwrap().unwrap()), expected);
    put(&swarm, using("t2")).await;
    let second = changes(&stream.next().await.unwrap().unwrap());
    assert_eq!(second, [(AssignmentAction::Update, "t2".into())]);
    swarm
        .store
        .update(|tx| tx.delete::<Task>("t1"))
        .await
        .unwrap();
    let removed = changes(&stream.next().await.unwrap().unwrap());
    assert_eq!(removed, [(AssignmentAction::Remove, "t1".into())]);
    swarm
        .store
        .update(|tx| tx.delete::<Task>("t2"))
        .await
        .unwrap();
    let expected = [
        (AssignmentAction::Remove, "secret s".into()),
        (AssignmentAction::Remove, "t2".into()),
    ];
    assert_eq!(changes(&stream.next().await.unwrap().unwrap()), expected);
}

#[tokio::test]
async fn states_only_go_forward() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let session = register(swarm.manager.dispatcher(), "a", description("a")).await;
    put(&swarm, task("t", "a", TaskState::Assigned)).await;
    report(&swarm, "a", &session, "t", TaskState::Running)
        .await
        .unwrap();
    report(&swarm, "a", &session, "t", TaskState::Preparing)
        .await
        .unwrap();
    report(&swarm, "a", &session, "unknown", TaskState::Running)
        .await
        .unwrap();
    report(&swarm, "a", &session, "t", TaskState::Failed)
        .await
        .unwrap();
    let seen = |s: &skep_store::Snapshot| {
        s.task(&"t".into())
            .filter(|t| t.status.state == TaskState::Failed)
            .map(drop)
    };
    swarm.until("t failed", seen).await;
}

#[tokio::test]
async fn a_node_may_not_speak_for_anothers_tasks() {
    let swarm = Swarm::with_nodes(&["a", "b"]).await;
    let session = register(swarm.manager.dispatcher(), "b", description("b")).await;
    put(&swarm, task("t", "a", TaskState::Assigned)).await;
    let refused = report(&swarm, "b", &session, "t", TaskState::Running)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(
        refused.message(),
        "cannot update a task not assigned this node"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_goes_down_and_its_streams_end() {
    let swarm = Swarm::with_nodes(&["a", "b"]).await;
    let session = register(swarm.manager.dispatcher(), "a", description("a")).await;
    let mut stream = assignments(&swarm, "a", &session).await;
    stream.next().await.unwrap().unwrap();
    let ended = stream.next().await.unwrap().unwrap_err();
    assert_eq!(ended.message(), "session invalid");
    let down = |id: &'static str| {
        move |s: &skep_store::Snapshot| {
            let node = s.node(&id.into()).cloned();
            node.filter(|n| n.status().state() == proto::node_status::State::Down)
        }
    };
    let node = swarm.until("a is down", down("a")).await;
    assert_eq!(node.status().message, "heartbeat failure");
    // One that never registered with this leader is waited for longer.
    let node = swarm.until("b is down", down("b")).await;
    assert_eq!(
        node.status().message,
        "heartbeat failure for node in \"unknown\" state"
    );
}
