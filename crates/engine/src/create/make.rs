//! `POST /containers/create`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_stubs::models as m;
use skep_image::Image;

use super::mount_points::MountPlan;
use super::{merge, security, validate};
use crate::container::{Container, Record, State};
use crate::engine::{Engine, blocking, to_its_end};
use crate::error::{EngineError, Result};
use crate::host::go_arch;
use crate::names;
use crate::time::UnixNanos;
use crate::types::CreateRequest;

impl Engine {
    /// Makes a container; it does not run yet.
    pub async fn create_container(
        self: &Arc<Self>,
        name: Option<String>,
        request: CreateRequest,
    ) -> Result<m::ContainerCreateResponse> {
        let engine = self.clone();
        to_its_end(async move { engine.create(name, request).await }).await
    }

    async fn create(
        self: &Arc<Self>,
        name: Option<String>,
        request: CreateRequest,
    ) -> Result<m::ContainerCreateResponse> {
        // It is likely to start at once.
        skep_runtime::cgroup::announce_join();
        let CreateRequest {
            mut config,
            mut host_config,
            networking_config,
            platform,
            task_files,
        } = request;
        let host = &mut host_config;
        let mut daemon = self.config.clone();
        daemon.reloadable = self.reloadable();
        validate::check_config(&mut config)?;
        let mut warnings = validate::check_host_config(host, &daemon, &self.facts)?;
        self.set_defaults(host);
        check_conflicts(&config, host)?;

        let wanted = config.image.as_deref().unwrap_or_default();
        let image = self.image_for(wanted, platform.as_deref(), &mut warnings)?;
        let theirs = image.run_config().map(skep_image::RunConfig::to_model);
        merge::merge(&mut config, theirs.as_ref())?;
        validate::check_config(&mut config)?;
        let security = security::parse(host.security_opt.as_ref(), self.config.no_new_privileges)?;
        self.check_security(&security)?;
        self.join_by_id(host);
        let links = self.resolve_links(host)?;

        let id = names::random_id();
        if config.hostname.as_ref().is_none_or(String::is_empty) {
            config.hostname = Some(match host.network_mode.as_deref() {
                Some("host") => self.host_name(),
                Some(mode) if mode.starts_with("container:") => self.hostname_of(mode),
                _ => names::short(&id).to_owned(),
            });
        }
        let name = self.containers.reserve(name.as_deref(), &id)?;
        let plan = match self.plan_mounts(&config, host) {
            Ok(plan) => plan,
            Err(error) => {
                self.containers.release(&name, &id);
                return Err(error);
            }
        };
        let record = Record {
            id: id.clone(),
            name,
            created: UnixNanos::now(),
            image_id: image.id().to_string(),
            networks: requested_networks(host, networking_config),
            config,
            host_config,
            links,
            mounts: plan.mounts.clone(),
            security,
            state: State::default(),
            restart_count: 0,
            stopped_by_hand: false,
            ever_started: false,
            endpoints: BTreeMap::new(),
            task_files,
        };
        self.register(record, image, plan).await?;
        Ok(m::ContainerCreateResponse { id, warnings })
    }

