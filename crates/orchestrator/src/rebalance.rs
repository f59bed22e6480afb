//! Moves surplus tasks to nodes that joined or returned, for services that ask for it by
//! [`labels::REBALANCE`]. Swarm leaves them where they are.
//!
//! A move is an overlap: the new task comes first and the old one stops once it runs, whatever the
//! update order says, so that there are never fewer than before. At most as many slots move at once
//! as an update may touch. Where the new task lands is the scheduler's to say; a slot moves once for
//! each change of the node it might go to, and no more slots leave a node that the scheduler sent one
//! back to. So a node without room costs one try, not a loop.

use std::collections::BTreeMap;

use skep_model::ext::{NodeExt as _, ServiceExt as _, ServiceSpecExt as _};
use skep_model::{NodeId, Task, TaskState, Timestamp, labels};
use skep_proto as proto;
use skep_proto::update_status::UpdateState;

use crate::action::{Action, NewTask, Plan};
use crate::dirty::{is_task_dirty, node_matches};
use crate::place::Place;
use crate::update::{Candidate, parallelism};
use crate::view::{ServiceView, created_at};

/// Whether the service asks for it.
pub(crate) fn is_on(view: &ServiceView<'_>) -> bool {
    labels::flag(&view.service.spec().annotations().labels, labels::REBALANCE)
}

/// Whether a task of the current spec runs in the slot while its successor is still to come up: an
/// overlap that is not to be cut short.
pub(crate) fn is_moving(view: &ServiceView<'_>, live: &[&Task]) -> bool {
    let clean = |task: &&Task| !is_task_dirty(view.service, task, view.node_of(task));
    let [before @ .., last] = live else {
        return false;
    };
    is_on(view)
        && clean(last)
        && last.status.state < TaskState::Running
        && before
            .iter()
            .any(|task| clean(task) && task.status.state == TaskState::Running)
}

pub(crate) fn rebalance(view: &ServiceView<'_>, candidates: &[Candidate<'_>], plan: &mut Plan) {
    let settled = matches!(
        view.update_state(),
        None | Some(UpdateState::Completed | UpdateState::RollbackCompleted)
    );
    if !is_on(view) || !settled || candidates.iter().any(|candidate| candidate.busy) {
        return;
    }
    let spec = view.service.spec().task();
    let usable = view.nodes.iter().filter(|(_, node)| {
        node.status().state() == proto::node_status::State::Ready
            && node.spec().availability() == proto::node_spec::Availability::Active
            && node_matches(spec, node)
    });
    let mut loads: BTreeMap<&NodeId, Load<'_, '_>> = usable
        .map(|(id, node)| {
            let changed = node.meta.as_ref().and_then(|meta| meta.updated_at);
            let changed_at = changed.map(Timestamp::from).unwrap_or_default();
            (id, Load::new(changed_at))
        })
        .collect();
    let mut moving = 0;
    for candidate in candidates {
        let live: Vec<&Task> = candidate.history.live().collect();
        moving += usize::from(live.len() > 1);
        let [task] = live.as_slice() else { continue };
        let Some(load) = task.node_id.as_ref().and_then(|id| loads.get_mut(id)) else {
            continue;
        };
        load.tasks += 1;
        load.newest = load.newest.max(created_at(task));
        if task.is_running() && !is_task_dirty(view.service, task, view.node_of(task)) {
            load.movable.push(candidate);
        }
    }
    while moving < parallelism(view) {
        let Some(slot) = next_move(&mut loads) else {
            return;
        };
        moving += 1;
        plan.actions.push(Action::Create(NewTask {
            slot,
            node: None,
            desired: TaskState::Running,
            job_iteration: None,
        }));
    }
}

/// What one node has of the service.
struct Load<'c, 'a> {
    changed_at: Timestamp,
    tasks: u32,
    newest: Timestamp,
    movable: Vec<&'c Candidate<'a>>,
}

impl Load<'_, '_> {
    fn new(changed_at: Timestamp) -> Self {
        Self {
            changed_at,
            tasks: 0,
            newest: Timestamp::UNIX_EPOCH,
            movable: Vec::new(),
        }
    }
}

/// The slot to move from the node that has most to the one that has least, if that evens them out.
fn next_move(loads: &mut BTreeMap<&NodeId, Load<'_, '_>>) -> Option<skep_model::Slot> {
    let (to, least) = loads.iter().min_by_key(|(_, load)| load.tasks)?;
    let (to, since, least) = (*to, least.changed_at, least.tasks);
    let (from, most) = loads.iter_mut().max_by_key(|(_, load)| load.tasks)?;
    if *from == to || most.tasks < least + 2 || most.newest >= since {
        return None;
    }
    let untried = |candidate: &&Candidate<'_>| {
        let mut tasks = candidate.history.all().iter();
        tasks.all(|task| created_at(task) < since)
    };
    let at = most.movable.iter().rposition(untried)?;
    let moved = most.movable.remove(at);
    most.tasks -= 1;
    loads.get_mut(to)?.tasks += 1;
    match moved.place {
        Place::Slot(slot) => Some(*slot),
        Place::Node(_) => None,
    }
}
