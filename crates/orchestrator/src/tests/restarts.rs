use std::time::Duration;

use skep_model::{TaskState, defaults};
use skep_proto as proto;
use skep_proto::node_spec::Availability;
use skep_proto::node_status::State;
use skep_proto::restart_policy::RestartCondition;
use skep_proto::update_config::UpdateOrder;

use super::world::World;

#[test]
fn a_failed_task_is_replaced_at_once_and_started_after_the_delay() {
    let mut world = World::replicated(1);
    world.settle();
    let failed = world.fail(1);
    world.settle();
    assert_eq!(world.tasks[&failed].desired_state, TaskState::Shutdown);
    assert_eq!(world.tasks[&failed].status.state, TaskState::Failed);
    let replacement = world.live(1);
    assert_eq!(replacement.desired_state, TaskState::Ready);
    assert_eq!(
        replacement.status.state,
        TaskState::Ready,
        "its node prepares it meanwhile"
    );
    assert_eq!(world.wake_at, Some(world.now + Duration::from_secs(5)));

    world.pass(4);
    assert_eq!(world.live(1).status.state, TaskState::Ready);
    world.pass(1);
    assert!(world.live(1).is_running());
}

#[test]
fn the_delay_runs_from_the_failure_whoever_leads() {
    let mut world = World::replicated(1);
    world.settle();
    world.fail(1);
    world.settle();
    world.pass(3);
    world.change_leader();
    world.settle();
    assert_eq!(world.wake_at, Some(world.now + Duration::from_secs(2)));

    // Nobody led for long after the next failure: the delay is over when it is noticed.
    world.pass(2);
    world.fail(1);
    world.now = world.now + Duration::from_secs(60);
    world.settle();
    assert!(world.live(1).is_running());
}

#[test]
fn the_policy_may_say_to_leave_it() {
    let ended = |condition: RestartCondition, state: TaskState| {
        let mut world = World::replicated(1);
        world.restart_policy(|policy| policy.condition = condition.into());
        world.settle();
        let task = world.live(1);
        world.report(&task.id, state);
        world.pass(60);
        world.running().len()
    };
    assert_eq!(ended(RestartCondition::Any, TaskState::Complete), 1);
    assert_eq!(ended(RestartCondition::Any, TaskState::Failed), 1);
    assert_eq!(ended(RestartCondition::OnFailure, TaskState::Complete), 0);
    assert_eq!(ended(RestartCondition::OnFailure, TaskState::Failed), 1);
    assert_eq!(ended(RestartCondition::OnFailure, TaskState::Rejected), 1);
    assert_eq!(ended(RestartCondition::None, TaskState::Failed), 0);
}

#[test]
fn attempts_are_limited_also_across_leaders_and_start_again_after_an_update() {
    let mut world = World::replicated(1);
    world.restart_policy(|policy| policy.max_attempts = 2);
    world.settle();
    for _ in 0..2 {
        world.fail(1);
        world.change_leader();
        world.pass(10);
        assert_eq!(world.running().len(), 1);
    }
    world.fail(1);
    world.pass(100);
    assert_eq!(world.running(), []);
    assert_eq!(world.in_slot(1).len(), 3, "the history that counts is kept");

    world.force_update();
    world.pass(10);
    assert_eq!(world.running().len(), 1);
}

#[test]
fn attempts_outside_the_window_are_forgiven() {
    let mut world = World::replicated(1);
    world.restart_policy(|policy| {
        policy.max_attempts = 1;
        policy.window = Some(defaults::wire_duration(Duration::from_secs(30)));
    });
    world.settle();
    for _ in 0..4 {
        world.pass(40);
        world.fail(1);
        world.pass(10);
        assert_eq!(world.running().len(), 1);
    }
    world.fail(1);
    world.pass(60);
    assert_eq!(world.running(), [], "the second failure within 30 seconds");
}

#[test]
fn an_image_that_cannot_be_had_is_not_tried_in_a_tight_loop() {
    let mut world = World::replicated(1);
    world.settle();
    world.fail(1);
    let mut tries = 0;
    let end = world.now + Duration::from_secs(60);
    while world.now < end {
        world.reconcile();
        let waiting = world.live(1);
        if waiting.status.state < TaskState::Rejected {
            world.report(&waiting.id, TaskState::Rejected);
            tries += 1;
        }
        world.reconcile();
        world.now = world
            .wake_at
            .expect("a time for the next try")
            .max(world.now);
    }
    assert!(tries <= 13, "{tries} tries in a minute");
}

