//! The swarm's objects in memory, on every manager: immutable snapshots, transactions that go through
//! consensus before anyone sees them, and ordered change events for those who subscribed.
//!
//! ```text
//!  update(f) ── validates on ──▶ tip (committed + in flight) ── actions ──▶ Proposer (raft)
//!                                                                             │ committed entry
//!  snapshot(), watch(), changed() ◀── committed view ◀── apply(actions, index) ◀┘
//! ```
//!
//! Why transactions in flight do not wait for each other's fsync, and why that is safe:
//! `docs/design/store.md`.
//!
//! Deliberately not here: consensus and the disk (the [`Proposer`] this crate declares does both),
//! the meaning of objects, filters of the REST API, and SwarmKit's user-defined indices.

mod batch;
mod error;
#[cfg(test)]
mod fixtures;
mod index;
mod proposer;
mod snapshot;
mod store;
mod stored;
mod tables;
mod transaction;
mod watch;

pub use batch::BatchOutcome;
pub use error::{ApplyError, ProposeError, StoreError, UpdateError};
#[cfg(any(test, feature = "test-support"))]
pub use proposer::MemoryProposer;
pub use proposer::{Epoch, ProposeFuture, Proposer};
pub use snapshot::{Snapshot, View};
pub use store::{MAX_CHANGES_PER_TRANSACTION, MAX_TRANSACTION_BYTES, Store};
pub use stored::Stored;
pub use transaction::Transaction;
pub use watch::{Event, Selector, Watch, WatchError, WatchFilter};
