//! So many tasks, each in a slot of its own.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{NodeId, Slot, Task, TaskState};
use skep_proto::update_status::UpdateState;

use crate::action::{Action, NewTask, Plan};
use crate::place::{History, Place, is_over};
use crate::rebalance::rebalance;
use crate::restart::{should_restart, tend};
use crate::update::{Candidate, UpdateRun};
use crate::view::ServiceView;

pub(crate) fn reconcile(
    view: &ServiceView<'_>,
    places: &BTreeMap<Place, History<'_>>,
    replicas: u64,
    run: &mut UpdateRun,
    plan: &mut Plan,
) {
    let (occupied, dead): (Vec<_>, Vec<_>) = places
        .iter()
        .partition(|(_, history)| is_occupied(view, history));
    let missing = replicas.saturating_sub(occupied.len() as u64);
    let filled = free_slots(&occupied, missing);
    let (kept, surplus) = choose_surplus(occupied, usize::try_from(replicas).unwrap_or(usize::MAX));

    for (_, history) in surplus {
        remove_all(history.current(), plan);
    }
    for (place, history) in dead {
        // A slot that is filled again keeps its history.
        if !filled.contains(place) {
            remove_all(history.all().iter().copied(), plan);
        }
    }
    let candidates: Vec<Candidate<'_>> = kept
        .into_iter()
        .map(|(place, history)| Candidate {
            place,
            history,
            busy: tend(view, history, plan),
        })
        .collect();
    run.step(view, &candidates, plan);
    rebalance(view, &candidates, plan);
    for place in filled {
        if let Place::Slot(slot) = place {
            // What was there may still be stopping: its successor waits for that.
            let is_empty = |history: &History<'_>| history.all().iter().all(|task| is_over(task));
            let may_run = places.get(&place).is_none_or(is_empty);
            let desired = if may_run {
                TaskState::Running
            } else {
                TaskState::Ready
            };
            plan.actions.push(Action::Create(NewTask {
                slot,
                node: None,
                desired,
                job_iteration: None,
            }));
        }
    }
}

/// Whether the slot counts as filled: it has a live task, or its last one ended and is not to be
/// restarted. A rollback always fills all slots, or a spec whose tasks end at once would be left
/// standing in some.
pub(crate) fn is_occupied(view: &ServiceView<'_>, history: &History<'_>) -> bool {
    if !history.is_dead() {
        return true;
    }
    view.update_state() != Some(UpdateState::RollbackStarted)
        && history.newest().is_some_and(|task| {
            task.desired_state < TaskState::Remove && !should_restart(view, history, task)
        })
}

/// The lowest slots that nobody occupies.
fn free_slots(occupied: &Slots<'_, '_>, count: u64) -> BTreeSet<Place> {
    let occupied: BTreeSet<&Place> = occupied.iter().map(|(place, _)| *place).collect();
    (1..)
        .map(|slot| Place::Slot(Slot(slot)))
        .filter(|place| !occupied.contains(place))
        .take(usize::try_from(count).unwrap_or(usize::MAX))
        .collect()
}

type Slots<'p, 'a> = Vec<(&'p Place, &'p History<'a>)>;

/// Which slots stay and which go. What goes is what leaves the rest best spread: a second copy on a
/// node before a first one; among equals, what does not run before what does, then the higher slot.
fn choose_surplus<'p, 'a>(mut slots: Slots<'p, 'a>, keep: usize) -> (Slots<'p, 'a>, Slots<'p, 'a>) {
    if slots.len() <= keep {
        return (slots, Vec::new());
    }
    let runs = |history: &History<'_>| {
        history
            .current()
            .any(|task| task.status.state == TaskState::Running)
    };
    slots.sort_by_key(|(place, history)| (!runs(history), *place));
    let mut copies = BTreeMap::<NodeId, u32>::new();
    let mut ranked: Vec<_> = slots
        .into_iter()
        .map(|slot| {
            let rank = only_node(slot.1).map_or(u32::MAX, |node| {
                let copies = copies.entry(node.clone()).or_default();
                *copies += 1;
                *copies
            });
            (rank, slot)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut kept: Slots<'_, '_> = ranked.into_iter().map(|(_, slot)| slot).collect();
    let surplus = kept.split_off(keep);
    kept.sort_by_key(|(place, _)| *place);
    (kept, surplus)
}

/// The node of a slot's only task; several tasks, or none on a node, are the first to go.
fn only_node<'a>(history: &History<'a>) -> Option<&'a NodeId> {
    let mut tasks = history.current();
    let only = tasks.next()?;
    if tasks.next().is_some() {
        None
    } else {
        only.node_id.as_ref()
    }
}

/// Stops what runs and forgets what does not.
pub(crate) fn remove_all<'a>(tasks: impl IntoIterator<Item = &'a Task>, plan: &mut Plan) {
    for task in tasks {
        if is_over(task) {
            plan.delete(task);
        } else {
            plan.set_desired(task, TaskState::Remove);
        }
    }
}
