//! Promises that hold whatever happens, in whatever order.

use proptest::prelude::*;
use skep_model::{TaskId, TaskState};
use skep_proto::node_spec::Availability;
use skep_proto::node_status::State;
use skep_proto::update_config::{FailureAction, UpdateOrder};

use super::world::World;

#[derive(Clone, Debug)]
enum Event {
    /// Scheduler or agent move one task.
    Work(usize),
    Fail(usize),
    Scale(u64),
    Update {
        parallelism: u64,
        start_first: bool,
        action: u8,
    },
    Drain(usize),
    Activate(usize),
    Down(usize),
    Up(usize),
    ChangeLeader,
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => any::<usize>().prop_map(Event::Work),
        3 => any::<usize>().prop_map(Event::Fail),
        1 => (0_u64..6).prop_map(Event::Scale),
        2 => (0_u64..4, any::<bool>(), 0_u8..3).prop_map(|(parallelism, start_first, action)| {
            Event::Update { parallelism, start_first, action }
        }),
        1 => (0_usize..3).prop_map(Event::Drain),
        1 => (0_usize..3).prop_map(Event::Activate),
        1 => (0_usize..3).prop_map(Event::Down),
        1 => (0_usize..3).prop_map(Event::Up),
        1 => Just(Event::ChangeLeader),
        3 => (1_u64..8).prop_map(Event::Pass),
    ]
}

const NODES: [&str; 3] = ["a", "b", "c"];

fn pick(world: &World, index: usize) -> Option<TaskId> {
    let ids: Vec<&TaskId> = world.tasks.keys().collect();
    (!ids.is_empty()).then(|| ids[index % ids.len()].clone())
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Work(index) => {
            if let Some(id) = pick(world, *index) {
                world.work(&id);
            }
        }
        Event::Fail(index) => {
            let id =
                pick(world, *index).filter(|id| world.tasks[id].status.state == TaskState::Running);
            if let Some(id) = id {
                world.report(&id, TaskState::Failed);
            }
        }
        Event::Scale(replicas) => world.scale(*replicas),
        Event::Update {
            parallelism,
            start_first,
            action,
        } => {
            let order = if *start_first {
                UpdateOrder::StartFirst
            } else {
                UpdateOrder::StopFirst
            };
            world.update_config(|config| {
                config.parallelism = *parallelism;
                config.order = order.into();
                config.failure_action = FailureAction::try_from(i32::from(*action)).unwrap().into();
            });
            world.force_update();
        }
        Event::Drain(node) => world.set_availability(NODES[*node], Availability::Drain),
        Event::Activate(node) => world.set_availability(NODES[*node], Availability::Active),
        Event::Down(node) => world.set_node_state(NODES[*node], State::Down),
        Event::Up(node) => world.set_node_state(NODES[*node], State::Ready),
        Event::ChangeLeader => world.change_leader(),
        Event::Pass(seconds) => world.now = world.now + std::time::Duration::from_secs(*seconds),
    }
}

fn slots(world: &World) -> Vec<u64> {
    let mut slots: Vec<u64> = world.tasks.values().map(|task| task.slot.0).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

proptest! {
    /// `reconcile` panics if it does not come to rest: what a plan did is never undone or repeated
    /// by the next one.
    #[test]
    fn plans_come_to_rest_and_live_tasks_never_exceed_what_is_wanted(
        events in proptest::collection::vec(event(), 1..120),
    ) {
        let mut world = World::replicated(3);
        for event in &events {
            happen(&mut world, event);
            world.reconcile();
            for slot in slots(&world) {
                let live = world.in_slot(slot).iter().filter(|t| crate::place::is_live(t)).count();
                prop_assert!(live <= 2, "{live} live tasks in slot {slot}");
            }
        }
        // Left in peace with all its nodes, the service gets what it asks for, unless an update was
        // paused; then it still has all its tasks.
        for node in NODES {
            world.set_availability(node, Availability::Active);
            world.set_node_state(node, State::Ready);
        }
        world.pass(300);
        let replicas = match world.service.spec.as_ref().unwrap().mode {
            Some(skep_proto::service_spec::Mode::Replicated(mode)) => mode.replicas,
            _ => unreachable!(),
        };
        let mut running: Vec<u64> = world.running().into_iter().map(|(slot, _)| slot).collect();
        running.dedup();
        prop_assert_eq!(running.len() as u64, replicas);
    }

    /// As long as nodes can be asked, a replacement runs only after what it replaces has stopped.
    #[test]
    fn never_two_running_in_a_slot_when_updates_stop_first(
        events in proptest::collection::vec(event(), 1..120),
    ) {
        let mut world = World::replicated(3);
        for event in &events {
            match event {
                // A node that is down may run anything; and who does not stop within a minute is
                // not waited for.
                Event::Down(_) | Event::Pass(_) => world.pass(1),
                Event::Update { parallelism, action, .. } => {
                    let (parallelism, action) = (*parallelism, *action);
                    happen(&mut world, &Event::Update { parallelism, start_first: false, action });
                }
                event => happen(&mut world, event),
            }
            world.reconcile();
            for slot in slots(&world) {
                let tasks = world.in_slot(slot);
                let running = tasks.iter().filter(|t| t.status.state == TaskState::Running).count();
                prop_assert!(running <= 1, "{running} running tasks in slot {slot}");
            }
        }
    }

    /// An update of healthy tasks never takes down more slots than it may.
    #[test]
    fn unavailable_slots_never_exceed_the_parallelism(
        replicas in 1_u64..8,
        parallelism in 1_u64..4,
        start_first in any::<bool>(),
        steps in proptest::collection::vec((any::<usize>(), any::<bool>()), 50..300),
    ) {
        let mut world = World::replicated(replicas);
        world.settle();
        happen(&mut world, &Event::Update { parallelism, start_first, action: 0 });
        let version = world.service.spec_version.unwrap().index;
        for (index, change_leader) in steps {
            if change_leader {
                world.change_leader();
            }
            world.reconcile();
            happen(&mut world, &Event::Work(index));
            let mut available: Vec<u64> = world.running().into_iter().map(|(slot, _)| slot).collect();
            available.dedup();
            let unavailable = replicas - available.len() as u64;
            let allowed = if start_first { 0 } else { parallelism };
            prop_assert!(unavailable <= allowed, "{unavailable} slots are down");
        }
        world.pass(300);
        prop_assert_eq!(world.at_version(version) as u64, replicas);
    }
}
