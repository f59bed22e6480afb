use skep_model::TaskState;
use skep_proto as proto;
use skep_proto::node_spec::Availability;
use skep_proto::node_status::State;
use skep_proto::update_status::UpdateState;

use super::world::{World, node};

fn running_on(world: &World) -> Vec<String> {
    let running = world.tasks.values().filter(|task| task.is_running());
    let mut nodes: Vec<String> = running
        .map(|task| task.node_id.as_ref().unwrap().as_str().to_owned())
        .collect();
    nodes.sort();
    nodes
}

#[test]
fn every_node_has_one_also_new_ones() {
    let mut world = World::global();
    world.settle();
    assert_eq!(running_on(&world), ["a", "b", "c"]);
    world.nodes.insert("d".into(), node("d"));
    world.settle();
    assert_eq!(running_on(&world), ["a", "b", "c", "d"]);
    assert!(world.tasks.values().all(|task| task.slot.is_none()));
}

#[test]
fn nodes_that_are_down_or_drained_have_none_until_they_are_back() {
    let mut world = World::global();
    world.settle();
    world.set_node_state("a", State::Down);
    world.set_availability("b", Availability::Drain);
    world.settle();
    assert_eq!(running_on(&world), ["c"]);
    world.set_node_state("a", State::Ready);
    world.set_availability("b", Availability::Active);
    world.settle();
    assert_eq!(running_on(&world), ["a", "b", "c"]);
}

#[test]
fn a_removed_nodes_tasks_are_forgotten() {
    let mut world = World::global();
    world.settle();
    world.nodes.remove("a");
    world.settle();
    assert_eq!(world.tasks.len(), 2);
}

#[test]
fn constraints_decide_which_nodes() {
    let mut world = World::global();
    world.settle();
    world.update(|spec| {
        spec.task.as_mut().unwrap().placement = Some(proto::Placement {
            constraints: vec!["node.id!=a".into()],
            ..Default::default()
        });
    });
    world.settle();
    assert_eq!(running_on(&world), ["b", "c"]);
    assert_eq!(world.at_version(0), 2, "the others stayed");
}

#[test]
fn a_paused_node_keeps_what_it_has_and_gets_nothing_new() {
    let mut world = World::global();
    world.settle();
    world.set_availability("a", Availability::Pause);
    let version = world.force_update();
    world.pass(20);
    assert_eq!(running_on(&world), ["a", "b", "c"]);
    assert_eq!(world.at_version(version), 2);
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
    world.set_availability("a", Availability::Active);
    world.pass(20);
    assert_eq!(world.at_version(version), 3, "caught up once it is active");
}

#[test]
fn a_failed_task_is_replaced_on_its_node_after_the_delay() {
    let mut world = World::global();
    world.settle();
    let task = world.tasks.values().next().unwrap().clone();
    world.report(&task.id, TaskState::Failed);
    world.pass(4);
    assert_eq!(running_on(&world).len(), 2);
    world.pass(1);
    assert_eq!(running_on(&world), ["a", "b", "c"]);
}

#[test]
fn updates_go_node_by_node() {
    let mut world = World::global();
    world.settle();
    let version = world.force_update();
    world.reconcile();
    let stopping = world
        .tasks
        .values()
        .filter(|t| t.desired_state == TaskState::Shutdown)
        .count();
    assert_eq!(stopping, 1);
    world.pass(10);
    assert_eq!(world.at_version(version), 3);
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
}
