//! Tasks and what they are made from.

use serde::{Deserialize, Serialize};

use super::{
    ContainerSpec, Driver, Meta, NetworkAttachment, NetworkAttachmentConfig, Platform, PortConfig,
    Texts, Version, zero,
};

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Task {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    #[serde(rename = "Name", skip_serializing_if = "zero")]
    pub(crate) name: String,
    #[serde(rename = "Labels")]
    pub(crate) labels: Texts,
    #[serde(rename = "Spec")]
    pub(crate) spec: TaskSpec,
    #[serde(rename = "ServiceID", skip_serializing_if = "zero")]
    pub(crate) service_id: String,
    #[serde(rename = "Slot", skip_serializing_if = "zero")]
    pub(crate) slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "zero")]
    pub(crate) node_id: String,
    #[serde(rename = "Status")]
    pub(crate) status: TaskStatus,
    #[serde(rename = "DesiredState", skip_serializing_if = "zero")]
    pub(crate) desired_state: String,
    #[serde(rename = "NetworksAttachments", skip_serializing_if = "zero")]
    pub(crate) networks_attachments: Vec<NetworkAttachment>,
    #[serde(rename = "GenericResources", skip_serializing_if = "zero")]
    pub(crate) generic_resources: Vec<GenericResource>,
    #[serde(rename = "JobIteration", skip_serializing_if = "Option::is_none")]
    pub(crate) job_iteration: Option<Version>,
    /// `null` if there is none.
    #[serde(rename = "Volumes")]
    pub(crate) volumes: Option<Vec<VolumeAttachment>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct TaskSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container_spec: Option<ContainerSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plugin_spec: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network_attachment_spec: Option<NetworkAttachmentSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restart_policy: Option<RestartPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) placement: Option<Placement>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) networks: Vec<NetworkAttachmentConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_driver: Option<Driver>,
    pub(crate) force_update: u64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) runtime: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NetworkAttachmentSpec {
    #[serde(rename = "ContainerID")]
    pub(crate) container_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ResourceRequirements {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reservations: Option<Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) swap_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_swappiness: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Limit {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "zero")]
    pub(crate) nano_cpus: i64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) memory_bytes: i64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) pids: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Resources {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "zero")]
    pub(crate) nano_cpus: i64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) memory_bytes: i64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) generic_resources: Vec<GenericResource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct GenericResource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) named_resource_spec: Option<NamedResource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) discrete_resource_spec: Option<DiscreteResource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NamedResource {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct DiscreteResource {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) value: i64,
}

/// Durations are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct RestartPolicy {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) condition: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Placement {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) constraints: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) preferences: Vec<PlacementPreference>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) max_replicas: u64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) platforms: Vec<Platform>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct PlacementPreference {
    pub(crate) spread: Option<SpreadOver>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct SpreadOver {
    pub(crate) spread_descriptor: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskStatus {
    pub(crate) timestamp: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) state: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) err: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container_status: Option<ContainerStatus>,
    pub(crate) port_status: PortStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    pub(crate) container_id: String,
    #[serde(rename = "PID")]
    pub(crate) pid: i32,
    #[serde(rename = "ExitCode")]
    pub(crate) exit_code: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PortStatus {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) ports: Vec<PortConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct VolumeAttachment {
    #[serde(rename = "ID", skip_serializing_if = "zero")]
    pub(crate) id: String,
    #[serde(rename = "Source", skip_serializing_if = "zero")]
    pub(crate) source: String,
    #[serde(rename = "Target", skip_serializing_if = "zero")]
    pub(crate) target: String,
}
