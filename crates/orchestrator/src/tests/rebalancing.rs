use skep_model::{NodeId, labels};
use skep_proto as proto;
use skep_proto::update_config::UpdateOrder;

use super::world::{World, node};

/// Six tasks on two nodes; a third comes later.
fn world() -> World {
    let mut world = World::replicated(6);
    world.nodes.remove("c");
    let label = (labels::REBALANCE.to_owned(), "true".to_owned());
    world.spec().annotations = Some(proto::Annotations {
        labels: [label].into(),
        ..Default::default()
    });
    world.settle();
    world
}

fn join(world: &mut World, id: &str) {
    world.now = world.now + std::time::Duration::from_secs(10);
    let mut joined = (*node(id)).clone();
    joined.meta = Some(proto::Meta {
        updated_at: Some(world.now.into()),
        ..Default::default()
    });
    world.nodes.insert(id.into(), joined.into());
}

fn on(world: &World, id: &str) -> usize {
    let here = |task: &&std::sync::Arc<skep_model::Task>| {
        task.is_running() && task.node_id == Some(NodeId::from(id))
    };
    world.tasks.values().filter(here).count()
}

#[test]
fn a_node_that_joins_gets_its_share_and_no_slot_is_ever_empty() {
    let mut world = world();
    join(&mut world, "c");
    let mut overlaps = 0;
    for _ in 0..60 {
        let plan = world.plan();
        world.apply(&plan);
        world.work_all();
        let mut slots: Vec<u64> = world.running().iter().map(|(slot, _)| *slot).collect();
        overlaps = overlaps.max(slots.len() - 6);
        slots.dedup();
        assert_eq!(slots.len(), 6, "each slot keeps running");
    }
    assert_eq!(overlaps, 1, "one at a time, as updates go by default");
    assert_eq!(
        (on(&world, "a"), on(&world, "b"), on(&world, "c")),
        (2, 2, 2)
    );
    assert_eq!(world.plan().actions, []);
}

#[test]
fn parallelism_is_the_updates_and_the_order_does_not_matter() {
    let mut world = world();
    world.update_config(|config| config.parallelism = 2);
    world.order(UpdateOrder::StopFirst);
    join(&mut world, "c");
    assert_eq!(world.plan().actions.len(), 2);
    world.settle();
    assert_eq!(on(&world, "c"), 2);
    assert_eq!(world.running().len(), 6);
}

#[test]
fn without_the_label_tasks_stay_where_they_are() {
    let mut world = world();
    world.spec().annotations = None;
    join(&mut world, "c");
    assert_eq!(world.plan().actions, []);
}

#[test]
fn a_node_that_the_scheduler_does_not_choose_costs_one_try() {
    let mut world = world();
    join(&mut world, "c");
    let plan = world.plan();
    assert_eq!(plan.actions.len(), 1);
    world.apply(&plan);
    // No room on c: the scheduler sends the task to a, where there are three already.
    let moved = world.tasks.keys().next_back().unwrap().clone();
    std::sync::Arc::make_mut(world.tasks.get_mut(&moved).unwrap()).node_id = Some("a".into());
    world.report(&moved, skep_model::TaskState::Assigned);
    world.settle();
    assert_eq!(on(&world, "c"), 0);
    assert_eq!(world.running().len(), 6);
    assert_eq!(world.plan().actions, [], "not again");
}

#[test]
fn a_move_that_fails_is_given_up() {
    let mut world = world();
    join(&mut world, "c");
    world.apply_next();
    let moved = world.tasks.keys().next_back().unwrap().clone();
    world.work(&moved);
    world.report(&moved, skep_model::TaskState::Failed);
    world.settle();
    assert_eq!(world.running().len(), 6);
    let slot = world.tasks[&moved].slot.0;
    assert_ne!(world.live(slot).id, moved);
    assert_ne!(world.live(slot).node_id, Some("c".into()));
}
