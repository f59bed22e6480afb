use std::time::Duration;

use skep_model::ext::NodeExt as _;
use skep_model::{TaskState, defaults};
use skep_proto as proto;
use skep_proto::service_spec::Mode;
use skep_proto::update_status::UpdateState;

use crate::testing::{Agent, Swarm, container, service};

#[tokio::test]
async fn fifty_replicas_are_created_and_assigned_in_one_entry() {
    let swarm = Swarm::with_nodes(&["a", "b"]).await;
    let _agents = [
        Agent::connect(&swarm, "a").await,
        Agent::connect(&swarm, "b").await,
    ];
    let before = swarm.log.committed().len();
    let web = swarm.create(service("web", 50)).await;
    let tasks = swarm.until_running(&web, 50).await;
    let on_a = tasks
        .iter()
        .filter(|task| *task.node_id.as_ref().unwrap() == "a")
        .count();
    assert_eq!(on_a, 25);

    let entries = &swarm.log.committed()[before..];
    assert_eq!(entries[0].len(), 1, "the service");
    assert_eq!(entries[1].len(), 50, "its tasks, each with its node");
    assert!(entries.len() <= 60, "{} entries", entries.len());
    let specs = tasks
        .windows(2)
        .all(|pair| std::sync::Arc::ptr_eq(&pair[0].spec, &pair[1].spec));
    assert!(specs, "siblings share their spec");
}

#[tokio::test]
async fn a_task_that_waits_says_why_and_goes_on_when_a_node_comes() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let web = swarm.create(service("web", 1)).await;
    let waiting = swarm
        .until("a task that says why it waits", |snapshot| {
            let task = snapshot.tasks_of_service(&web).next().cloned();
            task.filter(|task| !task.status.err.is_empty())
        })
        .await;
    assert_eq!(waiting.status.state, TaskState::Pending);
    assert_eq!(waiting.status.message, "pending task scheduling");
    assert_eq!(
        waiting.status.err,
        "no suitable node (1 node not available for new tasks)"
    );
    let _agent = Agent::connect(&swarm, "a").await;
    let running = swarm.until_running(&web, 1).await;
    assert_eq!(running[0].id, waiting.id);
    assert_eq!(running[0].status.err, "");
}

#[tokio::test]
async fn a_killed_task_is_replaced_in_its_slot() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let agent = Agent::connect(&swarm, "a").await;
    let web = swarm.create(service("web", 2)).await;
    let tasks = swarm.until_running(&web, 2).await;
    let killed = &tasks[0];
    agent
        .report(killed, TaskState::Failed, "task: non-zero exit (137)")
        .await;
    let failed = swarm
        .until("the replacement running", |snapshot| {
            let slot: Vec<_> = snapshot.tasks_of_slot(&web, killed.slot).collect();
            let replaced = slot.len() == 2 && slot.iter().any(|task| task.is_running());
            replaced.then(|| snapshot.task(&killed.id).cloned().unwrap())
        })
        .await;
    assert_eq!(failed.desired_state, TaskState::Shutdown);
    assert_eq!(failed.status.state, TaskState::Failed);
    assert_eq!(failed.status.err, "task: non-zero exit (137)");
    assert_eq!(failed.status.applied_by, Some("manager".into()));
}

#[tokio::test]
async fn a_restart_delay_is_waited_for() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let agent = Agent::connect(&swarm, "a").await;
    let mut spec = service("web", 1);
    spec.task.as_mut().unwrap().restart.as_mut().unwrap().delay =
        Some(defaults::wire_duration(Duration::from_millis(300)));
    let web = swarm.create(spec).await;
    let first = swarm.until_running(&web, 1).await.remove(0);
    agent.report(&first, TaskState::Failed, "").await;
    let failed_at = std::time::Instant::now();
    swarm
        .until("a replacement that waits, prepared", |snapshot| {
            let mut tasks = snapshot.tasks_of_service(&web);
            tasks
                .find(|task| task.status.state == TaskState::Ready)
                .cloned()
        })
        .await;
    swarm.until_running(&web, 1).await;
    assert!(failed_at.elapsed() >= Duration::from_millis(290));
}

