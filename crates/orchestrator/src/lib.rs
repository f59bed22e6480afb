//! Decides which tasks a service has: creates, replaces, updates, stops and forgets them.
//!
//! ```text
//!   service, its tasks, nodes, now ──reconcile──> Plan { actions, wake_at }
//!            ^                                              │
//!            └───────────── applied to the store ───────────┘
//! ```
//!
//! Everything follows from what the store holds and from the time passed in: restart delays run from
//! the failure, restart counts are read from a slot's history, an update's progress from its tasks.
//! So a new leader goes on where the old one stopped, and applying a plan twice changes nothing. The
//! one thing kept beside the store is [`UpdateRun`]: when the tasks of a running update came up, and
//! which of them failed, which their records no longer tell once they ended.
//!
//! The rules are SwarmKit's. Where ours differ, the code says so and why.
//!
//! Deliberately not here: choosing nodes (`skep-scheduler`), addresses and ports (the allocator),
//! ids, clocks and the store (the manager).

mod action;
mod dirty;
mod enforce;
mod global;
mod jobs;
mod place;
mod reap;
mod rebalance;
mod reconcile;
mod replicated;
mod restart;
mod update;
mod view;

#[cfg(test)]
mod tests;

pub use action::{Action, NewTask, Plan, new_task};
pub use dirty::is_task_dirty;
pub use enforce::noncompliant;
pub use reap::remove_orphans;
pub use reconcile::reconcile;
pub use update::UpdateRun;
pub use view::{Nodes, ServiceView, is_invalid};
