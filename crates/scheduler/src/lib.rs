//! Chooses nodes for tasks, and says why there is none.
//!
//! ```text
//!   nodes, tasks as they change ──> NodeSet ──schedule(groups, now)──> Decision::{Assign, Wait}
//!                                      ^                                         │
//!                                      └──── tasks that could not be committed ──┘
//! ```
//!
//! The rules are SwarmKit's: a node must pass every filter (readiness, resources, plugins,
//! constraints, platform, host ports, replicas per node); spread preferences divide the tasks over
//! the values of labels, nested in their order; then the node with the fewest tasks of the service
//! wins, then the one with the fewest tasks. Nodes where the service kept failing come last.
//!
//! [`NodeSet`] keeps ready nodes ordered by load, so that a group of tasks looks at about as many
//! nodes as it has tasks. All nodes are looked at only to explain why a task has to wait, and where
//! a preference asks for the values of all of them.
//!
//! Deliberately not here: the store, time (it comes in), networks' addresses and ports (the
//! allocator's), CSI volumes.

mod choose;
pub mod constraint;
mod failures;
mod filter;
mod node;
mod node_set;
mod resources;
mod spread;

#[cfg(test)]
mod tests;

pub use choose::Decision;
pub use node_set::NodeSet;
