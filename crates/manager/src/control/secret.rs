//! Secrets. What is in them leaves the store only towards the nodes that run tasks which use them.

use std::sync::Arc;

use skep_model::ext::{SecretExt as _, SecretSpecExt as _};
use skep_model::{SecretId, StoreObject as _};
use skep_proto as proto;
use skep_store::StoreError;

use super::filter::common;
use super::{Control, validate};
use crate::error::{Code, ControlError, Result};

const MAX_SIZE: usize = 500 * 1024;

impl Control {
    pub async fn create_secret(
        &self,
        request: proto::CreateSecretRequest,
    ) -> Result<proto::CreateSecretResponse> {
        let spec = request.spec.ok_or_else(ControlError::incomplete)?;
        check(&spec)?;
        let name = spec.annotations().name.clone();
        let secret = proto::Secret {
            id: SecretId::random().into(),
            spec: Some(spec),
            ..proto::Secret::default()
        };
        let created = self
            .store
            .update(|tx| {
                tx.create(secret).map_err(|error| match error {
                    StoreError::NameConflict => ControlError::new(
                        Code::AlreadyExists,
                        format!("secret {name} already exists"),
                    ),
                    error => error.into(),
                })
            })
            .await?;
        Ok(proto::CreateSecretResponse {
            secret: Some(without_data(&created)),
        })
    }

    pub fn get_secret(
        &self,
        request: &proto::GetSecretRequest,
    ) -> Result<proto::GetSecretResponse> {
        let id = &request.secret_id;
        if id.is_empty() {
            return Err(ControlError::invalid("secret ID must be provided"));
        }
        let snapshot = self.store.snapshot();
        let secret = snapshot.get::<proto::Secret>(id);
        let secret =
            secret.ok_or_else(|| ControlError::not_found(format!("secret {id} not found")))?;
        Ok(proto::GetSecretResponse {
            secret: Some(without_data(secret)),
        })
    }

    pub fn list_secrets(&self, request: &proto::ListSecretsRequest) -> proto::ListSecretsResponse {
        let filters = request.filters.clone().unwrap_or_default();
        let common = common!(filters);
        let matches = |secret: &&Arc<proto::Secret>| {
            !secret.internal
                && common.holds(
                    &secret.id,
                    secret.name(),
                    &secret.spec().annotations().labels,
                )
        };
        let snapshot = self.store.snapshot();
        let secrets = snapshot
            .all()
            .filter(matches)
            .map(|s| without_data(s))
            .collect();
        proto::ListSecretsResponse { secrets }
    }

    /// Only the labels may change.
    pub async fn update_secret(
        &self,
        request: proto::UpdateSecretRequest,
    ) -> Result<proto::UpdateSecretResponse> {
        let id = request.secret_id;
        let version = request.secret_version.filter(|_| !id.is_empty());
        let version = version.ok_or_else(ControlError::incomplete)?;
        let spec = request.spec.ok_or_else(ControlError::incomplete)?;
        let updated = self
            .store
            .update(|tx| {
                let secret = tx.get::<proto::Secret>(&id);
                let secret = secret
                    .ok_or_else(|| ControlError::not_found(format!("secret {id} not found")))?;
                let mut secret = (**secret).clone();
                let same_data = spec.data.is_empty() || spec.data == secret.spec().data;
                if secret.name() != spec.annotations().name || !same_data {
                    return Err(ControlError::invalid("only updates to Labels are allowed"));
                }
                secret.meta.get_or_insert_default().version = Some(version);
                let annotations = secret
                    .spec
                    .get_or_insert_default()
                    .annotations
                    .get_or_insert_default();
                annotations.labels.clone_from(&spec.annotations().labels);
                tx.update(secret).map_err(ControlError::from)
            })
            .await?;
        Ok(proto::UpdateSecretResponse {
            secret: Some(without_data(&updated)),
        })
    }

    pub async fn remove_secret(
        &self,
        request: proto::RemoveSecretRequest,
    ) -> Result<proto::RemoveSecretResponse> {
        let id = request.secret_id;
        if id.is_empty() {
            return Err(ControlError::invalid("secret ID must be provided"));
        }
        self.store
            .update(|tx| {
                let secret = tx.get::<proto::Secret>(&id);
                let secret = secret.ok_or_else(|| {
                    ControlError::not_found(format!("could not find secret {id}"))
                })?;
                let users: Vec<&str> = tx
                    .services_using_secret(&SecretId::from(id.as_str()))
                    .map(|service| service.name())
                    .collect();
                refuse_if_used("secret", secret.name(), &users)?;
                tx.delete::<proto::Secret>(&id).map_err(ControlError::from)
            })
            .await?;
        Ok(proto::RemoveSecretResponse {})
    }
}

/// Configs are refused in the same words.
pub(super) fn refuse_if_used(what: &str, name: &str, users: &[&str]) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let services = if users.len() == 1 {
        "service"
    } else {
        "services"
    };
    Err(ControlError::invalid(format!(
        "{what} '{name}' is in use by the following {services}: {}",
        users.join(", ")
    )))
}

fn check(spec: &proto::SecretSpec) -> Result<()> {
    validate::file_annotations(spec.annotations.as_ref())?;
    if let Some(driver) = &spec.driver {
        if driver.name.is_empty() {
            return Err(ControlError::invalid("secret driver must have a name"));
        }
        return Err(ControlError::unimplemented(
            "secret drivers are not implemented yet",
        ));
    }
    if spec.data.is_empty() || spec.data.len() >= MAX_SIZE {
        return Err(ControlError::invalid(format!(
            "secret data must be larger than 0 and less than {MAX_SIZE} bytes"
        )));
    }
    Ok(())
}

fn without_data(secret: &proto::Secret) -> proto::Secret {
    let mut secret = secret.clone();
    if let Some(spec) = &mut secret.spec {
        spec.data = Vec::new();
    }
    secret
}
