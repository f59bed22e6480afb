//! What a task's container is made from.

use serde::{Deserialize, Serialize};

use super::{Bytes, ConfigReference, Driver, SecretReference, Texts, zero};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ContainerSpec {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) image: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) labels: Texts,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) command: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) args: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) hostname: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) env: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) dir: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) user: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) privileges: Option<Privileges>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) init: Option<bool>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) stop_signal: String,
    #[serde(rename = "TTY", skip_serializing_if = "zero")]
    pub(crate) tty: bool,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) open_stdin: bool,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) read_only: bool,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_grace_period: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) healthcheck: Option<HealthConfig>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) hosts: Vec<String>,
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub(crate) dns_config: Option<DnsConfig>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) secrets: Vec<SecretReference>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) configs: Vec<ConfigReference>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) isolation: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) sysctls: Texts,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) capability_add: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) capability_drop: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) ulimits: Vec<Ulimit>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) oom_score_adj: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct DnsConfig {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) nameservers: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) search: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) options: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) hard: i64,
    pub(crate) soft: i64,
}

/// Durations are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HealthConfig {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) test: Vec<String>,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) interval: i64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) timeout: i64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) start_period: i64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) start_interval: i64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) retries: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Privileges {
    #[serde(rename = "CredentialSpec")]
    pub(crate) credential_spec: Option<CredentialSpec>,
    #[serde(rename = "SELinuxContext")]
    pub(crate) selinux_context: Option<SeLinuxContext>,
    #[serde(rename = "Seccomp", skip_serializing_if = "Option::is_none")]
    pub(crate) seccomp: Option<SeccompOpts>,
    #[serde(rename = "AppArmor", skip_serializing_if = "Option::is_none")]
    pub(crate) apparmor: Option<AppArmorOpts>,
    #[serde(rename = "NoNewPrivileges")]
    pub(crate) no_new_privileges: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct CredentialSpec {
    pub(crate) config: String,
    pub(crate) file: String,
    pub(crate) registry: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct SeLinuxContext {
    pub(crate) disable: bool,
    pub(crate) user: String,
    pub(crate) role: String,
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    pub(crate) level: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct SeccompOpts {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) mode: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) profile: Bytes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct AppArmorOpts {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) mode: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Mount {
    #[serde(rename = "Type", skip_serializing_if = "zero")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) source: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) target: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) read_only: bool,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) consistency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bind_options: Option<BindOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) volume_options: Option<VolumeOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tmpfs_options: Option<TmpfsOptions>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct BindOptions {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) propagation: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) non_recursive: bool,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) create_mountpoint: bool,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) read_only_non_recursive: bool,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) read_only_force_recursive: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct VolumeOptions {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) no_copy: bool,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) labels: Texts,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) subpath: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) driver_config: Option<Driver>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct TmpfsOptions {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) size_bytes: i64,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) mode: u32,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) options: Vec<Vec<String>>,
}
