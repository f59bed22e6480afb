//! One task on every node that may have one.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::ext::{ServiceExt as _, ServiceSpecExt as _};
use skep_model::{NodeId, Slot, TaskState};

use crate::action::{Action, NewTask, Plan};
use crate::dirty::node_matches;
use crate::place::{History, Place};
use crate::replicated::{is_occupied, remove_all};
use crate::restart::tend;
use crate::update::{Candidate, UpdateRun};
use crate::view::{ServiceView, is_invalid, is_paused};

pub(crate) fn reconcile(
    view: &ServiceView<'_>,
    places: &BTreeMap<Place, History<'_>>,
    run: &mut UpdateRun,
    plan: &mut Plan,
) {
    let spec = view.service.spec().task();
    let mut candidates = Vec::new();
    let mut populated = BTreeSet::<&NodeId>::new();
    for (place, history) in places {
        let Place::Node(id) = place else {
            remove_all(history.live(), plan);
            continue;
        };
        match view.nodes.get(id) {
            // Nobody will ever report what became of them.
            None => history.all().iter().for_each(|task| plan.delete(task)),
            Some(node) if is_invalid(Some(node)) || !node_matches(spec, node) => {
                shut_down(history, plan);
            }
            Some(node) if is_paused(node) => {
                populated.insert(id);
                leave_alone(view, history, plan);
            }
            Some(_) if is_occupied(view, history) => {
                populated.insert(id);
                let busy = tend(view, history, plan);
                candidates.push(Candidate {
                    place,
                    history,
                    busy,
                });
            }
            Some(_) => {}
        }
    }
    run.step(view, &candidates, plan);
    for (id, node) in view.nodes {
        let wanted = !is_invalid(Some(node)) && !is_paused(node) && node_matches(spec, node);
        if wanted && !populated.contains(id) {
            plan.actions.push(Action::Create(NewTask {
                slot: Slot::NONE,
                node: Some(id.clone()),
                desired: TaskState::Running,
                job_iteration: None,
            }));
        }
    }
}

fn shut_down(history: &History<'_>, plan: &mut Plan) {
    for task in history.live() {
        plan.set_desired(task, TaskState::Shutdown);
    }
}

/// A paused node gets nothing new: what ended there is not replaced. What waits to be started is
/// there already.
fn leave_alone(view: &ServiceView<'_>, history: &History<'_>, plan: &mut Plan) {
    for task in history.live() {
        if task.status.state.is_terminal() {
            plan.set_desired(task, TaskState::Shutdown);
        } else if task.desired_state < TaskState::Running {
            crate::restart::start_when_due(view, history, task, plan);
        }
    }
}
