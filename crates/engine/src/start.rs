//! Starting a container.
//!
//! The network, the root file system and the shim's process are made at the same time; the
//! container itself comes last, because it needs all of them. Clients that attached before are
//! joined between creation and start.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_stubs::models as m;
use skep_network::{Endpoint, EndpointRequest, GATEWAY_BRIDGE, MacAddress, PortRequest};
use skep_runtime::{
    CreateRequest as RuntimeRequest, RuntimeError, RuntimeKind, SeccompProfile, Shim, StdioConfig,
};

use crate::container::{Container, Phase, Record};
use crate::create::{ports, validate};
use crate::engine::{Engine, blocking, to_its_end};
use crate::error::{EngineError, ErrorKind, Result};
use crate::mounts::MountKind;
use crate::oci::namespaces::Joined;
use crate::oci::{self, ResolvedUser, SpecInput};
use crate::restart::RestartTracker;
use crate::task_files::Staged;
use crate::time::UnixNanos;
use crate::types::RemoveOptions;
use crate::{etc_files, links, logs, rooted, volumes};

/// Docker's exit code for "something else went wrong at start".
const UNKNOWN_FAILURE: i32 = 128;

/// Why a start failed, and the exit code that Docker shows for it.
struct StartFailure {
    error: EngineError,
    code: i32,
}

impl From<EngineError> for StartFailure {
    fn from(error: EngineError) -> Self {
        Self {
            error,
            code: UNKNOWN_FAILURE,
        }
    }
}

impl From<RuntimeError> for StartFailure {
    fn from(error: RuntimeError) -> Self {
        let code = match &error {
            RuntimeError::Start { code, .. } => *code,
            _ => UNKNOWN_FAILURE,
        };
        let mut error = EngineError::from(error);
        // Refusals at this point are the daemon's trouble, not a conflict of the client's.
        if error.kind == ErrorKind::Conflict {
            error.kind = ErrorKind::System;
        }
        Self { error, code }
    }
}

