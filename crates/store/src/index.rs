use std::sync::Arc;

use imbl::OrdMap;

/// Which objects have a property: by the property's value, then in a fixed order within it, so that
/// every manager and every run iterates alike.
pub(crate) struct Index<K, S, T>(OrdMap<K, OrdMap<S, Arc<T>>>);

// Not derived: that would ask `T: Clone` for no reason.
impl<K: Clone, S: Clone, T> Clone for Index<K, S, T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, S, T> std::fmt::Debug for Index<K, S, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Index").finish_non_exhaustive()
    }
}

impl<K, S, T> Default for Index<K, S, T> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Ord + Clone, S: Ord + Clone, T> Index<K, S, T> {
    pub(crate) fn insert(&mut self, key: K, order: S, object: &Arc<T>) {
        self.0
            .entry(key)
            .or_default()
            .insert(order, Arc::clone(object));
    }

    pub(crate) fn remove<Q>(&mut self, key: &K, order: &Q)
    where
        S: std::borrow::Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let Some(objects) = self.0.get_mut(key) else {
            return;
        };
        objects.remove(order);
        if objects.is_empty() {
            self.0.remove(key);
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&OrdMap<S, Arc<T>>> {
        self.0.get(key)
    }

    pub(crate) fn len(&self, key: &K) -> usize {
        self.get(key).map_or(0, OrdMap::len)
    }

    pub(crate) fn values<'a>(
        &'a self,
        key: &K,
    ) -> impl Iterator<Item = &'a Arc<T>> + use<'a, K, S, T> {
        self.get(key)
            .into_iter()
            .flat_map(|objects| objects.iter().map(|(_, object)| object))
    }
}
