//! What the daemon tells the engine at start and on reload.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use bollard_stubs::models as m;

/// The engine's settings: dockerd's, as far as they concern it.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Everything that must survive a reboot.
    pub data_root: PathBuf,
    /// Sockets, mounts and namespaces of running containers.
    pub exec_root: PathBuf,
    /// The binary to run as `<exe> shim …`.
    pub shim: PathBuf,
    /// The name in `docker info`; `None`: the host's.
    pub host_name: Option<String>,
    /// Runtimes beside the built-in one (which is called `runc`, as clients expect, and `skep`).
    pub runtimes: BTreeMap<String, OciRuntime>,
    pub default_runtime: Option<String>,
    /// For containers that do not set the same limit.
    pub default_ulimits: Vec<m::ResourcesUlimits>,
    /// Bytes.
    pub default_shm_size: i64,
    /// "private" or "host"; `None`: private on cgroup v2, host on v1.
    pub default_cgroupns_mode: Option<String>,
    /// "private" or "shareable".
    pub default_ipc_mode: String,
    /// A profile file instead of the built-in one; "unconfined" is none.
    pub seccomp_profile: Option<String>,
    pub no_new_privileges: bool,
    pub cgroup_parent: Option<String>,
    /// Run an init in containers that do not say.
    pub init: bool,
    /// The init binary to use; must be static.
    pub init_path: Option<PathBuf>,
    pub network: NetworkOptions,
    /// Raises RLIMIT and verbosity in `info` only; logging is the daemon's own.
    pub debug: bool,
    pub experimental: bool,
    /// `host:port` or networks that need no verified TLS.
    pub insecure_registries: Vec<String>,
    /// Asked before Docker Hub.
    pub registry_mirrors: Vec<String>,
    pub registry: RegistrySettings,
    /// Seconds all containers together get at shutdown.
    pub shutdown_timeout: i64,
    /// `--node-generic-resource`, for the swarm's scheduler.
    pub generic_resources: Vec<skep_proto::GenericResource>,
    /// What services may ask of this node by labels, see [`crate::SWARM_GRANTS`].
    pub swarm_allow: Vec<String>,
    /// What SIGHUP can change.
    pub reloadable: ReloadableConfig,
}

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    pub proxy: skep_registry::ProxyConfig,
    /// At the same time, in the whole daemon.
    pub downloads: usize,
    pub uploads: usize,
    /// Of one layer, before it has failed.
    pub attempts: u32,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            proxy: skep_registry::ProxyConfig::default(),
            downloads: 3,
            uploads: 5,
            attempts: 5,
        }
    }
}

/// An OCI runtime binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciRuntime {
    pub path: PathBuf,
    pub args: Vec<String>,
}

/// Settings that a running daemon can take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadableConfig {
    /// `key=value` each, shown in `docker info`.
    pub labels: Vec<String>,
    pub live_restore: bool,
    /// The default log driver; empty is "json-file".
    pub log_driver: String,
    pub log_opts: BTreeMap<String, String>,
    /// Seconds between the stop signal and SIGKILL for containers that do not say; negative: for
    /// ever.
    pub default_stop_timeout: i64,
}

impl Default for ReloadableConfig {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            live_restore: false,
            log_driver: String::new(),
            log_opts: BTreeMap::new(),
            default_stop_timeout: 10,
        }
    }
}

/// dockerd's network settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// `--bridge`; "none" is no default network.
    pub bridge: Option<String>,
    pub bip: Option<String>,
    pub fixed_cidr: Option<String>,
    /// `--ipv6`: the default bridge has IPv6 too.
    pub ipv6: bool,
    pub fixed_cidr_v6: Option<String>,
    pub default_gateway: Option<IpAddr>,
    pub default_address_pools: Vec<(String, u8)>,
    pub mtu: Option<u32>,
    /// Program the firewall and masquerade.
    pub iptables: bool,
    /// The same for IPv6.
    pub ip6tables: bool,
    pub ip_forward: bool,
    pub ip_masq: bool,
    pub icc: bool,
    pub userland_proxy: bool,
    /// Where published ports listen by default.
    pub ip: Option<IpAddr>,
    /// The resolver's configuration that containers get; `None`: the host's.
    pub resolv_conf: Option<PathBuf>,
    pub dns: Vec<String>,
    pub dns_opts: Vec<String>,
    pub dns_search: Vec<String>,
    /// What `host-gateway` in extra hosts means.
    pub host_gateway_ips: Vec<IpAddr>,
    /// The network namespace that plays the host; `None`: the one the engine is started in.
    pub host_namespace: Option<PathBuf>,
}

impl EngineConfig {
    /// dockerd's defaults below the given directories.
    pub fn new(
        data_root: impl Into<PathBuf>,
        exec_root: impl Into<PathBuf>,
        shim: impl Into<PathBuf>,
    ) -> Self {
        Self {
            data_root: data_root.into(),
            exec_root: exec_root.into(),
            shim: shim.into(),
            host_name: None,
            runtimes: BTreeMap::new(),
            default_runtime: None,
            default_ulimits: Vec::new(),
            default_shm_size: 64 * 1024 * 1024,
            default_cgroupns_mode: None,
            default_ipc_mode: "private".to_owned(),
            seccomp_profile: None,
            no_new_privileges: false,
            cgroup_parent: None,
            init: false,
            init_path: None,
            network: NetworkOptions {
                iptables: true,
                ip6tables: true,
                ip_forward: true,
                ip_masq: true,
                icc: true,
                ..NetworkOptions::default()
            },
            debug: false,
            experimental: false,
            insecure_registries: Vec::new(),
            registry_mirrors: Vec::new(),
            registry: RegistrySettings::default(),
            shutdown_timeout: 15,
            generic_resources: Vec::new(),
            swarm_allow: Vec::new(),
            reloadable: ReloadableConfig::default(),
        }
    }
}

impl EngineConfig {
    /// The driver of containers that do not choose one.
    pub(crate) fn default_log_driver(&self) -> &str {
        match self.reloadable.log_driver.as_str() {
            "" => "json-file",
            driver => driver,
        }
    }

    /// Whether a container may ask for this runtime.
    pub(crate) fn knows_runtime(&self, name: &str) -> bool {
        matches!(name, "runc" | "io.containerd.runc.v2" | "skep")
            || self.runtimes.contains_key(name)
    }
}
