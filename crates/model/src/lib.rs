//! The vocabulary of the swarm: what a task, a state, an id, a moment is, independent of how it is
//! stored, sent or shown.
//!
//! - [`id`]: one newtype per kind of object; ids are SwarmKit's 25 base-36 characters
//! - [`Task`], [`TaskStatus`]: our own structs, because tasks are many and share their service's spec
//! - [`Object`]: everything the store keeps; all but tasks are the wire types themselves
//! - [`TaskState`], [`Slot`], [`Timestamp`], [`Version`], [`Meta`]
//! - [`defaults`], [`name`]: SwarmKit's default values and its rules for names
//! - [`labels`]: our own labels on services
//! - [`ext`]: reading wire objects whose sub-messages SwarmKit always sets
//!
//! Deliberately not here: the clock (a [`Timestamp`] comes from whoever has one), IO, decisions, and
//! Docker's JSON.

pub mod defaults;
pub mod ext;
pub mod id;
pub mod labels;
mod meta;
pub mod name;
mod object;
mod task;
mod task_state;
mod timestamp;

pub use id::{
    ClusterId, ConfigId, ExtensionId, NetworkId, NodeId, ResourceId, SecretId, ServiceId, TaskId,
    VolumeId,
};
pub use meta::{Meta, Version};
pub use object::{Object, ObjectKind, StoreObject};
pub use skep_proto as proto;
pub use task::{Slot, Task, TaskFromProtoError, TaskStatus};
pub use task_state::{TaskState, UnknownTaskState};
pub use timestamp::{ParseTimestampError, Timestamp};
