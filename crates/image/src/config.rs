use std::collections::BTreeMap;

use bollard_stubs::models as m;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_reference::Digest;

use crate::ImageError;

/// The image configuration document: what an image id is the digest of.
///
/// Unknown fields are not kept: the stored bytes are the document, this is a view of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub os: String,
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<RunConfig>,
    /// The container a commit was made of, and its configuration: kept for old clients.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_config: Option<Value>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    pub rootfs: Option<RootFs>,
    #[serde(default)]
    pub history: Option<Vec<History>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub diff_ids: Option<Vec<Digest>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// How containers of the image run unless told otherwise. Maps are sorted so that a written
/// document has one form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<m::HealthConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args_escaped: Option<bool>,
}

impl ImageConfig {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|error| ImageError::bad(format!("invalid image JSON: {error}")))?;
        if config.rootfs.is_none() {
            return Err(ImageError::bad("invalid image JSON, no RootFS key"));
        }
        let layers = config.diff_ids().len();
        let entries = config
            .history()
            .iter()
            .filter(|entry| !entry.empty_layer)
            .count();
        if entries > layers {
            return Err(ImageError::bad(
                "too many non-empty layers in History section",
            ));
        }
        Ok(config)
    }

    pub fn diff_ids(&self) -> &[Digest] {
        self.rootfs
            .as_ref()
            .and_then(|rootfs| rootfs.diff_ids.as_deref())
            .unwrap_or_default()
    }

    pub fn history(&self) -> &[History] {
        self.history.as_deref().unwrap_or_default()
    }

    /// An image that does not say is taken to be for Linux, as dockerd takes it.
    pub fn os(&self) -> &str {
        if self.os.is_empty() {
            "linux"
        } else {
            &self.os
        }
    }
}

impl RunConfig {
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels
            .iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// As Docker's API shows it.
    pub fn to_model(&self) -> m::ImageConfig {
        let keys = |map: &Option<BTreeMap<String, Value>>| {
            map.as_ref()
                .map(|map| map.keys().cloned().collect::<Vec<_>>())
        };
        m::ImageConfig {
            user: self.user.clone(),
            exposed_ports: keys(&self.exposed_ports),
            env: self.env.clone(),
            cmd: self.cmd.clone(),
            healthcheck: self.healthcheck.clone(),
            args_escaped: self.args_escaped,
            volumes: keys(&self.volumes),
            working_dir: self.working_dir.clone(),
            entrypoint: self.entrypoint.clone(),
            on_build: self.on_build.clone(),
            labels: self
                .labels
                .clone()
                .map(|labels| labels.into_iter().collect()),
            stop_signal: self.stop_signal.clone(),
            shell: self.shell.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
