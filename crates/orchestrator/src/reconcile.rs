//! One look at one service.

use skep_model::ext::ServiceExt as _;
use skep_proto::service_spec::Mode;

use crate::action::Plan;
use crate::place::by_place;
use crate::update::UpdateRun;
use crate::view::ServiceView;
use crate::{global, jobs, reap, replicated};

/// What is to be done about a service now. `run` remembers a running update from one look to the
/// next; a fresh one is as good after a leader change.
pub fn reconcile(view: &ServiceView<'_>, run: &mut UpdateRun) -> Plan {
    let mut plan = Plan::default();
    let places = by_place(view);
    match &view.service.spec().mode {
        Some(Mode::Replicated(mode)) => {
            replicated::reconcile(view, &places, mode.replicas, run, &mut plan);
        }
        Some(Mode::Global(_)) => global::reconcile(view, &places, run, &mut plan),
        Some(Mode::ReplicatedJob(job)) => jobs::reconcile_replicated(view, &places, job, &mut plan),
        Some(Mode::GlobalJob(_)) => jobs::reconcile_global(view, &places, &mut plan),
        None => {}
    }
    reap::reap(view, &places, &mut plan);
    plan.forget_repeated_deletes();
    plan
}