#[test]
fn tasks_of_a_node_that_went_down_move_without_delay() {
    let mut world = World::replicated(3);
    world.settle();
    world.set_node_state("a", State::Down);
    world.settle();
    assert_eq!(world.running().len(), 3);
    assert!(
        world
            .tasks
            .values()
            .filter(|t| t.is_running())
            .all(|t| *t.node_id.as_ref().unwrap() != "a")
    );

    // Back again, it is told to stop what it still runs.
    world.set_node_state("a", State::Ready);
    world.settle();
    assert_eq!(world.running().len(), 3);
    let stopped = world
        .tasks
        .values()
        .filter(|t| t.status.state == TaskState::Shutdown)
        .count();
    assert_eq!(stopped, 1);
}

#[test]
fn a_removed_nodes_tasks_move() {
    let mut world = World::replicated(3);
    world.settle();
    world.nodes.remove("b");
    world.settle();
    assert_eq!(world.running().len(), 3);
}

#[test]
fn a_drained_node_is_emptied_one_stop_before_each_start() {
    let mut world = World::replicated(3);
    world.settle();
    world.set_availability("a", Availability::Drain);
    world.reconcile();
    let replacement = world.live(1);
    assert_eq!(
        replacement.desired_state,
        TaskState::Ready,
        "waits until the old one stopped"
    );
    world.settle();
    assert_eq!(world.running().len(), 3);
    assert_eq!(
        world.now,
        skep_model::Timestamp::from_secs(1_000),
        "without delay"
    );
}

#[test]
fn where_updates_start_first_a_drain_does_too() {
    let mut world = World::replicated(1);
    world.order(UpdateOrder::StartFirst);
    world.settle();
    let old = world.live(1).id.clone();
    world.set_availability("a", Availability::Drain);
    world.reconcile();
    assert_eq!(world.tasks[&old].desired_state, TaskState::Running);
    assert_eq!(world.in_slot(1).len(), 2);
    world.settle();
    let new = world.live(1);
    assert_ne!(new.id, old);
    assert!(new.is_running());
    assert_eq!(world.tasks[&old].status.state, TaskState::Shutdown);
    assert_eq!(world.update_state(), None);
}

#[test]
fn a_replacement_does_not_wait_for_ever_for_a_task_that_does_not_stop() {
    let mut world = World::replicated(1);
    world.settle();
    world.set_availability("a", Availability::Drain);
    world.reconcile();
    let new = world.live(1).id.clone();
    // Its node never says that it stopped.
    while world.tasks[&new].status.state < TaskState::Ready {
        world.work(&new);
    }
    world.reconcile();
    assert_eq!(world.wake_at, Some(world.now + Duration::from_secs(60)));
    world.now = world.now + Duration::from_secs(60);
    world.reconcile();
    assert_eq!(world.tasks[&new].desired_state, TaskState::Running);
}

#[test]
fn tasks_that_no_longer_fit_their_node_are_rejected_there() {
    let mut world = World::replicated(2);
    world.task_spec().placement = Some(proto::Placement {
        constraints: vec!["node.labels.disk!=slow".into()],
        ..Default::default()
    });
    world.settle();
    world.set_node("a", |node| {
        let labels = [("disk".to_owned(), "slow".to_owned())].into();
        let annotations = proto::Annotations {
            labels,
            ..Default::default()
        };
        node.spec.as_mut().unwrap().annotations = Some(annotations);
    });
    let on_node = |id: &str| -> Vec<_> {
        let on = |task: &&std::sync::Arc<_>| on_it(task, id);
        world.tasks.values().filter(on).cloned().collect()
    };
    fn on_it(task: &skep_model::Task, id: &str) -> bool {
        task.node_id.as_ref().is_some_and(|node| *node == id)
    }
    let rejected =
        |id: &str| crate::noncompliant(&world.nodes[id], &on_node(id), |_| Some(&world.service));
    assert_eq!(rejected("a"), [world.live(1).id.clone()]);
    assert!(rejected("b").is_empty());
}

#[test]
fn a_clock_that_was_set_back_holds_nothing_up() {
    let mut world = World::replicated(1);
    world.settle();
    world.fail(1);
    world.reconcile();
    world.now = skep_model::Timestamp::from_secs(10);
    world.settle();
    assert!(world.live(1).is_running());
    world.force_update();
    world.pass(6);
    assert_eq!(
        world.update_state(),
        Some(proto::update_status::UpdateState::Completed)
    );
}
