//! Secrets and configs.

use serde::{Deserialize, Serialize};

use super::{Bytes, Driver, Empty, Meta, Texts, zero};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Secret {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    #[serde(rename = "Spec")]
    pub(crate) spec: SecretSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct SecretSpec {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) name: String,
    pub(crate) labels: Texts,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) data: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) driver: Option<Driver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) templating: Option<Driver>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Config {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    #[serde(rename = "Spec")]
    pub(crate) spec: ConfigSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ConfigSpec {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) name: String,
    pub(crate) labels: Texts,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) data: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) templating: Option<Driver>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FileTarget {
    #[serde(rename = "Name")]
    pub(crate) name: String,
    #[serde(rename = "UID")]
    pub(crate) uid: String,
    #[serde(rename = "GID")]
    pub(crate) gid: String,
    #[serde(rename = "Mode")]
    pub(crate) mode: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SecretReference {
    #[serde(rename = "File")]
    pub(crate) file: Option<FileTarget>,
    #[serde(rename = "SecretID")]
    pub(crate) secret_id: String,
    #[serde(rename = "SecretName")]
    pub(crate) secret_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigReference {
    #[serde(rename = "File", skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<FileTarget>,
    #[serde(rename = "Runtime", skip_serializing_if = "Option::is_none")]
    pub(crate) runtime: Option<Empty>,
    #[serde(rename = "ConfigID")]
    pub(crate) config_id: String,
    #[serde(rename = "ConfigName")]
    pub(crate) config_name: String,
}