    /// Makes the directories and the record; takes all back if that fails.
    async fn register(
        self: &Arc<Self>,
        record: Record,
        image: Image,
        plan: MountPlan,
    ) -> Result<()> {
        let id = record.id.clone();
        let name = record.name.clone();
        let dir = self.config.data_root.join("containers").join(&id);
        let container = Arc::new(Container::new(record, dir));
        let (images, made) = (self.images.clone(), container.clone());
        let result = blocking(move || {
            std::fs::create_dir_all(&made.dir)?;
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&made.dir, std::fs::Permissions::from_mode(0o710))?;
            images.rootfs(&image, &made.id)?;
            made.save()
        })
        .await;
        if let Err(error) = result {
            let (images, dir) = (self.images.clone(), container.dir.clone());
            let _ = blocking(move || {
                if let Ok(rootfs) = images.open_rootfs(&id) {
                    rootfs.remove()?;
                }
                std::fs::remove_dir_all(dir)?;
                Ok(())
            })
            .await;
            self.containers.release(&name, &container.id);
            self.undo_mounts(&plan);
            return Err(error);
        }
        self.containers.insert(container.clone());
        self.container_event(&container, "create");
        Ok(())
    }

    fn set_defaults(&self, host: &mut m::HostConfig) {
        let network = host.network_mode.get_or_insert_default();
        if matches!(network.as_str(), "" | "default") {
            let none = self.config.network.bridge.as_deref() == Some("none");
            if none { "none" } else { "bridge" }.clone_into(network);
        }
        if host.memory.unwrap_or(0) > 0 && host.memory_swap.unwrap_or(0) == 0 {
            host.memory_swap = host.memory.map(|memory| memory.saturating_mul(2));
        }
        if host.shm_size.unwrap_or(0) == 0 {
            host.shm_size = Some(self.config.default_shm_size);
        }
        if host.ipc_mode.as_ref().is_none_or(String::is_empty) {
            host.ipc_mode = Some(self.config.default_ipc_mode.clone());
        }
        if matches!(
            host.cgroupns_mode,
            None | Some(m::HostConfigCgroupnsModeEnum::EMPTY)
        ) {
            let private = match self.config.default_cgroupns_mode.as_deref() {
                _ if host.privileged == Some(true) && !self.facts.cgroup_v2 => false,
                Some(mode) if !mode.is_empty() => mode == "private",
                _ => self.facts.cgroup_v2,
            };
            host.cgroupns_mode = Some(if private {
                m::HostConfigCgroupnsModeEnum::PRIVATE
            } else {
                m::HostConfigCgroupnsModeEnum::HOST
            });
        }
        let restart = host.restart_policy.get_or_insert_default();
        if matches!(restart.name, None | Some(m::RestartPolicyNameEnum::EMPTY)) {
            restart.name = Some(m::RestartPolicyNameEnum::NO);
        }
        restart.maximum_retry_count.get_or_insert(0);
        if host.runtime.as_ref().is_none_or(String::is_empty) {
            host.runtime = Some(
                self.config
                    .default_runtime
                    .clone()
                    .unwrap_or_else(|| "runc".to_owned()),
            );
        }
        if !self.facts.cgroup_v2 {
            host.oom_kill_disable.get_or_insert(false);
        }
    }

    /// Finds the image a container is to be made of; one of another platform only if none was
    /// asked for, and then with a warning.
    pub fn image_for(
        &self,
        name: &str,
        platform: Option<&str>,
        warnings: &mut Vec<String>,
    ) -> Result<Image> {
        if name.is_empty() {
            return Err(EngineError::invalid("no image specified"));
        }
        let image = self.images.get(name)?;
        let (os, arch) = (
            image.config().os().to_owned(),
            image.config().architecture.clone(),
        );
        let theirs = format!("{os}/{arch}");
        match platform.filter(|platform| !platform.is_empty()) {
            Some(wanted) if !arch.is_empty() => {
                let mut parts = wanted.splitn(3, '/');
                let matches = parts.next() == Some(&os) && parts.next().is_none_or(|wanted| wanted == arch);
                if !matches {
                    return Err(EngineError::not_found(format!(
                        "image with reference {name} was found but its platform ({theirs}) does not match the specified platform ({wanted})"
                    )));
                }
            }
            None if !arch.is_empty() && arch != go_arch() => warnings.push(format!(
                "The requested image's platform ({theirs}) does not match the detected host platform (linux/{}) and no specific platform was requested",
                go_arch()
            )),
            _ => {}
        }
        Ok(image)
    }

    fn check_security(&self, security: &crate::container::Security) -> Result<()> {
        if let Some(profile) = security
            .seccomp
            .as_deref()
            .filter(|profile| !matches!(*profile, "unconfined" | "builtin"))
        {
            skep_runtime::SeccompProfile::parse(profile)
                .map_err(|error| EngineError::invalid(error.to_string()))?;
        }
        let wanted = security
            .apparmor
            .as_deref()
            .filter(|profile| !matches!(*profile, "" | "unconfined"));
        match wanted {
            Some(profile) if !self.facts.apparmor => Err(EngineError::invalid(format!(
                "AppArmor profile {profile:?} was asked for, but AppArmor is not enabled on this machine"
            ))),
            _ => Ok(()),
        }
    }

    /// Names may change; the containers whose namespaces are shared are remembered by id.
    fn join_by_id(&self, host: &mut m::HostConfig) {
        for mode in [
            &mut host.network_mode,
            &mut host.pid_mode,
            &mut host.ipc_mode,
        ] {
            let other = mode
                .as_deref()
                .and_then(|mode| mode.strip_prefix("container:"));
            if let Some(container) = other.and_then(|other| self.containers.get(other).ok()) {
                *mode = Some(format!("container:{}", container.id));
            }
        }
    }

    fn hostname_of(&self, mode: &str) -> String {
        let other = mode.strip_prefix("container:").unwrap_or_default();
        let other = self.containers.get(other).ok();
        other
            .and_then(|other| other.record().config.hostname.clone())
            .unwrap_or_default()
    }
}