impl Engine {
    /// Starts a container that does not run.
    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.containers.get(id)?;
        let engine = self.clone();
        to_its_end(async move {
            let _operation = container.operation.lock().await;
            check_startable(&container)?;
            {
                let mut host = container.record().host_config.clone();
                let mut daemon = engine.config.clone();
                daemon.reloadable = engine.reloadable();
                validate::check_host_config(&mut host, &daemon, &engine.facts)?;
            }
            container.live().restarts = RestartTracker::default();
            {
                let mut record = container.record();
                record.restart_count = 0;
                record.stopped_by_hand = false;
            }
            engine.start_locked(&container).await
        })
        .await
    }

    /// Starts it, with `operation` held. On failure everything is taken back, the record says
    /// why, and a container that shall be removed when it ends is removed.
    pub(crate) async fn start_locked(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        match self.bring_up(container).await {
            Ok(shim) => {
                self.after_start(container, shim);
                Ok(())
            }
            Err(StartFailure { error, code }) => {
                {
                    let mut record = container.record();
                    record.state.error.clone_from(&error.message);
                    record.state.exit_code = code;
                    record.state.pid = 0;
                    if record.state.phase == Phase::Restarting {
                        record.state.phase = Phase::Exited;
                    }
                }
                self.take_down(container).await;
                container.save_or_log();
                if container.record().host_config.auto_remove == Some(true) {
                    let options = RemoveOptions {
                        force: true,
                        volumes: true,
                        link: false,
                    };
                    if let Err(error) = self.remove_locked(container, options).await {
                        tracing::warn!(container.id = %container.id, %error, "container that failed to start not removed");
                    }
                } else {
                    container.announce(|_| {});
                }
                Err(error)
            }
        }
    }

    async fn bring_up(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> std::result::Result<Shim, StartFailure> {
        skep_runtime::cgroup::announce_join();
        let record = container.record().clone();
        let joined = self.join_namespaces(&record)?;
        let linked = self.linked(&record)?;
        // Last the shim: its start holds up this thread for a moment, while the others wait.
        let (rootfs, network, prepared) = tokio::join!(
            self.mount_root(container, &record),
            self.connect_networks(&record),
            self.runtime.prepare(&record.id)
        );
        let network =
            network.map_err(|error| error.context("failed to set up container networking"));
        let (rootfs, user) = rootfs?;
        let (endpoints, sandbox) = network?;
        let prepared = prepared?;
        let joined = Joined {
            network: joined.network.or(sandbox),
            ..joined
        };

        etc_files::write(
            &record,
            &endpoints,
            &links::hosts(&linked),
            &container.dir,
            &self.config.network,
        )?;
        if endpoints.iter().any(etc_files::has_names) {
            self.serve_names(&record).await?;
        }
        container.record().endpoints = endpoints
            .into_iter()
            .map(|endpoint| (endpoint.network_name.clone(), endpoint))
            .collect();
        let shm = self.shared_memory(&record)?;
        let task_files = self.stage_task_files(&record)?;
        let console_size = container
            .live()
            .console_size
            .or_else(|| console_size(&record.host_config));
        let init = self.init_program(&record.host_config)?;
        let spec = oci::build(&SpecInput {
            record: &record,
            rootfs: &rootfs,
            dir: &container.dir,
            user: &user,
            joined: &joined,
            shm: shm.as_deref(),
            task_files: task_files.as_ref().map_or(&[], |staged| &staged.files),
            cgroup_parent: self.config.cgroup_parent.as_deref(),
            default_ulimits: &self.config.default_ulimits,
            init,
            apparmor: self.apparmor_profile(&record),
            console_size,
            link_variables: &links::environment(&record, &linked),
        })?;
        let request = RuntimeRequest {
            id: record.id.clone(),
            bundle: container.bundle(),
            spec,
            stdio: StdioConfig {
                tty: record.tty(),
                open_stdin: record.config.open_stdin.unwrap_or(false),
                stdin_once: record.config.stdin_once.unwrap_or(false),
            },
            log: logs::options::target(&record, &self.host_name(), container.log_path())?,
            runtime: self.runtime_kind(&record),
            seccomp: self.seccomp_profile(&record)?,
            systemd_cgroup: false,
        };
        let shim = self.runtime.create_in(prepared, request).await?;
        // The container has them mounted; nobody else needs them.
        drop(task_files);
        match self.let_it_run(container, &shim).await {
            Ok(()) => Ok(shim),
            Err(error) => {
                if let Err(error) = shim.delete().await {
                    tracing::warn!(container.id = %container.id, %error, "shim of a failed start not removed");
                }
                Err(error.into())
            }
        }
    }

    async fn let_it_run(
        &self,
        container: &Container,
        shim: &Shim,
    ) -> std::result::Result<(), RuntimeError> {
        let waiting = container.live().attachments.take();
        for pending in waiting.into_iter().filter(|pending| !pending.is_gone()) {
            let attached = shim.attach(pending.request).await?;
            pending.join(attached);
        }
        shim.start().await
    }

    fn after_start(self: &Arc<Self>, container: &Arc<Container>, shim: Shim) {
        {
            let mut record = container.record();
            record.state.set_running(shim.pid(), UnixNanos::now());
            record.ever_started = true;
        }
        container.live().shim = Some(shim.clone());
        container.announce(|progress| progress.starts += 1);
        self.start_health_checks(container);
        container.save_or_log();
        self.tell_linking(&container.id);
        self.container_event(container, "start");
        self.watch_exit(container, shim);
    }

    fn join_namespaces(&self, record: &Record) -> Result<Joined> {
        let host = &record.host_config;
        let running = |mode: Option<&str>| -> Result<Option<(Arc<Container>, i32)>> {
            let Some(other) = mode.and_then(|mode| mode.strip_prefix("container:")) else {
                return Ok(None);
            };
            let other = self.containers.get(other)?;
            let (up, restarting, pid) = {
                let record = other.record();
                (
                    record.state.is_up(),
                    record.state.phase == Phase::Restarting,
                    record.state.pid,
                )
            };
            if restarting {
                return Err(EngineError::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    other.id
                )));
            }
            if !up {
                return Err(EngineError::conflict(format!(
                    "cannot join network namespace of a non running container: container {} is not running",
                    other.id
                )));
            }
            Ok(Some((other, pid)))
        };
        let path = |pid: i32, kind: &str| PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
        let mut joined = Joined::default();
        if let Some((_, pid)) = running(host.network_mode.as_deref())? {
            joined.network = Some(path(pid, "net"));
        }
        if let Some((other, pid)) = running(host.ipc_mode.as_deref())? {
            if other.record().host_config.ipc_mode.as_deref() != Some("shareable") {
                return Err(EngineError::invalid(format!(
                    "failed to join IPC namespace: container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                    other.id
                )));
            }
            joined.ipc = Some(path(pid, "ipc"));
        }
        if let Some((_, pid)) = running(host.pid_mode.as_deref())? {
            joined.pid = Some(path(pid, "pid"));
        }
        Ok(joined)
    }

    /// Mounts the root and everything that has to be looked up in it.
    async fn mount_root(
        &self,
        container: &Arc<Container>,
        record: &Record,
    ) -> Result<(PathBuf, ResolvedUser)> {
        let (images, record, id) = (self.images.clone(), record.clone(), container.id.clone());
        let volumes = self.volumes.clone();
        let mounted = blocking(move || {
            let rootfs = images.open_rootfs(&id)?;
            let root = rootfs.mount()?.to_path_buf();
            let groups = record.host_config.group_add.clone().unwrap_or_default();
            let user = oci::resolve(
                &root,
                record.config.user.as_deref().unwrap_or_default(),
                &groups,
            )?;
            if let Some(dir) = record
                .config
                .working_dir
                .as_deref()
                .filter(|dir| !matches!(*dir, "" | "/"))
            {
                make_working_directory(&root, dir)?;
            }
            for name in record.volume_names() {
                volumes.acquire(name, &id)?;
            }
            prepare_sources(&record, &root)?;
            Ok((root, user))
        })
        .await?;
        for (name, point) in container
            .record()
            .mounts
            .values()
            .filter_map(|point| Some((point.name.clone()?, point.clone())))
        {
            self.volume_event(
                "mount",
                &name,
                HashMap::from([
                    ("driver".to_owned(), "local".to_owned()),
                    ("container".to_owned(), container.id.clone()),
                    ("destination".to_owned(), point.destination),
                    ("read/write".to_owned(), point.rw.to_string()),
                    ("propagation".to_owned(), point.propagation),
                ]),
            );
        }
        Ok(mounted)
    }

    async fn connect_networks(&self, record: &Record) -> Result<(Vec<Endpoint>, Option<PathBuf>)> {
        if record.network_mode().starts_with("container:") {
            return Ok((Vec::new(), None));
        }
        let host = record.network_mode() == "host";
        let mut endpoints = Vec::new();
        let published = if host {
            Vec::new()
        } else {
            ports::requests(&record.host_config, record.config.exposed_ports.as_ref())
        };
        let disabled = record.config.network_disabled == Some(true);
        for (name, settings) in record.networks.iter().filter(|_| !disabled) {
            let mut request = endpoint_request(name, record, settings)?;
            request.ports.clone_from(&published);
            let endpoint = self.networks.connect(&record.id, &request).await?;
            self.network_event(
                "connect",
                &endpoint.network_id,
                &endpoint.network_name,
                &record.id,
            );
            endpoints.push(endpoint);
        }
        endpoints.extend(self.connect_gateway(record, &endpoints, published).await?);
        let sandbox = if host {
            None
        } else {
            Some(self.networks.sandbox(&record.id).await?)
        };
        Ok((endpoints, sandbox))
    }

    /// Containers of overlays have their way out through a bridge of the node's own, unless all
    /// their overlays are internal or they have another.
    async fn connect_gateway(
        &self,
        record: &Record,
        endpoints: &[Endpoint],
        published: Vec<PortRequest>,
    ) -> Result<Option<Endpoint>> {
        let mut on_overlay = false;
        for endpoint in endpoints {
            let network = self.networks.resolve(&endpoint.network_id)?;
            if network.driver != "overlay" && !network.internal {
                return Ok(None);
            }
            on_overlay |= network.driver == "overlay" && !network.internal;
        }
        if !on_overlay {
            return Ok(None);
        }
        let request = EndpointRequest {
            network: GATEWAY_BRIDGE.to_owned(),
            container_name: format!("gateway_{}", crate::names::short(&record.id)),
            ports: published,
            ..EndpointRequest::default()
        };
        Ok(Some(self.networks.connect(&record.id, &request).await?))
    }

    /// Starts the container's own resolver.
    pub(crate) async fn serve_names(&self, record: &Record) -> Result<()> {
        let (_, settings) = etc_files::resolver(record, &self.config.network)?;
        let hostname = record.config.hostname.as_deref().unwrap_or_default();
        Ok(self
            .networks
            .serve_names(&record.id, hostname, settings)
            .await?)
    }

    fn runtime_kind(&self, record: &Record) -> RuntimeKind {
        let name = record.host_config.runtime.as_deref().unwrap_or_default();
        match self.config.runtimes.get(name) {
            Some(runtime) => RuntimeKind::Oci {
                path: runtime.path.clone(),
                args: runtime.args.clone(),
            },
            None => RuntimeKind::Builtin,
        }
    }

    fn seccomp_profile(&self, record: &Record) -> Result<SeccompProfile> {
        match record.security.seccomp.as_deref() {
            Some("unconfined") => Ok(SeccompProfile::Unconfined),
            Some("builtin") => Ok(SeccompProfile::Default),
            Some(profile) => SeccompProfile::parse(profile)
                .map_err(|error| EngineError::invalid(error.to_string())),
            None if record.host_config.privileged == Some(true) => Ok(SeccompProfile::Unconfined),
            None => Ok(self.seccomp.clone()),
        }
    }

    fn apparmor_profile(&self, record: &Record) -> Option<String> {
        if !self.facts.apparmor {
            return None;
        }
        let own = record.security.apparmor.clone();
        own.filter(|profile| !profile.is_empty()).or_else(|| {
            let privileged = record.host_config.privileged == Some(true);
            (!privileged && crate::host::apparmor_profile_loaded("docker-default"))
                .then(|| "docker-default".to_owned())
        })
    }

    /// The `/dev/shm` of a container whose IPC namespace others may join, or of the one joined.
    fn shared_memory(&self, record: &Record) -> Result<Option<PathBuf>> {
        let mode = record.host_config.ipc_mode.as_deref().unwrap_or_default();
        if let Some(other) = mode.strip_prefix("container:") {
            return Ok(Some(self.shm_path(&self.containers.get(other)?.id)));
        }
        if mode != "shareable" {
            return Ok(None);
        }
        let path = self.shm_path(&record.id);
        let size = record
            .host_config
            .shm_size
            .unwrap_or(self.config.default_shm_size);
        crate::shm::mount(&path, size)?;
        Ok(Some(path))
    }

    /// Secrets and configs of a task. They were given to this daemon, so a container that an earlier
    /// one made has them only once its agent has asked for it again.
    fn stage_task_files(&self, record: &Record) -> Result<Option<Staged>> {
        if !record.task_files {
            return Ok(None);
        }
        let files = self.task_files.lock().get(&record.id).cloned();
        let files = files.ok_or_else(|| EngineError::system("secret store is not initialized"))?;
        let dir = self.config.exec_root.join("task-files").join(&record.id);
        Staged::new(dir, &files).map(Some)
    }

    pub(crate) fn shm_path(&self, id: &str) -> PathBuf {
        self.config.exec_root.join("shm").join(id)
    }
}

