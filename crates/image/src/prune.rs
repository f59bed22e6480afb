use time::OffsetDateTime;

use crate::error::ImageError;
use crate::list::{created, has_label, labels_match};
use crate::remove::{ImageUser, RemoveOptions, Removed};
use crate::store::ImageStore;

#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Only images without a tag; `docker image prune -a` sets it to false.
    pub dangling: bool,
    pub until: Option<OffsetDateTime>,
    /// `key` or `key=value`; all must be there.
    pub labels: Vec<String>,
    /// `label!=`: images that have all of them are kept.
    pub labels_not: Vec<String>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            dangling: true,
            until: None,
            labels: Vec::new(),
            labels_not: Vec::new(),
        }
    }
}

impl ImageStore {
    /// `docker image prune`: removes what no container uses.
    pub fn prune(
        &self,
        options: &PruneOptions,
        users: &[ImageUser],
    ) -> Result<Removed, ImageError> {
        let Some(_pruning) = self.inner.pruning.try_lock() else {
            return Err(ImageError::Conflict(
                "a prune operation is already running".to_owned(),
            ));
        };
        let mut total = Removed::default();
        for name in self.prunable(options) {
            match self.remove(&name, RemoveOptions::default(), users) {
                Ok(removed) => {
                    total.records.extend(removed.records);
                    total.events.extend(removed.events);
                    total.reclaimed += removed.reclaimed;
                }
                // In use, or gone meanwhile: neither is an error of a prune.
                Err(ImageError::Conflict(_) | ImageError::NotFound(_)) => {}
                Err(error) => tracing::warn!(image = name, %error, "could not prune an image"),
            }
        }
        Ok(total)
    }

    /// The names (or ids) to take away.
    fn prunable(&self, options: &PruneOptions) -> Vec<String> {
        let state = self.inner.state.read();
        let mut names = Vec::new();
        for (id, entry) in &state.images {
            let references = state.references_of(id);
            let inner = state.has_children(id);
            let tagged = references
                .iter()
                .any(|reference| reference.digest().is_none());
            let too_young = options
                .until
                .is_some_and(|until| created(entry).is_none_or(|created| created > until));
            let kept_by_label = !options.labels_not.is_empty()
                && options
                    .labels_not
                    .iter()
                    .all(|label| has_label(entry, label));
            if (inner && (options.dangling || references.is_empty()))
                || (options.dangling && tagged)
                || too_young
                || kept_by_label
                || !labels_match(entry, &options.labels)
            {
                continue;
            }
            if references.is_empty() {
                names.push(id.0.hex().to_owned());
            }
            names.extend(references.iter().map(ToString::to_string));
        }
        names
    }
}
