//! `docker info`, `docker version` and `docker system df`.

use std::collections::HashMap;

use bollard_stubs::models as m;

use crate::container::Phase;
use crate::engine::Engine;
use crate::error::Result;
use crate::time::UnixNanos;
use crate::types::{DiskUsage, DiskUsageOptions, ImageListOptions, ListOptions};
use crate::{API_VERSION, MIN_API_VERSION, SERVER_VERSION, host};

impl Engine {
    /// What `docker info` prints, but for the swarm's section.
    pub async fn info(&self) -> Result<m::SystemInfo> {
        let facts = &self.facts;
        let reloadable = self.reloadable();
        let (mut running, mut paused, mut stopped) = (0, 0, 0);
        for container in self.containers.all() {
            match container.record().state.phase {
                Phase::Running | Phase::Restarting => running += 1,
                Phase::Paused => paused += 1,
                _ => stopped += 1,
            }
        }
        let list = |items: &[&str]| {
            Some(
                items
                    .iter()
                    .map(|&item| item.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let pair = |key: &str, value: &str| vec![key.to_owned(), value.to_owned()];
        let memory_warning =
            |present: bool, what: &str| (!present).then(|| format!("WARNING: No {what} support"));
        let mut warnings: Vec<String> = [
            memory_warning(facts.memory, "memory limit"),
            memory_warning(facts.swap, "swap limit"),
            memory_warning(facts.cpu_cfs, "cpu cfs quota"),
            memory_warning(facts.cpu_shares, "cpu shares"),
            memory_warning(facts.cpuset, "cpuset"),
            memory_warning(facts.pids, "pids limit"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
            .is_ok_and(|text| text.trim() == "1");
        if !forwarding {
            warnings.push("WARNING: IPv4 forwarding is disabled".to_owned());
        }
        warnings.extend(self.networks.warnings());
        let env = |name: &str| {
            std::env::var(name)
                .or_else(|_| std::env::var(name.to_lowercase()))
                .ok()
        };
        let filesystem = rustix::fs::statfs(&self.config.data_root)
            .map_or("unknown", |stat| file_system_name(stat.f_type));
        Ok(m::SystemInfo {
            id: Some(self.id.clone()),
            containers: Some(running + paused + stopped),
            containers_running: Some(running),
            containers_paused: Some(paused),
            containers_stopped: Some(stopped),
            images: Some(i64::try_from(self.images.count()).unwrap_or(0)),
            driver: Some("overlay2".to_owned()),
            driver_status: Some(vec![
                pair("Backing Filesystem", filesystem),
                pair("Supports d_type", "true"),
                pair("Using metacopy", "false"),
                pair("Native Overlay Diff", "true"),
                pair("userxattr", "false"),
            ]),
            docker_root_dir: Some(self.config.data_root.display().to_string()),
            plugins: Some(m::PluginsInfo {
                volume: list(&["local"]),
                network: list(&["bridge", "host", "null", "overlay"]),
                authorization: None,
                log: list(&["json-file", "local", "none"]),
            }),
            memory_limit: Some(facts.memory),
            swap_limit: Some(facts.swap),
            cpu_cfs_period: Some(facts.cpu_cfs),
            cpu_cfs_quota: Some(facts.cpu_cfs),
            cpu_shares: Some(facts.cpu_shares),
            cpu_set: Some(facts.cpuset),
            pids_limit: Some(facts.pids),
            oom_kill_disable: Some(!facts.cgroup_v2),
            ipv4_forwarding: Some(forwarding),
            debug: Some(self.config.debug),
            nfd: Some(count_entries("/proc/self/fd")),
            n_goroutines: Some(count_entries("/proc/self/task")),
            system_time: Some(UnixNanos::now().rfc3339()),
            logging_driver: Some(match reloadable.log_driver.as_str() {
                "" => "json-file".to_owned(),
                driver => driver.to_owned(),
            }),
            cgroup_driver: Some(m::SystemInfoCgroupDriverEnum::CGROUPFS),
            cgroup_version: Some(if facts.cgroup_v2 {
                m::SystemInfoCgroupVersionEnum::_2
            } else {
                m::SystemInfoCgroupVersionEnum::_1
            }),
            n_events_listener: Some(i64::try_from(self.events.listeners()).unwrap_or(0)),
            kernel_version: Some(facts.kernel.clone()),
            operating_system: Some(facts.operating_system.clone()),
            os_version: Some(facts.os_version.clone()),
            os_type: Some("linux".to_owned()),
            architecture: Some(facts.architecture.clone()),
            ncpu: Some(facts.cpus),
            mem_total: Some(facts.memory_total),
            index_server_address: Some("https://index.docker.io/v1/".to_owned()),
            registry_config: Some(self.registry_config()),
            generic_resources: crate::generic_resources::to_api(&self.config.generic_resources),
            http_proxy: Some(env("HTTP_PROXY").unwrap_or_default()),
            https_proxy: Some(env("HTTPS_PROXY").unwrap_or_default()),
            no_proxy: Some(env("NO_PROXY").unwrap_or_default()),
            name: Some(self.host_name()),
            labels: Some(reloadable.labels),
            experimental_build: Some(self.config.experimental),
            server_version: Some(SERVER_VERSION.to_owned()),
            runtimes: Some(self.runtimes()),
            default_runtime: Some(
                self.config
                    .default_runtime
                    .clone()
                    .unwrap_or_else(|| "runc".to_owned()),
            ),
            swarm: None,
            live_restore_enabled: Some(reloadable.live_restore),
            isolation: None,
            init_binary: Some("docker-init".to_owned()),
            containerd_commit: Some(m::Commit {
                id: Some(String::new()),
            }),
            runc_commit: Some(m::Commit {
                id: Some(String::new()),
            }),
            init_commit: Some(m::Commit {
                id: Some(self.init_version()),
            }),
            security_options: Some(self.security_options()),
            product_license: None,
            default_address_pools: self.address_pools(),
            firewall_backend: self.config.network.iptables.then(|| m::FirewallInfo {
                driver: Some("nftables".to_owned()),
                info: None,
            }),
            discovered_devices: None,
            nri: None,
            warnings: (!warnings.is_empty()).then_some(warnings),
            cdi_spec_dirs: Some(Vec::new()),
            containerd: None,
        })
    }

    fn security_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.facts.apparmor {
            options.push("name=apparmor".to_owned());
        }
        options.push(match self.config.seccomp_profile.as_deref() {
            None | Some("" | "builtin") => "name=seccomp,profile=builtin".to_owned(),
            Some(profile) => format!("name=seccomp,profile={profile}"),
        });
        if std::path::Path::new("/proc/self/ns/cgroup").exists() && self.facts.cgroup_v2 {
            options.push("name=cgroupns".to_owned());
        }
        if self.config.no_new_privileges {
            options.push("name=no-new-privileges".to_owned());
        }
        options
    }

    fn runtimes(&self) -> HashMap<String, m::Runtime> {
        let built_in = || m::Runtime {
            path: Some("built-in".to_owned()),
            runtime_args: None,
            status: None,
        };
        let mut runtimes: HashMap<_, _> = ["runc", "io.containerd.runc.v2"]
            .map(|name| (name.to_owned(), built_in()))
            .into();
        for (name, runtime) in &self.config.runtimes {
            let args = (!runtime.args.is_empty()).then(|| runtime.args.clone());
            let path = Some(runtime.path.display().to_string());
            runtimes.insert(
                name.clone(),
                m::Runtime {
                    path,
                    runtime_args: args,
                    status: None,
                },
            );
        }
        runtimes
    }

    fn registry_config(&self) -> m::RegistryServiceConfig {
        let (networks, hosts): (Vec<_>, Vec<_>) = self
            .config
            .insecure_registries
            .iter()
            .cloned()
            .partition(|registry| registry.contains('/'));
        let mut cidrs = vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
        cidrs.splice(0..0, networks);
        let mirrors = &self.config.registry_mirrors;
        let index = |name: &str, secure: bool, official: bool| m::IndexInfo {
            name: Some(name.to_owned()),
            mirrors: Some(if official {
                mirrors.clone()
            } else {
                Vec::new()
            }),
            secure: Some(secure),
            official: Some(official),
        };
        let mut indexes = HashMap::from([("docker.io".to_owned(), index("docker.io", true, true))]);
        indexes.extend(
            hosts
                .into_iter()
                .map(|host| (host.clone(), index(&host, false, false))),
        );
        m::RegistryServiceConfig {
            insecure_registry_cidrs: Some(cidrs),
            index_configs: Some(indexes),
            mirrors: Some(mirrors.clone()),
        }
    }

    fn address_pools(&self) -> Option<Vec<m::SystemInfoDefaultAddressPools>> {
        let pools: Vec<_> = self
            .config
            .network
            .default_address_pools
            .iter()
            .map(|(base, size)| m::SystemInfoDefaultAddressPools {
                base: Some(base.clone()),
                size: Some(i64::from(*size)),
            })
            .collect();
        (!pools.is_empty()).then_some(pools)
    }

    /// What `docker version` prints.
    pub async fn version(&self) -> Result<m::SystemVersion> {
        let details = HashMap::from([
            ("ApiVersion".to_owned(), API_VERSION.to_owned()),
            ("MinAPIVersion".to_owned(), MIN_API_VERSION.to_owned()),
            ("Arch".to_owned(), host::go_arch().to_owned()),
            ("Os".to_owned(), "linux".to_owned()),
            ("KernelVersion".to_owned(), self.facts.kernel.clone()),
            (
                "Experimental".to_owned(),
                self.config.experimental.to_string(),
            ),
            ("GitCommit".to_owned(), String::new()),
            ("GoVersion".to_owned(), String::new()),
            ("BuildTime".to_owned(), String::new()),
        ]);
        Ok(m::SystemVersion {
            platform: Some(m::SystemVersionPlatform {
                name: "skep".to_owned(),
            }),
            components: Some(vec![m::SystemVersionComponents {
                name: "Engine".to_owned(),
                version: SERVER_VERSION.to_owned(),
                details: Some(details),
            }]),
            version: Some(SERVER_VERSION.to_owned()),
            api_version: Some(API_VERSION.to_owned()),
            min_api_version: Some(MIN_API_VERSION.to_owned()),
            git_commit: Some(String::new()),
            go_version: Some(String::new()),
            os: Some("linux".to_owned()),
            arch: Some(host::go_arch().to_owned()),
            kernel_version: Some(self.facts.kernel.clone()),
            experimental: Some(self.config.experimental),
            build_time: Some(String::new()),
        })
    }

    /// What takes how much disk.
    pub async fn disk_usage(&self, options: DiskUsageOptions) -> Result<DiskUsage> {
        let mut usage = DiskUsage {
            layers_size: i64::try_from(self.images.layers_size()).unwrap_or(i64::MAX),
            ..DiskUsage::default()
        };
        if options.images {
            let list = ImageListOptions {
                all: true,
                shared_size: true,
                ..ImageListOptions::default()
            };
            usage.images = Some(self.list_images(list).await?);
        }
        if options.containers {
            let list = ListOptions {
                all: true,
                size: true,
                ..ListOptions::default()
            };
            usage.containers = Some(self.list_containers(list).await?);
        }
        if options.volumes {
            let mut volumes = Vec::new();
            for volume in self.volumes.list() {
                let mut shown = self.volumes.to_api(&volume);
                let users = self.users_of_volume(&volume.name).len();
                shown.usage_data = Some(m::VolumeUsageData {
                    size: self.volume_bytes(&volume).await,
                    ref_count: i64::try_from(users).unwrap_or(0),
                });
                volumes.push(shown);
            }
            usage.volumes = Some(volumes);
        }
        Ok(usage)
    }
}

fn count_entries(path: &str) -> i64 {
    std::fs::read_dir(path).map_or(0, |entries| i64::try_from(entries.count()).unwrap_or(0))
}

fn file_system_name(magic: i64) -> &'static str {
    match magic {
        0xef53 => "extfs",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x2fc1_2fc1 => "zfs",
        0x794c_7630 => "overlayfs",
        _ => "unknown",
    }
}