fn check_startable(container: &Container) -> Result<()> {
    let record = container.record();
    match record.state.phase {
        Phase::Paused => Err(EngineError::conflict(
            "cannot start a paused container, try unpause instead",
        )),
        Phase::Running | Phase::Restarting => {
            Err(EngineError::not_modified("container is already running"))
        }
        Phase::Dead => Err(EngineError::conflict(
            "container is marked for removal and cannot be started",
        )),
        _ if record.state.removing => Err(EngineError::conflict(
            "container is marked for removal and cannot be started",
        )),
        Phase::Created | Phase::Exited => Ok(()),
    }
}

fn console_size(host: &m::HostConfig) -> Option<(u16, u16)> {
    match host.console_size.as_deref() {
        Some(&[rows, columns]) if rows > 0 && columns > 0 => {
            Some((u16::try_from(rows).ok()?, u16::try_from(columns).ok()?))
        }
        _ => None,
    }
}

fn endpoint_request(
    name: &str,
    record: &Record,
    settings: &m::EndpointSettings,
) -> Result<EndpointRequest> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let bad = |what: &str, text: &str| EngineError::invalid(format!("invalid {what}: {text}"));
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let ipv4 = given(ipam.ipv4_address)
        .map(|text| {
            text.parse::<Ipv4Addr>()
                .map_err(|_| bad("IPv4 address", &text))
        })
        .transpose()?;
    let ipv6 = given(ipam.ipv6_address)
        .map(|text| {
            text.parse::<Ipv6Addr>()
                .map_err(|_| bad("IPv6 address", &text))
        })
        .transpose()?;
    let mac = given(settings.mac_address.clone())
        .map(|text| text.parse::<MacAddress>().map_err(EngineError::invalid))
        .transpose()?;
    Ok(EndpointRequest {
        network: name.to_owned(),
        container_name: record.name.clone(),
        ipv4,
        ipv6,
        mac,
        aliases: settings.aliases.clone().unwrap_or_default(),
        links: settings.links.clone().unwrap_or_default(),
        ports: Vec::new(),
        gateway_priority: settings.gw_priority.unwrap_or(0),
        driver_options: settings
            .driver_opts
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
    })
}

