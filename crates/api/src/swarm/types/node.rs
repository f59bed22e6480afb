//! Nodes.

use serde::{Deserialize, Serialize};

use super::{Meta, Resources, Texts, TlsInfo, zero};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    #[serde(rename = "Spec")]
    pub(crate) spec: NodeSpec,
    #[serde(rename = "Description")]
    pub(crate) description: NodeDescription,
    #[serde(rename = "Status")]
    pub(crate) status: NodeStatus,
    #[serde(rename = "ManagerStatus", skip_serializing_if = "Option::is_none")]
    pub(crate) manager_status: Option<ManagerStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NodeSpec {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) name: String,
    pub(crate) labels: Texts,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) role: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) availability: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct NodeDescription {
    #[serde(rename = "Hostname", skip_serializing_if = "zero")]
    pub(crate) hostname: String,
    #[serde(rename = "Platform")]
    pub(crate) platform: Platform,
    #[serde(rename = "Resources")]
    pub(crate) resources: Resources,
    #[serde(rename = "Engine")]
    pub(crate) engine: EngineDescription,
    #[serde(rename = "TLSInfo")]
    pub(crate) tls_info: TlsInfo,
    #[serde(rename = "CSIInfo", skip_serializing_if = "zero")]
    pub(crate) csi_info: Vec<CsiInfo>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    #[serde(rename = "Architecture", skip_serializing_if = "zero")]
    pub(crate) architecture: String,
    #[serde(rename = "OS", skip_serializing_if = "zero")]
    pub(crate) os: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EngineDescription {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) engine_version: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) labels: Texts,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) plugins: Vec<PluginDescription>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PluginDescription {
    #[serde(rename = "Type", skip_serializing_if = "zero")]
    pub(crate) kind: String,
    #[serde(rename = "Name", skip_serializing_if = "zero")]
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CsiInfo {
    #[serde(rename = "PluginName", skip_serializing_if = "zero")]
    pub(crate) plugin_name: String,
    #[serde(rename = "NodeID", skip_serializing_if = "zero")]
    pub(crate) node_id: String,
    #[serde(rename = "MaxVolumesPerNode", skip_serializing_if = "zero")]
    pub(crate) max_volumes_per_node: i64,
    #[serde(rename = "AccessibleTopology", skip_serializing_if = "Option::is_none")]
    pub(crate) accessible_topology: Option<Topology>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Topology {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) segments: Texts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeStatus {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) state: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) addr: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ManagerStatus {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) leader: bool,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) reachability: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) addr: String,
}
