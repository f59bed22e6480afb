use skep_model::TaskState;
use skep_proto as proto;

use super::world::World;

#[test]
fn a_new_service_fills_slots_from_one() {
    let mut world = World::replicated(3);
    world.settle();
    assert_eq!(world.running(), [(1, 0), (2, 0), (3, 0)]);
    assert_eq!(world.wake_at, None, "nothing to wait for");
    assert_eq!(world.update_state(), None, "scaling is no update");
}

#[test]
fn fills_the_gap_rather_than_appending_a_slot() {
    let mut world = World::replicated(3);
    world.settle();
    let gone = world.live(2).id.clone();
    world.tasks.remove(&gone);
    world.settle();
    assert_eq!(world.running(), [(1, 0), (2, 0), (3, 0)]);
}

#[test]
fn scaling_up_leaves_running_tasks_alone() {
    let mut world = World::replicated(1);
    world.settle();
    let first = world.live(1).id.clone();
    world.scale(3);
    world.settle();
    assert_eq!(world.running().len(), 3);
    assert_eq!(world.live(1).id, first);
    assert_eq!(world.update_state(), None);
}

#[test]
fn scaling_down_keeps_the_nodes_balanced_and_low_slots() {
    let mut world = World::replicated(6);
    world.settle();
    world.scale(3);
    world.settle();
    assert_eq!(world.running(), [(1, 0), (2, 0), (3, 0)]);
    let mut nodes: Vec<_> = world
        .tasks
        .values()
        .map(|t| t.node_id.clone().unwrap())
        .collect();
    nodes.sort();
    assert_eq!(nodes, ["a", "b", "c"], "and the stopped ones are forgotten");
}

#[test]
fn scaling_down_removes_second_copies_on_a_node_first() {
    let mut world = World::replicated(4);
    world.nodes.remove("c");
    world.settle();
    // Slots 1 and 3 are on a, 2 and 4 on b; three more tasks join on the empty node c.
    world.nodes.insert("c".into(), super::world::node("c"));
    world.scale(5);
    world.settle();
    assert_eq!(world.live(5).node_id.as_ref().unwrap().as_str(), "c");
    world.scale(3);
    world.settle();
    let slots: Vec<u64> = world.running().into_iter().map(|(slot, _)| slot).collect();
    assert_eq!(slots, [1, 2, 5]);
}

#[test]
fn scaling_down_removes_what_does_not_run_first() {
    let mut world = World::replicated(3);
    world.settle();
    for node in ["b", "c"] {
        world.set_availability(node, proto::node_spec::Availability::Pause);
    }
    world.set_availability("a", proto::node_spec::Availability::Drain);
    world.settle();
    assert_eq!(
        world.running().len(),
        2,
        "the drained node's task waits for a node"
    );
    world.scale(2);
    world.settle();
    assert_eq!(world.running(), [(2, 0), (3, 0)]);
    assert_eq!(world.tasks.len(), 2);
}

#[test]
fn a_removed_task_stays_known_until_its_node_says_it_stopped() {
    let mut world = World::replicated(2);
    world.settle();
    let stopping = world.live(2).id.clone();
    world.scale(1);
    world.reconcile();
    world.reconcile();
    assert_eq!(world.tasks[&stopping].desired_state, TaskState::Remove);
    world.work(&stopping);
    world.reconcile();
    assert!(!world.tasks.contains_key(&stopping));
}

#[test]
fn scaling_to_zero_and_back_starts_afresh() {
    let mut world = World::replicated(2);
    world.settle();
    world.scale(0);
    world.settle();
    assert!(world.tasks.is_empty());
    world.scale(2);
    world.settle();
    assert_eq!(world.running().len(), 2);
}
