use std::time::Duration;

use skep_model::{TaskState, defaults};
use skep_proto as proto;
use skep_proto::update_config::{FailureAction, UpdateOrder};
use skep_proto::update_status::UpdateState;

use super::world::World;

fn started(replicas: u64) -> World {
    let mut world = World::replicated(replicas);
    world.settle();
    world
}

#[test]
fn one_slot_after_the_other_is_replaced() {
    let mut world = started(3);
    let version = world.force_update();
    world.reconcile();
    assert_eq!(world.update_state(), Some(UpdateState::Updating));
    assert_eq!(world.message(), "update in progress");
    let stopping = world
        .tasks
        .values()
        .filter(|t| t.desired_state == TaskState::Shutdown)
        .count();
    assert_eq!(stopping, 1);
    assert_eq!(
        world.in_slot(1).last().unwrap().desired_state,
        TaskState::Ready
    );

    world.settle();
    assert_eq!(world.at_version(version), 3);
    assert_eq!(
        world.update_state(),
        Some(UpdateState::Updating),
        "still watched"
    );
    world.pass(4);
    assert_eq!(world.update_state(), Some(UpdateState::Updating));
    world.pass(1);
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
    assert_eq!(world.message(), "update completed");
    let status = world.service.update_status.as_ref().unwrap();
    assert_eq!(status.completed_at, Some(world.now.into()));
    assert_eq!(world.wake_at, None);
}

#[test]
fn the_delay_is_kept_between_slots() {
    let mut world = started(3);
    world.update_config(|c| c.delay = Some(defaults::wire_duration(Duration::from_secs(10))));
    let version = world.force_update();
    world.settle();
    assert_eq!(world.at_version(version), 1);
    world.pass(9);
    assert_eq!(world.at_version(version), 1);
    world.change_leader();
    world.pass(1);
    assert_eq!(world.at_version(version), 2);
    world.pass(10);
    assert_eq!(world.at_version(version), 3);
    // The delay, and because it is no shorter than the monitoring, the delay and a second more.
    world.pass(20);
    assert_eq!(world.update_state(), Some(UpdateState::Updating));
    world.pass(1);
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
}

#[test]
fn parallelism_zero_replaces_all_at_once() {
    let mut world = started(5);
    world.update_config(|c| c.parallelism = 0);
    world.force_update();
    world.reconcile();
    let stopping = world
        .tasks
        .values()
        .filter(|t| t.desired_state == TaskState::Shutdown)
        .count();
    assert_eq!(stopping, 5);
}

#[test]
fn start_first_overlaps_and_stop_first_does_not() {
    for (order, overlap) in [
        (UpdateOrder::StartFirst, true),
        (UpdateOrder::StopFirst, false),
    ] {
        let mut world = started(1);
        world.order(order);
        let version = world.force_update();
        world.reconcile();
        let [old, new] = &world.in_slot(1)[..] else {
            panic!("two tasks")
        };
        assert_eq!(old.desired_state <= TaskState::Running, overlap);
        assert_eq!(new.desired_state == TaskState::Running, overlap);
        world.settle();
        assert_eq!(world.running(), [(1, version)]);
    }
}

#[test]
fn only_what_changed_is_replaced() {
    let mut world = started(2);
    world.update(|spec| {
        let labels = [("a".to_owned(), "b".to_owned())].into();
        spec.annotations = Some(proto::Annotations {
            labels,
            ..Default::default()
        });
    });
    world.settle();
    assert_eq!(world.at_version(0), 2);
    assert_eq!(world.update_state(), None);
}

#[test]
fn a_change_of_constraints_moves_only_tasks_that_do_not_fit() {
    let mut world = started(3);
    world.update(|spec| {
        spec.task.as_mut().unwrap().placement = Some(proto::Placement {
            constraints: vec!["node.id!=b".into()],
            ..Default::default()
        });
    });
    world.reconcile();
    let stopping: Vec<_> = world
        .tasks
        .values()
        .filter(|t| t.desired_state == TaskState::Shutdown)
        .collect();
    assert_eq!(stopping.len(), 1);
    assert_eq!(stopping[0].node_id.as_ref().unwrap().as_str(), "b");
}

#[test]
fn a_failing_update_pauses_and_names_the_task() {
    let mut world = started(3);
    world.broken = Some(world.force_update());
    world.settle();
    assert_eq!(world.update_state(), Some(UpdateState::Paused));
    let failed = world.in_slot(1)[1].id.clone();
    assert_eq!(
        world.message(),
        format!("update paused due to failure or early termination of task {failed}")
    );
    assert_eq!(world.at_version(0), 2, "the others were left alone");
    world.pass(60);
    assert_eq!(world.at_version(0), 2);

    // The next update goes on.
    world.broken = None;
    let version = world.force_update();
    world.pass(60);
    assert_eq!(world.at_version(version), 3);
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
}

#[test]
fn a_failing_update_rolls_back() {
    let mut world = started(3);
    world.on_failure(FailureAction::Rollback);
    world.broken = Some(world.force_update());
    world.reconcile();
    while world.update_state() == Some(UpdateState::Updating) {
        world.work_all();
        world.reconcile();
    }
    assert_eq!(world.update_state(), Some(UpdateState::RollbackStarted));
    let failed = world.in_slot(1)[1].id.clone();
    assert_eq!(
        world.message(),
        format!("update rolled back due to failure or early termination of task {failed}")
    );
    world.pass(60);
    assert_eq!(world.at_version(0), 3);
    assert_eq!(world.update_state(), Some(UpdateState::RollbackCompleted));
    assert_eq!(world.message(), "rollback completed");
    assert_eq!(world.service.previous_spec, None);
}

