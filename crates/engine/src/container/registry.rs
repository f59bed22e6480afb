//! All containers and their names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Container;
use crate::error::{EngineError, Result};
use crate::names;

/// Containers by id, and who owns which name. A name is taken from before its container exists
/// until it is gone.
#[derive(Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    containers: BTreeMap<String, Arc<Container>>,
    names: HashMap<String, String>,
}

impl Registry {
    /// Takes a name for an id, or makes one up.
    pub(crate) fn reserve(&self, name: Option<&str>, id: &str) -> Result<String> {
        let mut inner = self.inner.lock();
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let name = names::check(name)?;
            if let Some(owner) = inner.names.get(name) {
                return Err(conflict(name, owner));
            }
            inner.names.insert(name.to_owned(), id.to_owned());
            return Ok(name.to_owned());
        }
        let mut candidates = (0..6)
            .map(names::random_name)
            .chain([names::short(id).to_owned(), id.to_owned()]);
        let name = candidates
            .find(|name| !inner.names.contains_key(name))
            .ok_or_else(|| EngineError::system("no free container name"))?;
        inner.names.insert(name.clone(), id.to_owned());
        Ok(name)
    }

    /// Gives a name back, if it is that id's.
    pub(crate) fn release(&self, name: &str, id: &str) {
        let mut inner = self.inner.lock();
        if inner.names.get(name).is_some_and(|owner| owner == id) {
            inner.names.remove(name);
        }
    }

    pub(crate) fn insert(&self, container: Arc<Container>) {
        self.inner
            .lock()
            .containers
            .insert(container.id.clone(), container);
    }

    pub(crate) fn remove(&self, id: &str) {
        let mut inner = self.inner.lock();
        inner.containers.remove(id);
        inner.names.retain(|_, owner| owner != id);
    }

    /// All of them, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.inner.lock().containers.values().cloned().collect()
    }

    /// By full id, name, or unique prefix of an id, in this order.
    pub(crate) fn get(&self, reference: &str) -> Result<Arc<Container>> {
        let inner = self.inner.lock();
        if reference.is_empty() {
            return Err(EngineError::invalid(format!(
                "invalid name or ID supplied: {reference:?}"
            )));
        }
        if let Some(container) = inner.containers.get(reference) {
            return Ok(container.clone());
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(container) = inner
            .names
            .get(name)
            .and_then(|id| inner.containers.get(id))
        {
            return Ok(container.clone());
        }
        let mut matches = inner
            .containers
            .range(reference.to_owned()..)
            .take_while(|(id, _)| id.starts_with(reference));
        match (matches.next(), matches.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(EngineError::invalid(format!(
                "Multiple IDs found with provided prefix: {reference}"
            ))),
            _ => Err(EngineError::not_found(format!(
                "No such container: {reference}"
            ))),
        }
    }
}

fn conflict(name: &str, owner: &str) -> EngineError {
    EngineError::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_is_refused_with_its_owner() {
        let registry = Registry::default();
        assert_eq!(registry.reserve(Some("/web"), "abc").unwrap(), "web");
        assert_eq!(
            registry.reserve(Some("web"), "def").unwrap_err().message,
            "Conflict. The container name \"/web\" is already in use by container \"abc\". You have to remove (or \
             rename) that container to be able to reuse that name."
        );
        registry.release("web", "def");
        assert!(registry.reserve(Some("web"), "def").is_err());
        registry.release("web", "abc");
        assert!(registry.reserve(Some("web"), "def").is_ok());
    }

    #[test]
    fn unknown_containers_are_named() {
        assert_eq!(
            Registry::default().get("x").err().unwrap().message,
            "No such container: x"
        );
    }
}
