//! Which volumes are mounted, and for whom: mounted by the first user, unmounted by the last.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{VolumeStore, options};
use crate::error::Result;

/// The users of each volume that has to be mounted. One volume's lock is held while it is mounted,
/// which may take long with a server that does not answer; the others go on meanwhile.
#[derive(Default)]
pub(super) struct Held {
    users: Mutex<HashMap<String, Arc<Mutex<HashSet<String>>>>>,
}

impl Held {
    fn users_of(&self, volume: &str) -> Arc<Mutex<HashSet<String>>> {
        self.users
            .lock()
            .entry(volume.to_owned())
            .or_default()
            .clone()
    }

    pub(super) fn is_used(&self, volume: &str) -> bool {
        let users = self.users.lock().get(volume).cloned();
        users.is_some_and(|users| !users.lock().is_empty())
    }

    pub(super) fn forget(&self, volume: &str) {
        self.users.lock().remove(volume);
    }
}

/// Keeps a volume mounted until it is dropped.
pub(crate) struct VolumeHold {
    store: Arc<VolumeStore>,
    volume: String,
    user: String,
}

impl Drop for VolumeHold {
    fn drop(&mut self) {
        self.store.release_or_log(&self.volume, &self.user);
    }
}

impl VolumeStore {
    /// Mounts a volume for a user, unless it is there already. Blocks.
    pub(crate) fn acquire(&self, name: &str, user: &str) -> Result<()> {
        let Ok(volume) = self.get(name) else {
            return Ok(());
        };
        if !options::is_mount(&volume.options) {
            return Ok(());
        }
        let users = self.held.users_of(name);
        let mut users = users.lock();
        if users.is_empty() {
            options::mount(&volume.options, &self.mountpoint(name)).map_err(|error| {
                error.context(format!(
                    "error while mounting volume '{}'",
                    self.mountpoint(name).display()
                ))
            })?;
        }
        users.insert(user.to_owned());
        Ok(())
    }

    /// Notes a user that an earlier daemon mounted the volume for.
    pub(crate) fn adopt(&self, name: &str, user: &str) {
        let mounted = self
            .get(name)
            .is_ok_and(|volume| options::is_mount(&volume.options));
        if mounted {
            self.held.users_of(name).lock().insert(user.to_owned());
        }
    }

    /// Ends a use; the last one unmounts. Blocks.
    pub(crate) fn release(&self, name: &str, user: &str) -> Result<()> {
        let users = self.held.users.lock().get(name).cloned();
        let Some(users) = users else { return Ok(()) };
        let mut users = users.lock();
        if users.remove(user) && users.is_empty() {
            options::unmount(&self.mountpoint(name))?;
        }
        Ok(())
    }

    pub(crate) fn release_or_log(&self, name: &str, user: &str) {
        if let Err(error) = self.release(name, user) {
            tracing::warn!(volume = %name, %error, "volume not unmounted");
        }
    }

    /// As [`Self::acquire`], for as long as the result lives.
    pub(crate) fn hold(self: &Arc<Self>, name: &str, user: String) -> Result<VolumeHold> {
        self.acquire(name, &user)?;
        Ok(VolumeHold {
            store: self.clone(),
            volume: name.to_owned(),
            user,
        })
    }

    /// Unmounts what an earlier daemon left mounted for containers that have ended since.
    pub(crate) fn unmount_unused(&self) {
        for volume in self.list() {
            if options::is_mount(&volume.options)
                && !self.held.is_used(&volume.name)
                && let Err(error) = options::unmount(&self.mountpoint(&volume.name))
            {
                tracing::warn!(volume = %volume.name, %error, "volume not unmounted");
            }
        }
    }
}
