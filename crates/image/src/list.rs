use std::collections::BTreeMap;

use bollard_stubs::models as m;
use skep_reference::{Digest, Reference};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::ImageError;
use crate::glob;
use crate::image::ImageId;
use crate::remove::ImageUser;
use crate::state::{ImageEntry, State};
use crate::store::ImageStore;

/// `docker image ls` and its filters; several values of one filter are alternatives for
/// `references` and all required for `labels`.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also untagged images that others were built on.
    pub all: bool,
    pub dangling: Option<bool>,
    /// `key` or `key=value`.
    pub labels: Vec<String>,
    /// Images; older than all of them.
    pub before: Vec<String>,
    /// Images; newer than all of them.
    pub since: Vec<String>,
    pub until: Option<OffsetDateTime>,
    /// Patterns as in `path.Match`.
    pub references: Vec<String>,
    pub shared_size: bool,
}

impl ImageStore {
    /// Newest first. `users` are counted as the images' containers.
    pub fn list(
        &self,
        options: &ListOptions,
        users: &[ImageUser],
    ) -> Result<Vec<m::ImageSummary>, ImageError> {
        let state = self.inner.state.read();
        let before = bound(&state, &options.before, options.until, OffsetDateTime::min)?;
        let since = bound(&state, &options.since, None, OffsetDateTime::max)?;
        let shared = options.shared_size.then(|| layer_users(&state));
        let by_image = references_by_image(&state);
        let mut found = Vec::new();
        for (id, entry) in &state.images {
            let created = created(entry);
            if before.is_some_and(|bound| created.is_none_or(|at| at >= bound))
                || since.is_some_and(|bound| created.is_none_or(|at| at <= bound))
                || !labels_match(entry, &options.labels)
            {
                continue;
            }
            let references = by_image.get(id).map(Vec::as_slice).unwrap_or_default();
            let Some((tags, digests)) = shown_names(&state, id, references, options)? else {
                continue;
            };
            found.push(m::ImageSummary {
                id: id.to_string(),
                parent_id: entry
                    .parent
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                repo_tags: tags,
                repo_digests: digests,
                created: created.map_or(0, OffsetDateTime::unix_timestamp),
                size: state.size_of(&entry.chains) as i64,
                shared_size: shared
                    .as_ref()
                    .map_or(-1, |users| shared_size(&state, entry, users)),
                labels: labels_of(entry),
                containers: users.iter().filter(|user| user.image == *id).count() as i64,
                manifests: None,
                descriptor: None,
            });
        }
        found.sort_by(|a, b| {
            b.created
                .cmp(&a.created)
                .then_with(|| a.repo_tags.cmp(&b.repo_tags))
        });
        Ok(found)
    }
}

/// Tags and digests.
type Names = (Vec<String>, Vec<String>);

/// Tags and digests to show, or `None` where the image is not to be shown at all.
fn shown_names(
    state: &State,
    id: &ImageId,
    references: &[&Reference],
    options: &ListOptions,
) -> Result<Option<Names>, ImageError> {
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for reference in references {
        if options.references.is_empty() || matches_any(&options.references, reference)? {
            let list = if reference.digest().is_some() {
                &mut digests
            } else {
                &mut tags
            };
            list.push(reference.familiar());
        }
    }
    let only_dangling = options.dangling == Some(true);
    let shown = if tags.is_empty() && digests.is_empty() {
        let inner = !options.all && state.has_children(id);
        !inner
            && options.dangling != Some(false)
            && options.references.is_empty()
            && !(only_dangling && state.has_children(id))
    } else {
        !only_dangling || tags.is_empty()
    };
    Ok(shown.then_some((tags, digests)))
}

/// Tries the pattern on the familiar and the full form, with and without tag.
fn matches_any(patterns: &[String], reference: &Reference) -> Result<bool, ImageError> {
    let targets = [
        reference.familiar(),
        reference.familiar_name(),
        reference.to_string(),
        reference.name(),
    ];
    for pattern in patterns {
        for target in &targets {
            if glob::path_match(pattern, target)
                .ok_or_else(|| ImageError::Invalid("syntax error in pattern".to_owned()))?
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

pub(crate) fn references_by_image(state: &State) -> BTreeMap<&ImageId, Vec<&Reference>> {
    let mut map: BTreeMap<&ImageId, Vec<&Reference>> = BTreeMap::new();
    for (reference, id) in &state.references {
        map.entry(id).or_default().push(reference);
    }
    map
}

pub(crate) fn created(entry: &ImageEntry) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(entry.config.created.as_deref()?, &Rfc3339).ok()
}

/// The strictest of the given images' creation times and of `initial`.
fn bound(
    state: &State,
    images: &[String],
    initial: Option<OffsetDateTime>,
    strictest: impl Fn(OffsetDateTime, OffsetDateTime) -> OffsetDateTime,
) -> Result<Option<OffsetDateTime>, ImageError> {
    let mut bound = initial;
    for image in images {
        if let Some(at) = created(&state.images[&state.resolve(image)?]) {
            bound = Some(bound.map_or(at, |bound| strictest(bound, at)));
        }
    }
    Ok(bound)
}

pub(crate) fn has_label(entry: &ImageEntry, wanted: &str) -> bool {
    let (key, value) = match wanted.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (wanted, None),
    };
    let labels = entry
        .config
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref());
    labels
        .and_then(|labels| labels.get(key))
        .is_some_and(|found| value.is_none_or(|value| value == found))
}

pub(crate) fn labels_match(entry: &ImageEntry, wanted: &[String]) -> bool {
    wanted.iter().all(|label| has_label(entry, label))
}

fn labels_of(entry: &ImageEntry) -> std::collections::HashMap<String, String> {
    let config = entry.config.config.iter();
    config
        .flat_map(super::config::RunConfig::labels)
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn layer_users(state: &State) -> BTreeMap<&Digest, usize> {
    let mut users = BTreeMap::new();
    for chain in state.images.values().flat_map(|entry| entry.chains.iter()) {
        *users.entry(chain).or_default() += 1;
    }
    users
}

fn shared_size(state: &State, entry: &ImageEntry, users: &BTreeMap<&Digest, usize>) -> i64 {
    let shared = entry
        .chains
        .iter()
        .filter(|chain| users.get(chain).is_some_and(|n| *n > 1));
    shared
        .filter_map(|chain| state.layers.get(chain))
        .map(|layer| layer.size as i64)
        .sum()
}
