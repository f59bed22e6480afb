//! Configs.

use std::sync::Arc;

use skep_model::ext::{ConfigExt as _, ConfigSpecExt as _};
use skep_model::{ConfigId, StoreObject as _};
use skep_proto as proto;
use skep_store::StoreError;

use super::filter::common;
use super::secret::refuse_if_used;
use super::{Control, validate};
use crate::error::{Code, ControlError, Result};

const MAX_SIZE: usize = 1000 * 1024;

impl Control {
    pub async fn create_config(
        &self,
        request: proto::CreateConfigRequest,
    ) -> Result<proto::CreateConfigResponse> {
        let spec = request.spec.ok_or_else(ControlError::incomplete)?;
        validate::file_annotations(spec.annotations.as_ref())?;
        if spec.data.is_empty() || spec.data.len() >= MAX_SIZE {
            return Err(ControlError::invalid(format!(
                "config data must be larger than 0 and less than {MAX_SIZE} bytes"
            )));
        }
        let name = spec.annotations().name.clone();
        let config = proto::Config {
            id: ConfigId::random().into(),
            spec: Some(spec),
            ..proto::Config::default()
        };
        let created = self
            .store
            .update(|tx| {
                tx.create(config).map_err(|error| match error {
                    StoreError::NameConflict => ControlError::new(
                        Code::AlreadyExists,
                        format!("config {name} already exists"),
                    ),
                    error => error.into(),
                })
            })
            .await?;
        Ok(proto::CreateConfigResponse {
            config: Some((*created).clone()),
        })
    }

    pub fn get_config(
        &self,
        request: &proto::GetConfigRequest,
    ) -> Result<proto::GetConfigResponse> {
        let id = &request.config_id;
        if id.is_empty() {
            return Err(ControlError::invalid("config ID must be provided"));
        }
        let snapshot = self.store.snapshot();
        let config = snapshot.get::<proto::Config>(id);
        let config =
            config.ok_or_else(|| ControlError::not_found(format!("config {id} not found")))?;
        Ok(proto::GetConfigResponse {
            config: Some((**config).clone()),
        })
    }

    pub fn list_configs(&self, request: &proto::ListConfigsRequest) -> proto::ListConfigsResponse {
        let filters = request.filters.clone().unwrap_or_default();
        let common = common!(filters);
        let matches = |config: &&Arc<proto::Config>| {
            common.holds(
                &config.id,
                config.name(),
                &config.spec().annotations().labels,
            )
        };
        let snapshot = self.store.snapshot();
        let configs = snapshot
            .all()
            .filter(matches)
            .map(|c| (**c).clone())
            .collect();
        proto::ListConfigsResponse { configs }
    }

    /// Only the labels may change.
    pub async fn update_config(
        &self,
        request: proto::UpdateConfigRequest,
    ) -> Result<proto::UpdateConfigResponse> {
        let id = request.config_id;
        let version = request.config_version.filter(|_| !id.is_empty());
        let version = version.ok_or_else(ControlError::incomplete)?;
        let spec = request.spec.ok_or_else(ControlError::incomplete)?;
        let updated = self
            .store
            .update(|tx| {
                let config = tx.get::<proto::Config>(&id);
                let config = config
                    .ok_or_else(|| ControlError::not_found(format!("config {id} not found")))?;
                let mut config = (**config).clone();
                let same_data = spec.data.is_empty() || spec.data == config.spec().data;
                if config.name() != spec.annotations().name || !same_data {
                    return Err(ControlError::invalid("only updates to Labels are allowed"));
                }
                config.meta.get_or_insert_default().version = Some(version);
                let annotations = config
                    .spec
                    .get_or_insert_default()
                    .annotations
                    .get_or_insert_default();
                annotations.labels.clone_from(&spec.annotations().labels);
                tx.update(config).map_err(ControlError::from)
            })
            .await?;
        Ok(proto::UpdateConfigResponse {
            config: Some((*updated).clone()),
        })
    }

    pub async fn remove_config(
        &self,
        request: proto::RemoveConfigRequest,
    ) -> Result<proto::RemoveConfigResponse> {
        let id = request.config_id;
        if id.is_empty() {
            return Err(ControlError::invalid("config ID must be provided"));
        }
        self.store
            .update(|tx| {
                let config = tx.get::<proto::Config>(&id);
                let config = config.ok_or_else(|| {
                    ControlError::not_found(format!("could not find config {id}"))
                })?;
                let users: Vec<&str> = tx
                    .services_using_config(&ConfigId::from(id.as_str()))
                    .map(|service| service.name())
                    .collect();
                refuse_if_used("config", config.name(), &users)?;
                tx.delete::<proto::Config>(&id).map_err(ControlError::from)
            })
            .await?;
        Ok(proto::RemoveConfigResponse {})
    }
}
