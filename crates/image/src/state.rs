//! The metadata in memory: the same as in the database, indexed for reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_reference::{AnyReference, Digest, Reference};

use crate::chain::chain_ids;
use crate::config::ImageConfig;
use crate::db::{Change, Contents, LayerRecord, RemoteBlob};
use crate::error::ImageError;
use crate::image::{Image, ImageId};

#[derive(Debug, Clone)]
pub(crate) struct ImageEntry {
    pub(crate) config: Arc<ImageConfig>,
    pub(crate) parent: Option<ImageId>,
    pub(crate) last_tag_time: Option<String>,
    /// Chain ids of its layers, lowest first.
    pub(crate) chains: Arc<[Digest]>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<ImageId, ImageEntry>,
    pub(crate) references: BTreeMap<Reference, ImageId>,
    pub(crate) layers: BTreeMap<Digest, LayerRecord>,
    /// By diff id.
    pub(crate) remotes: BTreeMap<Digest, Vec<RemoteBlob>>,
}

impl State {
    pub(crate) fn from_contents(contents: Contents) -> Result<Self, ImageError> {
        let mut state = Self::default();
        for (chain, record) in contents.layers {
            state.apply(&Change::PutLayer(chain, record))?;
        }
        for (id, record) in contents.images {
            state.apply(&Change::PutImage(id, record))?;
        }
        for (reference, id) in contents.references {
            state.apply(&Change::PutReference(reference, id))?;
        }
        for (diff_id, blobs) in contents.remotes {
            state.apply(&Change::PutRemotes(diff_id, blobs))?;
        }
        Ok(state)
    }

    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), ImageError> {
        match change {
            Change::PutImage(id, record) => {
                let config = ImageConfig::parse(record.config.as_bytes())?;
                let entry = ImageEntry {
                    chains: chain_ids(config.diff_ids()).into(),
                    config: Arc::new(config),
                    parent: record.parent.clone().map(ImageId),
                    last_tag_time: record.last_tag_time.clone(),
                };
                self.images.insert(id.clone(), entry);
            }
            Change::DeleteImage(id) => {
                self.images.remove(id);
            }
            Change::PutReference(reference, id) => {
                self.references.insert(reference.clone(), id.clone());
            }
            Change::DeleteReference(reference) => {
                self.references.remove(reference);
            }
            Change::PutLayer(chain, record) => {
                self.layers.insert(chain.clone(), record.clone());
            }
            Change::DeleteLayer(chain) => {
                self.layers.remove(chain);
            }
            Change::PutRemotes(diff_id, blobs) => {
                self.remotes.insert(diff_id.clone(), blobs.clone());
            }
            Change::DeleteRemotes(diff_id) => {
                self.remotes.remove(diff_id);
            }
        }
        Ok(())
    }

    pub(crate) fn image(&self, id: &ImageId) -> Option<Image> {
        let entry = self.images.get(id)?;
        Some(Image {
            id: id.clone(),
            config: entry.config.clone(),
            parent: entry.parent.clone(),
            last_tag_time: entry.last_tag_time.clone(),
            references: self.references_of(id),
            size: self.size_of(&entry.chains),
            top: entry.chains.last().cloned(),
        })
    }

    pub(crate) fn size_of(&self, chains: &[Digest]) -> u64 {
        chains
            .iter()
            .filter_map(|chain| self.layers.get(chain))
            .map(|layer| layer.size)
            .sum()
    }

    pub(crate) fn references_of(&self, id: &ImageId) -> Vec<Reference> {
        let mut found: Vec<_> = self
            .references
            .iter()
            .filter(|(_, to)| *to == id)
            .map(|(r, _)| r.clone())
            .collect();
        found.sort_by_cached_key(Reference::to_string);
        found
    }

    pub(crate) fn has_children(&self, id: &ImageId) -> bool {
        self.images
            .values()
            .any(|entry| entry.parent.as_ref() == Some(id))
    }

    /// What Docker's commands understand as "an image": a reference, an id, a prefix of an id.
    pub(crate) fn resolve(&self, name: &str) -> Result<ImageId, ImageError> {
        match AnyReference::parse(name)? {
            AnyReference::Digest(digest) => {
                let id = ImageId(digest);
                if self.images.contains_key(&id) {
                    return Ok(id);
                }
                Err(no_such_image(id.as_str()))
            }
            AnyReference::Named(reference) => {
                let reference = reference.with_default_tag();
                if let Some(id) = self.references.get(&reference.clone().favour_digest()) {
                    return Ok(id.clone());
                }
                self.by_prefix(name)
                    .ok_or_else(|| no_such_image(&reference.familiar()))
            }
        }
    }

    /// The one image whose id starts so. An ambiguous prefix finds nothing, as with dockerd.
    fn by_prefix(&self, prefix: &str) -> Option<ImageId> {
        let prefix = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        let mut found = self
            .images
            .keys()
            .filter(|id| id.0.hex().starts_with(prefix));
        let first = found.next()?;
        found.next().is_none().then(|| first.clone())
    }

    /// The chain ids of a layer and all below it, top first.
    pub(crate) fn lineage(&self, top: &Digest) -> Vec<Digest> {
        let mut lineage = Vec::new();
        let mut next = Some(top.clone());
        while let Some(chain) = next {
            next = self
                .layers
                .get(&chain)
                .and_then(|layer| layer.parent.clone());
            lineage.push(chain);
        }
        lineage
    }

    /// What to forget about registries once `garbage` is gone.
    pub(crate) fn forgotten_remotes(&self, garbage: &[(Digest, LayerRecord)]) -> Vec<Change> {
        let stays = |diff_id: &Digest| {
            self.layers.iter().any(|(chain, layer)| {
                layer.diff_id == *diff_id && !garbage.iter().any(|(gone, _)| gone == chain)
            })
        };
        let gone: BTreeSet<&Digest> = garbage.iter().map(|(_, layer)| &layer.diff_id).collect();
        gone.into_iter()
            .filter(|diff_id| self.remotes.contains_key(*diff_id) && !stays(diff_id))
            .map(|diff_id| Change::DeleteRemotes(diff_id.clone()))
            .collect()
    }

    /// Layers that neither an image nor one of `held` (nor what lies on those) needs, top first.
    pub(crate) fn unreferenced<'a>(
        &self,
        held: impl Iterator<Item = &'a Digest>,
    ) -> Vec<(Digest, LayerRecord)> {
        let mut needed: BTreeSet<Digest> = self
            .images
            .values()
            .flat_map(|entry| entry.chains.iter().cloned())
            .collect();
        for top in held {
            needed.extend(self.lineage(top));
        }
        let mut found: Vec<_> = self
            .layers
            .iter()
            .filter(|(chain, _)| !needed.contains(*chain))
            .map(|(chain, layer)| (self.lineage(chain).len(), chain.clone(), layer.clone()))
            .collect();
        found.sort_by_key(|(depth, ..)| std::cmp::Reverse(*depth));
        found
            .into_iter()
            .map(|(_, chain, layer)| (chain, layer))
            .collect()
    }
}

pub(crate) fn no_such_image(name: &str) -> ImageError {
    ImageError::NotFound(format!("No such image: {name}"))
}
