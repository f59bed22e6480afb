use std::sync::Arc;

use skep_model::{Task, TaskState};

use super::world::World;
use crate::{Action, Plan, remove_orphans};

fn crash(world: &mut World, times: usize) {
    for _ in 0..times {
        world.pass(5);
        world.fail(1);
        world.settle();
    }
    world.pass(5);
}

#[test]
fn a_slot_keeps_its_last_five_tasks() {
    let mut world = World::replicated(1);
    crash(&mut world, 9);
    let tasks = world.in_slot(1);
    assert_eq!(tasks.len(), 5);
    assert!(tasks[4].is_running());
    assert_eq!(tasks[0].id.as_str(), "t006", "the newest are kept");
}

#[test]
fn the_limit_may_be_less_or_none() {
    let mut world = World::replicated(1);
    world.history_limit = 0;
    crash(&mut world, 3);
    assert_eq!(world.in_slot(1).len(), 1);

    let mut world = World::replicated(1);
    world.history_limit = -1;
    crash(&mut world, 9);
    assert_eq!(world.in_slot(1).len(), 10);
}

#[test]
fn without_history_the_restart_delay_still_holds() {
    let mut world = World::replicated(1);
    world.history_limit = 0;
    world.pass(1);
    world.fail(1);
    world.pass(4);
    assert_eq!(world.running(), []);
    world.pass(1);
    assert_eq!(world.running(), [(1, 0)]);
}

#[test]
fn a_removed_services_tasks_are_stopped_then_forgotten() {
    let mut world = World::replicated(2);
    world.settle();
    let ended = world.fail(1);
    let tasks = |world: &World| -> Vec<Arc<Task>> { world.tasks.values().cloned().collect() };
    let plan = remove_orphans(&tasks(&world), &world.nodes);
    let running = world.live(2).id.clone();
    let expected = [
        Action::Delete { task: ended },
        Action::SetDesired {
            task: running.clone(),
            desired: TaskState::Remove,
        },
    ];
    assert_eq!(plan.actions, expected);
    world.apply(&plan);
    assert_eq!(
        remove_orphans(&tasks(&world), &world.nodes),
        Plan::default()
    );
    world.report(&running, TaskState::Shutdown);
    world.apply(&remove_orphans(&tasks(&world), &world.nodes));
    assert!(world.tasks.is_empty());
}

#[test]
fn tasks_of_a_node_that_no_longer_exists_are_forgotten_with_their_service() {
    let mut world = World::replicated(1);
    world.settle();
    world.nodes.clear();
    let tasks: Vec<Arc<Task>> = world.tasks.values().cloned().collect();
    world.apply(&remove_orphans(&tasks, &world.nodes));
    assert!(world.tasks.is_empty());
}
