use std::collections::BTreeSet;

use bollard_stubs::models::ImageDeleteResponseItem;
use skep_reference::{Digest, Reference};

use crate::db::Change;
use crate::error::ImageError;
use crate::image::ImageId;
use crate::state::State;
use crate::store::ImageStore;

/// A container as far as removing images is concerned. The engine passes all it has.
#[derive(Debug, Clone)]
pub struct ImageUser {
    pub container_id: String,
    pub image: ImageId,
    pub running: bool,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    pub force: bool,
    /// Keep untagged parents.
    pub no_prune: bool,
}

/// What a removal did: what to answer, and what to tell those who watch events.
#[derive(Debug, Clone, Default)]
pub struct Removed {
    pub records: Vec<ImageDeleteResponseItem>,
    pub events: Vec<ImageEvent>,
    /// Bytes of the layers that went.
    pub reclaimed: u64,
}

/// Docker's `untag` and `delete` events; the actor's id and name are both the image id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEvent {
    pub action: &'static str,
    pub image: ImageId,
}

impl ImageStore {
    /// `docker rmi`: takes a name away or, given an id or the last name, the image itself.
    pub fn remove(
        &self,
        name: &str,
        options: RemoveOptions,
        users: &[ImageUser],
    ) -> Result<Removed, ImageError> {
        let mut removed = Removed::default();
        let deleted = self.inner.update(|state, changes| {
            let mut removal = Removal {
                state,
                changes,
                removed: &mut removed,
                users,
                gone: BTreeSet::new(),
                untagged: BTreeSet::new(),
            };
            removal.run(name, options)
        })?;
        if deleted {
            for (chain, size) in self.inner.collect()? {
                removed.reclaimed += size;
                removed.records.push(deleted_record(&chain));
            }
        }
        Ok(removed)
    }
}

fn deleted_record(digest: &Digest) -> ImageDeleteResponseItem {
    ImageDeleteResponseItem {
        deleted: Some(digest.to_string()),
        untagged: None,
    }
}

/// One removal under way: the state as it is, and what has been decided on top of it.
struct Removal<'a> {
    state: &'a State,
    changes: &'a mut Vec<Change>,
    removed: &'a mut Removed,
    users: &'a [ImageUser],
    gone: BTreeSet<ImageId>,
    untagged: BTreeSet<Reference>,
}

/// A reason why an image cannot be deleted.
struct Obstacle {
    hard: bool,
    /// A container is the reason.
    used: bool,
    message: String,
}

