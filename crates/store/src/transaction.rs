use std::ops::Deref;
use std::sync::Arc;

use skep_model::proto;
use skep_model::proto::store_action::Target;
use skep_model::{Meta, Object, Timestamp, Version};

use crate::snapshot::View;
use crate::{StoreError, Stored};

/// Changes that take effect together or not at all. Reads (it derefs to [`View`]) see its own writes.
#[derive(Debug)]
pub struct Transaction {
    view: View,
    now: Timestamp,
    changes: Vec<Change>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Change {
    kind: proto::StoreActionKind,
    object: Object,
}

/// A point inside a transaction that can be returned to.
pub(crate) struct Savepoint {
    view: View,
    changes: usize,
    bytes: usize,
}

impl Deref for Transaction {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Transaction {
    /// `version` is what changed objects are stamped with.
    pub(crate) fn new(base: &View, version: u64, now: Timestamp) -> Self {
        let mut view = base.clone();
        view.version = version;
        Self {
            view,
            now,
            changes: Vec::new(),
            bytes: 0,
        }
    }

    /// The time that objects changed in this transaction are stamped with.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Adds an object and returns it as stored, with its version and times.
    ///
    /// Fails with [`StoreError::NameConflict`] or [`StoreError::Exist`].
    pub fn create<T: Stored>(&mut self, mut object: T) -> Result<Arc<T>, StoreError> {
        object.check(None, &self.view)?;
        self.view.check_name::<T>(None, object.name())?;
        if self.view.get::<T>(object.id()).is_some() {
            return Err(StoreError::Exist);
        }
        // An object that brings its own birthday (from a backup) keeps it.
        let created_at = object.meta().created_at.unwrap_or(self.now);
        object.set_meta(self.stamp(created_at));
        Ok(self.put(proto::StoreActionKind::StoreActionCreate, object))
    }

    /// Replaces an object, if it still has the version that `object.meta` says.
    ///
    /// Fails with [`StoreError::NameConflict`], [`StoreError::NotExist`] or
    /// [`StoreError::SequenceConflict`].
    pub fn update<T: Stored>(&mut self, mut object: T) -> Result<Arc<T>, StoreError> {
        self.view
            .check_name::<T>(Some(object.id()), object.name())?;
        let old = self
            .view
            .get::<T>(object.id())
            .ok_or(StoreError::NotExist)?;
        object.check(Some(old), &self.view)?;
        if old.meta().version != object.meta().version {
            return Err(StoreError::SequenceConflict);
        }
        let created_at = old.meta().created_at.or(object.meta().created_at);
        object.set_meta(self.stamp(created_at.unwrap_or(self.now)));
        Ok(self.put(proto::StoreActionKind::StoreActionUpdate, object))
    }

    /// Changes whatever version of the object is there. For changes that hold on any version, like
    /// raising a task's desired state.
    pub fn modify<T: Stored>(
        &mut self,
        id: impl AsRef<str>,
        change: impl FnOnce(&mut T),
    ) -> Result<Arc<T>, StoreError> {
        let old = self.view.get::<T>(id).ok_or(StoreError::NotExist)?;
        let mut object = (**old).clone();
        change(&mut object);
        object.set_meta(old.meta());
        self.update(object)
    }

    /// Removes an object and returns it.
    pub fn delete<T: Stored>(&mut self, id: impl AsRef<str>) -> Result<Arc<T>, StoreError> {
        let old = self
            .view
            .get::<T>(id.as_ref())
            .ok_or(StoreError::NotExist)?;
        old.check_delete(&self.view)?;
        let old = self
            .view
            .remove::<T>(id.as_ref())
            .ok_or(StoreError::NotExist)?;
        self.record(
            proto::StoreActionKind::StoreActionRemove,
            Arc::clone(&old).into_object(),
        );
        Ok(old)
    }

    /// Nothing was changed so far.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many objects were written so far; writing one twice counts twice.
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    /// About how many bytes the log entry will take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn savepoint(&self) -> Savepoint {
        Savepoint {
            view: self.view.clone(),
            changes: self.changes.len(),
            bytes: self.bytes,
        }
    }

    pub(crate) fn roll_back(&mut self, to: Savepoint) {
        self.view = to.view;
        self.changes.truncate(to.changes);
        self.bytes = to.bytes;
    }

    /// The state after the transaction, and the actions that lead there.
    pub(crate) fn finish(self) -> (View, Vec<proto::StoreAction>) {
        let actions = self.changes.into_iter().map(action).collect();
        (self.view, actions)
    }

    fn stamp(&self, created_at: Timestamp) -> Meta {
        Meta {
            version: Version(self.view.version),
            created_at: Some(created_at),
            updated_at: Some(self.now),
        }
    }

    fn put<T: Stored>(&mut self, kind: proto::StoreActionKind, object: T) -> Arc<T> {
        let (_, object) = self.view.insert(Arc::new(object));
        self.record(kind, Arc::clone(&object).into_object());
        object
    }

    fn record(&mut self, kind: proto::StoreActionKind, object: Object) {
        let change = Change { kind, object };
        self.bytes += proto::Message::encoded_len(&action(change.clone()));
        self.changes.push(change);
    }
}

fn action(change: Change) -> proto::StoreAction {
    let target = match change.kind {
        // Whoever applies a removal needs the id only; a large object need not fill the log again.
        proto::StoreActionKind::StoreActionRemove => id_only(&change.object),
        _ => whole(change.object),
    };
    proto::StoreAction {
        action: change.kind.into(),
        target: Some(target),
    }
}

fn whole(object: Object) -> Target {
    match object {
        Object::Node(node) => Target::Node(Arc::unwrap_or_clone(node)),
        Object::Service(service) => Target::Service(Arc::unwrap_or_clone(service)),
        Object::Task(task) => Target::Task((&*task).into()),
        Object::Network(network) => Target::Network(Arc::unwrap_or_clone(network)),
        Object::Cluster(cluster) => Target::Cluster(Arc::unwrap_or_clone(cluster)),
        Object::Secret(secret) => Target::Secret(Arc::unwrap_or_clone(secret)),
        Object::Config(config) => Target::Config(Arc::unwrap_or_clone(config)),
        Object::Volume(volume) => Target::Volume(Arc::unwrap_or_clone(volume)),
        Object::Resource(resource) => Target::Resource(Arc::unwrap_or_clone(resource)),
        Object::Extension(extension) => Target::Extension(Arc::unwrap_or_clone(extension)),
    }
}

fn id_only(object: &Object) -> Target {
    macro_rules! target {
        ($kind:ident) => {
            Target::$kind(proto::$kind {
                id: object.id().to_owned(),
                ..Default::default()
            })
        };
    }
    match object {
        Object::Node(_) => target!(Node),
        Object::Service(_) => target!(Service),
        Object::Task(_) => target!(Task),
        Object::Network(_) => target!(Network),
        Object::Cluster(_) => target!(Cluster),
        Object::Secret(_) => target!(Secret),
        Object::Config(_) => target!(Config),
        Object::Volume(_) => target!(Volume),
        Object::Resource(_) => target!(Resource),
        Object::Extension(_) => target!(Extension),
    }
}

#[cfg(test)]
mod tests;
