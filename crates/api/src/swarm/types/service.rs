//! Services.

use serde::{Deserialize, Serialize};

use super::{
    EndpointSpec, Meta, NetworkAttachmentConfig, PortConfig, TaskSpec, Texts, Version, zero,
};

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    #[serde(rename = "Spec")]
    pub(crate) spec: ServiceSpec,
    #[serde(rename = "PreviousSpec", skip_serializing_if = "Option::is_none")]
    pub(crate) previous_spec: Option<ServiceSpec>,
    #[serde(rename = "Endpoint")]
    pub(crate) endpoint: Endpoint,
    #[serde(rename = "UpdateStatus", skip_serializing_if = "Option::is_none")]
    pub(crate) update_status: Option<UpdateStatus>,
    #[serde(rename = "ServiceStatus", skip_serializing_if = "Option::is_none")]
    pub(crate) service_status: Option<ServiceStatus>,
    #[serde(rename = "JobStatus", skip_serializing_if = "Option::is_none")]
    pub(crate) job_status: Option<JobStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ServiceSpec {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) name: String,
    pub(crate) labels: Texts,
    pub(crate) task_template: TaskSpec,
    pub(crate) mode: ServiceMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) update_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollback_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint_spec: Option<EndpointSpec>,
    /// Only of clients before API 1.44, if the task's own list is empty.
    #[serde(skip_serializing)]
    pub(crate) networks: Vec<NetworkAttachmentConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ServiceMode {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replicated: Option<ReplicatedService>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) global: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replicated_job: Option<ReplicatedJob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) global_job: Option<Empty>,
}

/// `{}`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Empty {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ReplicatedService {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replicas: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ReplicatedJob {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_concurrent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total_completions: Option<u64>,
}

/// Durations are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct UpdateConfig {
    pub(crate) parallelism: u64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) delay: i64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) failure_action: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) monitor: i64,
    #[serde(serialize_with = "go_float")]
    pub(crate) max_failure_ratio: f32,
    pub(crate) order: String,
}

/// Go prints a float without a fraction as an integer.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
fn go_float<S: serde::Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f32(*value)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateStatus {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) completed_at: Option<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceStatus {
    pub(crate) running_tasks: u64,
    pub(crate) desired_tasks: u64,
    pub(crate) completed_tasks: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct JobStatus {
    pub(crate) job_iteration: Version,
    pub(crate) last_execution: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Endpoint {
    #[serde(rename = "Spec")]
    pub(crate) spec: EndpointSpec,
    #[serde(rename = "Ports", skip_serializing_if = "zero")]
    pub(crate) ports: Vec<PortConfig>,
    #[serde(rename = "VirtualIPs", skip_serializing_if = "zero")]
    pub(crate) virtual_ips: Vec<VirtualIp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct VirtualIp {
    #[serde(rename = "NetworkID", skip_serializing_if = "zero")]
    pub(crate) network_id: String,
    #[serde(rename = "Addr", skip_serializing_if = "zero")]
    pub(crate) addr: String,
}
