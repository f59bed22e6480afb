use bollard_stubs::models as m;
use skep_reference::Digest;

use crate::error::ImageError;
use crate::state::State;
use crate::store::ImageStore;

impl ImageStore {
    /// `docker image inspect`. What only old API versions show is in [`crate::Image::config`].
    pub fn inspect(&self, name: &str) -> Result<m::ImageInspect, ImageError> {
        let state = self.inner.state.read();
        let id = state.resolve(name)?;
        let image = state
            .image(&id)
            .expect("resolve returns ids of images that exist");
        let config = image.config();
        let comment = match (config.comment.as_str(), config.history().last()) {
            ("", Some(last)) => last.comment.clone(),
            (comment, _) => comment.to_owned(),
        };
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(m::ImageInspect {
            id: Some(id.to_string()),
            descriptor: None,
            manifests: None,
            identity: None,
            repo_tags: Some(image.repo_tags()),
            repo_digests: Some(image.repo_digests()),
            comment: Some(comment),
            created: config.created.clone(),
            author: Some(config.author.clone()),
            config: Some(image.run_config().cloned().unwrap_or_default().to_model()),
            architecture: some(&config.architecture),
            variant: some(&config.variant),
            os: Some(config.os().to_owned()),
            os_version: some(&config.os_version),
            size: Some(image.size() as i64),
            graph_driver: Some(self.graph_driver(&state, image.top_layer())),
            root_fs: Some(m::ImageInspectRootFs {
                typ: config
                    .rootfs
                    .as_ref()
                    .map(|r| r.kind.clone())
                    .unwrap_or_default(),
                layers: Some(config.diff_ids().iter().map(ToString::to_string).collect()),
            }),
            metadata: Some(m::ImageInspectMetadata {
                last_tag_time: Some(
                    image
                        .last_tag_time
                        .unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()),
                ),
            }),
        })
    }

    /// `docker history`: newest first.
    pub fn history(&self, name: &str) -> Result<Vec<m::ImageHistoryResponseItem>, ImageError> {
        let state = self.inner.state.read();
        let mut id = Some(state.resolve(name)?);
        let entry = &state.images[id.as_ref().expect("just set")];
        let mut chains = entry.chains.iter();
        let mut items = Vec::new();
        for step in entry.config.history() {
            let layer = if step.empty_layer {
                None
            } else {
                chains.next()
            };
            let size = layer
                .and_then(|chain| state.layers.get(chain))
                .map_or(0, |l| l.size);
            items.push(m::ImageHistoryResponseItem {
                id: "<missing>".to_owned(),
                created: unix(step.created.as_deref()),
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size: size as i64,
                comment: step.comment.clone(),
            });
        }
        items.reverse();
        for item in &mut items {
            let Some(current) = id else { break };
            item.id = current.to_string();
            item.tags = state
                .references_of(&current)
                .iter()
                .filter(|reference| reference.digest().is_none())
                .map(skep_reference::Reference::familiar)
                .collect();
            id = state
                .images
                .get(&current)
                .and_then(|entry| entry.parent.clone());
        }
        Ok(items)
    }

    /// Where the layers lie, as `docker inspect` shows it.
    fn graph_driver(&self, state: &State, top: Option<&Digest>) -> m::DriverData {
        let mut data = std::collections::HashMap::new();
        if let Some(top) = top {
            let mut dirs = state.lineage(top).into_iter().filter_map(|chain| {
                let dir = &state.layers.get(&chain)?.dir;
                Some(self.inner.layers.diff(dir).display().to_string())
            });
            data.insert("UpperDir".to_owned(), dirs.next().unwrap_or_default());
            let lower: Vec<_> = dirs.collect();
            if !lower.is_empty() {
                data.insert("LowerDir".to_owned(), lower.join(":"));
            }
        }
        m::DriverData {
            name: "overlay2".to_owned(),
            data,
        }
    }
}

fn unix(created: Option<&str>) -> i64 {
    use time::format_description::well_known::Rfc3339;
    created
        .and_then(|text| time::OffsetDateTime::parse(text, &Rfc3339).ok())
        .map_or(0, time::OffsetDateTime::unix_timestamp)
}