#[tokio::test]
async fn scaling_and_removing_stop_tasks_and_forget_them() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let agent = Agent::connect(&swarm, "a").await;
    let web = swarm.create(service("web", 3)).await;
    let tasks = swarm.until_running(&web, 3).await;
    swarm
        .update(&web, |spec| {
            spec.mode = Some(Mode::Replicated(proto::ReplicatedService { replicas: 1 }));
        })
        .await;
    let left = |count: usize| {
        let web = web.clone();
        move |snapshot: &skep_store::Snapshot| {
            (snapshot.tasks_of_service(&web).count() == count).then_some(())
        }
    };
    swarm.until("one task left", left(1)).await;
    let request = proto::RemoveServiceRequest {
        service_id: (&web).into(),
    };
    swarm
        .manager
        .control()
        .remove_service(request)
        .await
        .unwrap();
    swarm.until("no task left", left(0)).await;
    assert_eq!(swarm.store.snapshot().count::<skep_model::Task>(), 0);
    // The agent was told to forget them too.
    while tasks.iter().any(|task| agent.knows(task)) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_update_replaces_all_tasks_and_a_rollback_brings_the_old_spec_back() {
    let swarm = Swarm::with_nodes(&["a", "b"]).await;
    let _agents = [
        Agent::connect(&swarm, "a").await,
        Agent::connect(&swarm, "b").await,
    ];
    let mut spec = service("web", 3);
    spec.update = Some(proto::UpdateConfig {
        monitor: Some(defaults::wire_duration(Duration::from_millis(50))),
        ..defaults::update_config()
    });
    spec.rollback.clone_from(&spec.update);
    let web = swarm.create(spec).await;
    swarm.until_running(&web, 3).await;
    let updated = swarm
        .update(&web, |spec| container(spec).image = "busybox:2".into())
        .await;
    assert_eq!(updated.update_status, None);
    let image_of_all = |image: &'static str, state: UpdateState| {
        let web = web.clone();
        move |snapshot: &skep_store::Snapshot| {
            let service = snapshot.service(&web)?;
            let running = snapshot
                .tasks_of_service(&web)
                .filter(|task| task.is_running() && task.container().unwrap().image == image);
            let done = service.update_status.as_ref()?.state() == state;
            (running.count() == 3 && done).then(|| service.clone())
        }
    };
    let service = swarm
        .until(
            "the update",
            image_of_all("busybox:2", UpdateState::Completed),
        )
        .await;
    assert_eq!(
        service.update_status.as_ref().unwrap().message,
        "update completed"
    );

    let request = proto::UpdateServiceRequest {
        service_id: (&web).into(),
        service_version: service.meta.unwrap().version,
        spec: service.spec.clone(),
        rollback: proto::update_service_request::Rollback::Previous.into(),
    };
    let rolled = swarm
        .manager
        .control()
        .update_service(request)
        .await
        .unwrap()
        .service
        .unwrap();
    assert_eq!(
        rolled.update_status.unwrap().message,
        "manually requested rollback"
    );
    swarm
        .until(
            "the rollback",
            image_of_all("busybox", UpdateState::RollbackCompleted),
        )
        .await;
}

#[tokio::test]
async fn a_global_service_follows_the_nodes() {
    let swarm = Swarm::with_nodes(&["a", "b"]).await;
    let _a = Agent::connect(&swarm, "a").await;
    let mut spec = service("agent", 0);
    spec.mode = Some(Mode::Global(proto::GlobalService {}));
    let id = swarm.create(spec).await;
    swarm.until_running(&id, 1).await;
    let _b = Agent::connect(&swarm, "b").await;
    swarm.until_running(&id, 2).await;
}

#[tokio::test]
async fn a_drained_node_is_emptied() {
    let swarm = Swarm::with_nodes(&["a", "b"]).await;
    let _agents = [
        Agent::connect(&swarm, "a").await,
        Agent::connect(&swarm, "b").await,
    ];
    let web = swarm.create(service("web", 4)).await;
    swarm.until_running(&web, 4).await;
    let node = swarm.store.snapshot().node(&"a".into()).cloned().unwrap();
    let spec = proto::NodeSpec {
        availability: proto::node_spec::Availability::Drain.into(),
        ..node.spec().clone()
    };
    let request = proto::UpdateNodeRequest {
        node_id: "a".into(),
        node_version: node.meta.unwrap().version,
        spec: Some(spec),
    };
    swarm.manager.control().update_node(request).await.unwrap();
    swarm
        .until("all on b", |snapshot| {
            let on_b = snapshot
                .tasks_on_node(&"b".into())
                .filter(|task| task.is_running());
            (on_b.count() == 4).then_some(())
        })
        .await;
}

#[tokio::test]
async fn tasks_that_no_longer_fit_their_node_move() {
    let swarm = Swarm::with_nodes(&["a", "b"]).await;
    let a = Agent::connect(&swarm, "a").await;
    let mut spec = service("web", 1);
    spec.task.as_mut().unwrap().placement = Some(proto::Placement {
        constraints: vec!["node.hostname!=bad".into()],
        ..Default::default()
    });
    let web = swarm.create(spec).await;
    let task = swarm.until_running(&web, 1).await.remove(0);
    let _b = Agent::connect(&swarm, "b").await;
    drop(a);
    // The machine comes back under another name.
    let renamed = proto::NodeDescription {
        hostname: "bad".into(),
        ..Default::default()
    };
    let _a = Agent::connect_as(&swarm, "a", renamed).await;
    let rejected = swarm
        .until("the task on b", |snapshot| {
            let moved = snapshot
                .tasks_on_node(&"b".into())
                .any(|task| task.is_running());
            moved.then(|| snapshot.task(&task.id).cloned().unwrap())
        })
        .await;
    assert_eq!(
        rejected.status.err,
        "assigned node no longer meets constraints"
    );
}

#[tokio::test]
async fn a_new_leader_goes_on_where_the_old_one_stopped() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let agent = Agent::connect(&swarm, "a").await;
    let web = swarm.create(service("web", 2)).await;
    swarm.until_running(&web, 2).await;
    drop(agent);
    swarm.leads.send_replace(false);
    swarm.log.lose_leadership();
    let refused = swarm
        .manager
        .control()
        .remove_service(proto::RemoveServiceRequest {
            service_id: (&web).into(),
        });
    let error = refused.await.unwrap_err();
    assert_eq!(error.code, crate::Code::Unavailable);
    swarm.log.lead();
    swarm.leads.send_replace(true);
    swarm
        .update(&web, |spec| {
            spec.mode = Some(Mode::Replicated(proto::ReplicatedService { replicas: 3 }));
        })
        .await;
    let _agent = Agent::connect(&swarm, "a").await;
    swarm.until_running(&web, 3).await;
}

#[tokio::test]
async fn stopping_the_manager_ends_everything() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let _agent = Agent::connect(&swarm, "a").await;
    swarm.manager.stop().await;
    let caller = crate::testing::caller("a");
    let request = proto::HeartbeatRequest::default();
    let refused = swarm
        .manager
        .dispatcher()
        .heartbeat(&caller, request)
        .await
        .unwrap_err();
    assert_eq!(refused.message(), "dispatcher is stopped");
}