/// dockerd's refusals of settings that belong to the other container.
fn check_conflicts(config: &m::ContainerConfig, host: &m::HostConfig) -> Result<()> {
    let hostname = config
        .hostname
        .as_ref()
        .is_some_and(|name| !name.is_empty());
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let refuse = |text: &str| Err(EngineError::invalid(format!("conflicting options: {text}")));
    if host.uts_mode.as_deref() == Some("host") && hostname {
        return refuse("hostname and the UTS mode");
    }
    if host.network_mode.as_deref() == Some("host") && given(&host.links) {
        return refuse(
            "host type networking can't be used with links. This would result in undefined behavior",
        );
    }
    let Some(other) = host
        .network_mode
        .as_deref()
        .and_then(|mode| mode.strip_prefix("container:"))
    else {
        return Ok(());
    };
    if other.is_empty() {
        return Err(EngineError::invalid(
            "Invalid container format container:<name|id>",
        ));
    }
    match () {
        () if hostname => refuse("hostname and the network mode"),
        () if given(&host.links) => refuse(
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        () if given(&host.dns) => refuse("dns and the network mode"),
        () if given(&host.extra_hosts) => refuse("custom host-to-IP mapping and the network mode"),
        () if host
            .port_bindings
            .as_ref()
            .is_some_and(|ports| !ports.is_empty())
            || host.publish_all_ports == Some(true) =>
        {
            refuse("port publishing and the container type network mode")
        }
        () if given(&config.exposed_ports) => {
            refuse("port exposing and the container type network mode")
        }
        () => Ok(()),
    }
}

/// The networks to join: those named, and the mode's own.
fn requested_networks(
    host: &m::HostConfig,
    networking: Option<m::NetworkingConfig>,
) -> BTreeMap<String, m::EndpointSettings> {
    let mode = host.network_mode.as_deref().unwrap_or("bridge");
    if mode.starts_with("container:") {
        return BTreeMap::new();
    }
    let given = networking
        .and_then(|config| config.endpoints_config)
        .unwrap_or_default();
    let mut networks: BTreeMap<_, _> = given
        .into_iter()
        .map(|(name, settings)| {
            (
                if name == "default" {
                    mode.to_owned()
                } else {
                    name
                },
                settings,
            )
        })
        .collect();
    if matches!(mode, "none" | "host") {
        networks.retain(|name, _| name == mode);
    }
    networks.entry(mode.to_owned()).or_default();
    networks
}