impl Engine {
    /// As [`endpoint_request`], for a container that runs already.
    pub(crate) fn endpoint_request(
        name: &str,
        record: &Record,
        settings: &m::EndpointSettings,
    ) -> Result<EndpointRequest> {
        endpoint_request(name, record, settings)
    }
}

fn make_working_directory(root: &Path, dir: &str) -> Result<()> {
    rooted::make_directories(root, Path::new(dir)).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTDIR) => {
            EngineError::system(format!("Cannot mkdir: {dir} is not a directory"))
        }
        _ => EngineError::from_source(format!("mkdir {dir}"), &error),
    })
}

/// Makes what `-v` promises to make, fills new volumes, and refuses what is not there.
fn prepare_sources(record: &Record, root: &Path) -> Result<()> {
    for point in record.mounts.values() {
        let source = Path::new(&point.source);
        match point.kind {
            MountKind::Tmpfs => {}
            MountKind::Bind => {
                if point.create_source && !source.exists() {
                    std::fs::create_dir_all(source).map_err(|error| {
                        EngineError::from_source(
                            format!("error while creating mount source path '{}'", point.source),
                            &error,
                        )
                    })?;
                }
                if !source.exists() {
                    return Err(EngineError::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {}",
                        point.source
                    )));
                }
            }
            MountKind::Volume => {
                if let Some(subpath) = &point.subpath {
                    let volume = point
                        .source
                        .strip_suffix(&format!("/{subpath}"))
                        .unwrap_or(&point.source);
                    let real = rooted::real_path(Path::new(volume), Path::new(subpath)).map_err(
                        |error| {
                            EngineError::from_source(
                                format!("cannot access path {subpath} in the volume"),
                                &error,
                            )
                        },
                    )?;
                    if real != source {
                        return Err(EngineError::invalid(format!(
                            "subpath {subpath} of the volume is a symbolic link"
                        )));
                    }
                } else if point.copy_data
                    && !record.ever_started
                    && let Ok(inside) = rooted::real_path(root, Path::new(&point.destination))
                {
                    volumes::copy_up(&inside, source).map_err(|error| {
                        EngineError::from_source(
                            format!(
                                "failed to copy the image's files to volume {}",
                                point.source
                            ),
                            &error,
                        )
                    })?;
                }
            }
        }
    }
    Ok(())
}
