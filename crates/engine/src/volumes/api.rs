//! `docker volume`.

use std::collections::HashMap;

use bollard_stubs::models as m;

use super::{Volume, directory_size};
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::filters::Filters;

impl Engine {
    pub(crate) fn volume_event(
        &self,
        action: &str,
        name: &str,
        attributes: HashMap<String, String>,
    ) {
        self.events
            .publish_local(m::EventMessageTypeEnum::VOLUME, action, name, attributes);
    }

    fn driver_event(&self, action: &str, name: &str) {
        self.volume_event(
            action,
            name,
            HashMap::from([("driver".to_owned(), "local".to_owned())]),
        );
    }

    /// The containers that mount a volume, running or not.
    pub(crate) fn users_of_volume(&self, name: &str) -> Vec<String> {
        let uses = |container: &std::sync::Arc<crate::container::Container>| {
            container
                .record()
                .mounts
                .values()
                .any(|point| point.name.as_deref() == Some(name))
        };
        self.containers
            .all()
            .into_iter()
            .filter(uses)
            .map(|container| container.id.clone())
            .collect()
    }

    /// Lists volumes.
    pub async fn list_volumes(&self, filters: Filters) -> Result<m::VolumeListResponse> {
        filters.check(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.boolean("dangling")?;
        let fits = |volume: &Volume| {
            filters.any("name", |wanted| volume.name.contains(wanted))
                && filters.exact("driver", "local")
                && filters.labels("label", &volume.labels)
                && dangling.is_none_or(|dangling| {
                    dangling == self.users_of_volume(&volume.name).is_empty()
                })
        };
        let volumes = self
            .volumes
            .list()
            .iter()
            .filter(|volume| fits(volume))
            .map(|v| self.volumes.to_api(v))
            .collect();
        Ok(m::VolumeListResponse {
            volumes: Some(volumes),
            warnings: Some(Vec::new()),
        })
    }

    /// Makes a volume; one that exists is returned as it is.
    pub async fn create_volume(&self, request: m::VolumeCreateRequest) -> Result<m::Volume> {
        if request.cluster_volume_spec.is_some() {
            return Err(EngineError::not_implemented(
                "cluster volumes are not supported",
            ));
        }
        let (volume, made) = self.volumes.create(
            request.name.as_deref(),
            request.driver.as_deref(),
            request.driver_opts.unwrap_or_default(),
            request.labels.unwrap_or_default(),
        )?;
        if made {
            self.driver_event("create", &volume.name);
        }
        Ok(self.volumes.to_api(&volume))
    }

    /// One volume.
    pub async fn inspect_volume(&self, name: &str) -> Result<m::Volume> {
        Ok(self.volumes.to_api(&self.volumes.get(name)?))
    }

    /// Removes a volume that no container mounts. With `force`, one that is not there is fine.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        match self.volumes.remove(name, || self.users_of_volume(name)) {
            Err(error) if force && error.kind == crate::error::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                self.driver_event("destroy", name);
                Ok(())
            }
        }
    }

    /// Removes volumes that no container mounts: anonymous ones, or all with the filter `all`.
    pub async fn prune_volumes(&self, filters: Filters) -> Result<m::VolumePruneResponse> {
        filters.check(&["all", "label", "label!"])?;
        let all = filters.boolean("all")?.unwrap_or(false);
        let mut deleted = Vec::new();
        let mut reclaimed = 0;
        for volume in self.volumes.list() {
            let fits = (all || volume.is_anonymous())
                && filters.labels("label", &volume.labels)
                && (!filters.contains("label!") || filters.labels_absent("label!", &volume.labels));
            if !fits || !self.users_of_volume(&volume.name).is_empty() {
                continue;
            }
            let size = self.volume_bytes(&volume).await.max(0);
            if self.remove_volume(&volume.name, false).await.is_ok() {
                reclaimed += size;
                deleted.push(volume.name);
            }
        }
        self.volume_event(
            "prune",
            "",
            HashMap::from([("reclaimed".to_owned(), reclaimed.to_string())]),
        );
        Ok(m::VolumePruneResponse {
            volumes_deleted: Some(deleted),
            space_reclaimed: Some(reclaimed),
        })
    }

    /// Bytes of a volume's files; -1, which is "unknown", for what is mounted: it may be large, far
    /// away and shared with others.
    pub(crate) async fn volume_bytes(&self, volume: &Volume) -> i64 {
        if volume.is_mount() {
            return -1;
        }
        let path = self.volumes.mountpoint(&volume.name);
        blocking(move || Ok(directory_size(&path)))
            .await
            .unwrap_or(0)
    }
}
