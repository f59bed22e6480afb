//! Something that a node has at times only.

use std::sync::Arc;

use parking_lot::RwLock;
use tonic::Status;

/// SwarmKit's text for a manager that is not in the raft group (yet, or any more).
pub(crate) const NO_MEMBER: &str = "raft: node is not yet part of a raft cluster";

/// A part of the manager that comes after the port is open (a joining manager is dialled back before
/// it is a member) and may go before it is closed. Clones share the content.
pub struct Slot<T: ?Sized>(Arc<RwLock<Option<Arc<T>>>>);

impl<T: ?Sized> Slot<T> {
    pub fn set(&self, value: Arc<T>) {
        *self.0.write() = Some(value);
    }

    pub fn clear(&self) {
        *self.0.write() = None;
    }

    pub fn get(&self) -> Option<Arc<T>> {
        self.0.read().clone()
    }

    pub(crate) fn need(&self) -> Result<Arc<T>, Status> {
        self.get().ok_or_else(|| Status::unavailable(NO_MEMBER))
    }
}

impl<T: ?Sized> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> Default for Slot<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: ?Sized> std::fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slot")
            .field(&self.0.read().is_some())
            .finish()
    }
}