#[test]
fn a_rollback_is_never_rolled_back() {
    let mut world = started(2);
    world.spec().rollback = Some(proto::UpdateConfig {
        failure_action: FailureAction::Rollback.into(),
        ..defaults::update_config()
    });
    world.on_failure(FailureAction::Rollback);
    let version = world.force_update();
    world.broken = Some(version);
    world.reconcile();
    while world.update_state() != Some(UpdateState::RollbackStarted) {
        world.now = world.now + Duration::from_millis(1);
        world.work_all();
        world.apply_next();
    }
    world.broken = Some(0);
    world.pass(60);
    assert_eq!(world.update_state(), Some(UpdateState::RollbackPaused));
    assert!(
        world
            .message()
            .starts_with("rollback paused due to failure or early termination of task ")
    );
}

#[test]
fn failures_within_the_ratio_are_tolerated() {
    let mut world = started(4);
    world.update_config(|c| c.max_failure_ratio = 0.3);
    let version = world.force_update();
    world.broken = Some(version);
    while world.in_slot(1).len() < 3 {
        world.work_all();
        world.apply_next();
    }
    world.broken = None;
    world.pass(60);
    assert_eq!(
        world.update_state(),
        Some(UpdateState::Completed),
        "one of four"
    );
    assert_eq!(world.at_version(version), 4);
}

#[test]
fn failures_may_be_ignored() {
    let mut world = started(2);
    world.on_failure(FailureAction::Continue);
    world.broken = Some(world.force_update());
    for _ in 0..20 {
        world.pass(1);
    }
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
}

#[test]
fn a_task_that_fails_later_than_the_monitoring_is_no_failed_update() {
    let mut world = started(2);
    world.update_config(|c| c.delay = Some(defaults::wire_duration(Duration::from_secs(20))));
    world.force_update();
    world.pass(6);
    world.fail(1);
    world.pass(60);
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
}

#[test]
fn a_task_that_fails_while_it_is_monitored_stops_the_update_even_if_it_was_the_last() {
    let mut world = started(1);
    world.force_update();
    world.pass(4);
    world.fail(1);
    world.settle();
    assert_eq!(world.update_state(), Some(UpdateState::Paused));
}

#[test]
fn a_manual_rollback_completes_as_a_rollback() {
    let mut world = started(2);
    world.force_update();
    world.pass(10);
    // What the control API does.
    let service = &mut world.service;
    std::mem::swap(&mut service.spec, &mut service.previous_spec);
    std::mem::swap(
        &mut service.spec_version,
        &mut service.previous_spec_version,
    );
    service.update_status = Some(proto::UpdateStatus {
        state: UpdateState::RollbackStarted.into(),
        message: "manually requested rollback".into(),
        started_at: Some(world.now.into()),
        completed_at: None,
    });
    world.reconcile();
    assert_eq!(world.message(), "manually requested rollback");
    world.pass(10);
    assert_eq!(world.at_version(0), 2);
    assert_eq!(world.update_state(), Some(UpdateState::RollbackCompleted));
}

#[test]
fn a_second_update_takes_over_from_the_first() {
    let mut world = started(4);
    world.update_config(|c| c.delay = Some(defaults::wire_duration(Duration::from_secs(10))));
    world.force_update();
    world.pass(12);
    let version = world.force_update();
    world.pass(60);
    assert_eq!(world.at_version(version), 4);
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
}

#[test]
fn new_slots_of_an_update_that_also_scales_do_not_hold_it_up() {
    let mut world = started(2);
    world.update(|spec| {
        spec.task.as_mut().unwrap().force_update += 1;
        spec.mode = Some(proto::service_spec::Mode::Replicated(
            proto::ReplicatedService { replicas: 6 },
        ));
    });
    let version = world.service.spec_version.unwrap().index;
    world.reconcile();
    let created = world
        .tasks
        .values()
        .filter(|t| t.spec_version.unwrap().0 == version)
        .count();
    assert_eq!(created, 5, "four new slots and the first of the old");
    world.pass(10);
    assert_eq!(world.at_version(version), 6);
}

#[test]
fn ended_tasks_that_are_not_restarted_are_updated_too() {
    let mut world = World::replicated(1);
    world.restart_policy(|p| {
        p.condition = proto::restart_policy::RestartCondition::None.into();
    });
    world.settle();
    let task = world.live(1);
    world.report(&task.id, TaskState::Complete);
    world.pass(10);
    assert_eq!(world.running(), []);
    let version = world.force_update();
    world.settle();
    assert_eq!(world.running(), [(1, version)]);
}

#[test]
fn a_start_first_slot_whose_new_task_failed_keeps_the_old_one_until_a_retry_runs() {
    let mut world = started(1);
    world.order(UpdateOrder::StartFirst);
    world.on_failure(FailureAction::Continue);
    let version = world.force_update();
    world.broken = Some(version);
    world.settle();
    assert_eq!(world.at_version(0), 1, "the old one serves");
    world.broken = None;
    world.pass(10);
    assert_eq!(world.running(), [(1, version)]);
}

#[test]
fn an_update_survives_a_leader_change_at_every_step() {
    let mut world = started(3);
    let version = world.force_update();
    for _ in 0..40 {
        world.change_leader();
        world.apply_next();
        world.work_all();
        let in_slots = world.tasks.values().filter(|t| t.is_running()).count();
        assert!(in_slots >= 2, "never more than one slot down");
    }
    assert_eq!(world.at_version(version), 3);
    world.change_leader();
    world.pass(6);
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
}