impl Removal<'_> {
    /// Returns whether an image went, so that layers may have become free.
    fn run(&mut self, name: &str, options: RemoveOptions) -> Result<bool, ImageError> {
        let id = self.state.resolve(name)?;
        let references = self.references(&id);
        let mut quiet = false;
        if is_id_prefix(&id, name) {
            if is_single(&references) {
                if let Some(obstacle) = self.obstacle(&id, options.force, false) {
                    return Err(conflict(&id, &obstacle));
                }
                for reference in &references {
                    self.untag(&id, reference, true);
                }
            }
        } else {
            if !options.force
                && is_single(&references)
                && let Some(user) = self.users.iter().find(|user| user.image == id)
            {
                return Err(ImageError::Conflict(format!(
                    "conflict: unable to remove repository reference {name:?} (must force) - \
                     container {} is using its referenced image {}",
                    short(&user.container_id),
                    id.short(),
                )));
            }
            let reference = Reference::parse(name)?.with_default_tag().favour_digest();
            self.untag(&id, &reference, true);
            if reference.digest().is_none() {
                self.untag_orphaned_digests(&id, &reference);
            }
            if !self.references(&id).is_empty() {
                return Ok(false);
            }
            quiet = true;
        }
        self.delete(id, options.force, !options.no_prune, quiet)?;
        Ok(!self.gone.is_empty())
    }

    fn references(&self, id: &ImageId) -> Vec<Reference> {
        let mut references = self.state.references_of(id);
        references.retain(|reference| !self.untagged.contains(reference));
        references
    }

    fn untag(&mut self, id: &ImageId, reference: &Reference, event: bool) {
        self.untagged.insert(reference.clone());
        self.changes
            .push(Change::DeleteReference(reference.clone()));
        self.removed.records.push(ImageDeleteResponseItem {
            untagged: Some(reference.familiar()),
            deleted: None,
        });
        if event {
            self.removed.events.push(ImageEvent {
                action: "untag",
                image: id.clone(),
            });
        }
    }

    /// Digest references stay only as long as a tag of the same repository does.
    fn untag_orphaned_digests(&mut self, id: &ImageId, removed: &Reference) {
        let same: Vec<_> = self
            .references(id)
            .into_iter()
            .filter(|r| r.name() == removed.name())
            .collect();
        if same.iter().all(|reference| reference.digest().is_some()) {
            for reference in &same {
                self.untag(id, reference, false);
            }
        }
    }

    fn delete(
        &mut self,
        id: ImageId,
        force: bool,
        prune: bool,
        quiet: bool,
    ) -> Result<(), ImageError> {
        if let Some(obstacle) = self.obstacle(&id, force, true) {
            let dangling = self.references(&id).is_empty() && !self.has_children(&id);
            if quiet && (!dangling || obstacle.used) {
                return Ok(());
            }
            return Err(conflict(&id, &obstacle));
        }
        for reference in self.references(&id) {
            self.untag(&id, &reference, true);
        }
        let parent = self
            .state
            .images
            .get(&id)
            .and_then(|entry| entry.parent.clone());
        self.changes.push(Change::DeleteImage(id.clone()));
        self.removed.records.push(deleted_record(&id.0));
        self.removed.events.push(ImageEvent {
            action: "delete",
            image: id.clone(),
        });
        self.gone.insert(id);
        match parent {
            Some(parent) if prune && self.state.images.contains_key(&parent) => {
                self.delete(parent, false, true, true)
            }
            _ => Ok(()),
        }
    }

    fn has_children(&self, id: &ImageId) -> bool {
        let mut images = self.state.images.iter();
        images.any(|(child, entry)| entry.parent.as_ref() == Some(id) && !self.gone.contains(child))
    }

    /// Why the image cannot be deleted, the strongest reason first. Soft ones yield to force.
    fn obstacle(&self, id: &ImageId, force: bool, count_references: bool) -> Option<Obstacle> {
        if self.has_children(id) {
            return Some(Obstacle {
                hard: true,
                used: false,
                message: "image has dependent child images".to_owned(),
            });
        }
        let using = |running: bool| {
            self.users
                .iter()
                .find(|user| user.image == *id && user.running == running)
        };
        if let Some(user) = using(true) {
            return Some(Obstacle {
                hard: true,
                used: true,
                message: format!(
                    "image is being used by running container {}",
                    short(&user.container_id)
                ),
            });
        }
        if force {
            return None;
        }
        if count_references && !self.references(id).is_empty() {
            return Some(Obstacle {
                hard: false,
                used: false,
                message: "image is referenced in multiple repositories".to_owned(),
            });
        }
        using(false).map(|user| Obstacle {
            hard: false,
            used: true,
            message: format!(
                "image is being used by stopped container {}",
                short(&user.container_id)
            ),
        })
    }
}

fn conflict(id: &ImageId, obstacle: &Obstacle) -> ImageError {
    let force = if obstacle.hard {
        "cannot be forced"
    } else {
        "must be forced"
    };
    ImageError::Conflict(format!(
        "conflict: unable to delete {} ({force}) - {}",
        id.short(),
        obstacle.message
    ))
}

/// All references are of one repository and at most one of them is a tag.
fn is_single(references: &[Reference]) -> bool {
    if references.len() <= 1 {
        return references.len() == 1;
    }
    let tags: Vec<_> = references.iter().filter(|r| r.digest().is_none()).collect();
    let digested: BTreeSet<_> = references
        .iter()
        .filter(|r| r.digest().is_some())
        .map(Reference::name)
        .collect();
    let single = match tags[..] {
        [] => references[0].name(),
        [tag] => tag.name(),
        _ => return false,
    };
    digested.len() == 1 && digested.contains(&single)
}

fn is_id_prefix(id: &ImageId, name: &str) -> bool {
    id.as_str().starts_with(name) || id.0.hex().starts_with(name)
}

fn short(container_id: &str) -> &str {
    container_id.get(..12).unwrap_or(container_id)
}
