use std::sync::Arc;

use imbl::OrdMap;
use skep_model::StoreObject;

use crate::StoreError;
use crate::snapshot::View;

/// A kind of object that has a table in the store.
pub trait Stored: StoreObject + sealed::Sealed {}

pub(crate) mod sealed {
    use std::sync::Arc;

    use super::{Indexes, Table};
    use crate::StoreError;
    use crate::snapshot::View;

    /// What a table needs to know of its objects. Not nameable outside: the set of tables is fixed.
    pub trait Sealed: Sized {
        /// Whether no two objects may have the same name.
        const UNIQUE_NAMES: bool = true;

        type Indexes: Indexes<Self>;

        fn table(view: &View) -> &Table<Self>;
        fn table_mut(view: &mut View) -> &mut Table<Self>;

        /// Refuses creating or updating (`old` is there) for reasons of this kind alone.
        fn check(&self, _old: Option<&Self>, _view: &View) -> Result<(), StoreError> {
            Ok(())
        }

        fn check_delete(&self, _view: &View) -> Result<(), StoreError> {
            Ok(())
        }

        /// Called before the object goes in: the chance to share parts with others.
        fn adopt(self: Arc<Self>, _old: Option<&Self>, _view: &View) -> Arc<Self> {
            self
        }

        fn inserted(_object: &Arc<Self>, _view: &mut View) {}

        fn removed(_object: &Arc<Self>, _view: &mut View) {}
    }
}

/// Secondary indexes of one table.
pub trait Indexes<T>: Clone + Default + std::fmt::Debug + Send + Sync {
    fn insert(&mut self, object: &Arc<T>);
    fn remove(&mut self, object: &T);
}

/// For kinds that are found by id and name alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoIndexes;

impl<T> Indexes<T> for NoIndexes {
    fn insert(&mut self, _object: &Arc<T>) {}
    fn remove(&mut self, _object: &T) {}
}

/// All objects of one kind. Cloning it is O(1).
#[derive(Debug)]
pub struct Table<T: sealed::Sealed> {
    pub(crate) by_id: OrdMap<Arc<str>, Arc<T>>,
    /// Lower-case name to object; empty if names need not be unique.
    by_name: OrdMap<Box<str>, Arc<T>>,
    pub(crate) indexes: T::Indexes,
}

impl<T: sealed::Sealed> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self {
            by_id: self.by_id.clone(),
            by_name: self.by_name.clone(),
            indexes: self.indexes.clone(),
        }
    }
}

impl<T: sealed::Sealed> Default for Table<T> {
    fn default() -> Self {
        Self {
            by_id: OrdMap::new(),
            by_name: OrdMap::new(),
            indexes: T::Indexes::default(),
        }
    }
}

impl<T: Stored> Table<T> {
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<T>> {
        self.by_id.get(id)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<T>> {
        self.by_name.get(&*name.to_lowercase())
    }

    /// The objects whose ids start so, in order.
    pub(crate) fn by_id_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<T>> {
        self.by_id
            .range::<_, str>((
                std::ops::Bound::Included(prefix),
                std::ops::Bound::Unbounded,
            ))
            .take_while(move |(id, _)| id.starts_with(prefix))
            .map(|(_, object)| object)
    }

    fn insert(&mut self, object: &Arc<T>) -> Option<Arc<T>> {
        let id = Arc::from(object.id());
        let old = self.by_id.insert(id, Arc::clone(object));
        if let Some(old) = &old {
            self.indexes.remove(old);
            if T::UNIQUE_NAMES {
                self.by_name.remove(&*old.name().to_lowercase());
            }
        }
        self.indexes.insert(object);
        if T::UNIQUE_NAMES {
            self.by_name
                .insert(object.name().to_lowercase().into(), Arc::clone(object));
        }
        old
    }

    fn remove(&mut self, id: &str) -> Option<Arc<T>> {
        let old = self.by_id.remove(id)?;
        self.indexes.remove(&old);
        if T::UNIQUE_NAMES {
            let name = old.name().to_lowercase();
            // Not if another object took the name: possible only in a log that we did not write.
            if self
                .by_name
                .get(&*name)
                .is_some_and(|holder| holder.id() == id)
            {
                self.by_name.remove(&*name);
            }
        }
        Some(old)
    }
}

impl View {
    pub(crate) fn insert<T: Stored>(&mut self, object: Arc<T>) -> (Option<Arc<T>>, Arc<T>) {
        let old = T::table(self).get(object.id()).cloned();
        let object = object.adopt(old.as_deref(), self);
        T::table_mut(self).insert(&object);
        T::inserted(&object, self);
        (old, object)
    }

    pub(crate) fn remove<T: Stored>(&mut self, id: &str) -> Option<Arc<T>> {
        let old = T::table_mut(self).remove(id)?;
        T::removed(&old, self);
        Some(old)
    }

    /// Whether `name` is free for the object `id`.
    pub(crate) fn check_name<T: Stored>(
        &self,
        id: Option<&str>,
        name: &str,
    ) -> Result<(), StoreError> {
        if !T::UNIQUE_NAMES {
            return Ok(());
        }
        match T::table(self).by_name(name) {
            Some(holder) if id != Some(holder.id()) => Err(StoreError::NameConflict),
            _ => Ok(()),
        }
    }
}
