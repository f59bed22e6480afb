//! Networks as tasks and services see them, and published ports.

use serde::{Deserialize, Serialize};

use super::{Driver, Meta, Texts, zero};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NetworkAttachmentConfig {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) target: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) aliases: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) driver_opts: Texts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct EndpointSpec {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) mode: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) ports: Vec<PortConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct PortConfig {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) protocol: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) target_port: u32,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) published_port: u32,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) publish_mode: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkAttachment {
    pub(crate) network: Network,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) addresses: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Network {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    #[serde(rename = "Spec")]
    pub(crate) spec: NetworkSpec,
    #[serde(rename = "DriverState")]
    pub(crate) driver_state: Driver,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub(crate) ipam_options: Option<IpamOptions>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct NetworkSpec {
    #[serde(rename = "Name", skip_serializing_if = "zero")]
    pub(crate) name: String,
    #[serde(rename = "Labels")]
    pub(crate) labels: Texts,
    #[serde(
        rename = "DriverConfiguration",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) driver_configuration: Option<Driver>,
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "zero")]
    pub(crate) ipv6_enabled: bool,
    #[serde(rename = "Internal", skip_serializing_if = "zero")]
    pub(crate) internal: bool,
    #[serde(rename = "Attachable", skip_serializing_if = "zero")]
    pub(crate) attachable: bool,
    #[serde(rename = "Ingress", skip_serializing_if = "zero")]
    pub(crate) ingress: bool,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub(crate) ipam_options: Option<IpamOptions>,
    #[serde(rename = "ConfigFrom", skip_serializing_if = "Option::is_none")]
    pub(crate) config_from: Option<ConfigFrom>,
    #[serde(rename = "Scope", skip_serializing_if = "zero")]
    pub(crate) scope: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConfigFrom {
    pub(crate) network: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct IpamOptions {
    pub(crate) driver: Driver,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) configs: Vec<IpamConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct IpamConfig {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) subnet: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) range: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) gateway: String,
}
