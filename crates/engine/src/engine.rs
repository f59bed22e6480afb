//! The engine itself: what it holds, how it starts and stops.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bollard_stubs::models as m;
use parking_lot::{Mutex, RwLock};
use skep_image::ImageStore;
use skep_network::LocalNetworks;
use skep_runtime::{Runtime, RuntimeConfig, SeccompProfile};

use crate::config::{EngineConfig, ReloadableConfig};
use crate::container::{Container, Registry};
use crate::error::{EngineError, Result};
use crate::events::EventBus;
use crate::exec::ExecInstance;
use crate::host::HostFacts;
use crate::network_config;
use crate::persist::RootLock;
use crate::registry::Registries;
use crate::task_files::TaskFile;
use crate::types::StopOptions;
use crate::volumes::VolumeStore;

/// Docker's engine.
pub struct Engine {
    pub(crate) config: EngineConfig,
    pub(crate) reloadable: RwLock<ReloadableConfig>,
    pub(crate) facts: HostFacts,
    pub(crate) events: EventBus,
    pub(crate) containers: Registry,
    pub(crate) volumes: Arc<VolumeStore>,
    pub(crate) images: ImageStore,
    pub(crate) networks: LocalNetworks,
    pub(crate) registries: Registries,
    pub(crate) runtime: Runtime,
    pub(crate) execs: Mutex<HashMap<String, Arc<ExecInstance>>>,
    /// Secrets and configs by container. In memory only.
    pub(crate) task_files: Mutex<HashMap<String, Arc<Vec<TaskFile>>>>,
    /// For containers that do not choose one.
    pub(crate) seccomp: SeccompProfile,
    /// Of this daemon, kept in the data root.
    pub(crate) id: String,
    pub(crate) stopping: AtomicBool,
    _locks: [RootLock; 2],
}

impl Engine {
    /// Starts the engine: takes the data root, finds the containers of an earlier daemon again,
    /// and restarts those whose policy says so.
    pub async fn start(config: EngineConfig) -> Result<Arc<Self>> {
        let locks = [
            RootLock::take(&config.data_root, "data-root")?,
            RootLock::take(&config.exec_root, "exec-root")?,
        ];
        crate::logs::options::check_default(&config.reloadable)?;
        let root = config.data_root.clone();
        empty(&root.join("tmp"))?;
        std::fs::create_dir_all(root.join("containers")).map_err(|error| {
            EngineError::from_source(format!("cannot create {}", root.display()), &error)
        })?;
        let images = {
            let root = root.clone();
            blocking(move || Ok(ImageStore::open(&root)?)).await?
        };
        let volumes = Arc::new(VolumeStore::open(root.join("volumes"))?);
        let networks = LocalNetworks::open(network_config::build(&config)?).await?;
        let mut runtime = RuntimeConfig::new(config.exec_root.join("shims"));
        runtime.shim.clone_from(&config.shim);
        let runtime = Runtime::new(runtime)?;
        let seccomp = default_seccomp(config.seccomp_profile.as_deref())?;
        let registries = Registries::new(&config)?;
        let id = daemon_id(&root)?;
        let engine = Arc::new(Self {
            reloadable: RwLock::new(config.reloadable.clone()),
            facts: HostFacts::read(),
            events: EventBus::default(),
            containers: Registry::default(),
            execs: Mutex::default(),
            task_files: Mutex::default(),
            stopping: AtomicBool::new(false),
            config,
            volumes,
            images,
            networks,
            registries,
            runtime,
            seccomp,
            id,
            _locks: locks,
        });
        crate::restore::restore(&engine).await?;
        Ok(engine)
    }

    /// The event bus, for listeners and for the swarm's own events.
    pub fn events(&self) -> &EventBus {
        &self.events
    }

    /// The images, for a builder.
    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// Where work in progress is put; emptied when the engine starts.
    pub fn scratch_dir(&self) -> PathBuf {
        self.config.data_root.join("tmp")
    }

    /// The settings it was started with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// What SIGHUP changed last.
    pub fn reloadable(&self) -> ReloadableConfig {
        self.reloadable.read().clone()
    }

    /// Takes over new settings and says so to listeners.
    pub async fn reload(&self, config: ReloadableConfig) -> Result<()> {
        let attributes = HashMap::from([
            ("name".to_owned(), self.host_name()),
            (
                "labels".to_owned(),
                serde_json::to_string(&config.labels).unwrap_or_default(),
            ),
            ("live-restore".to_owned(), config.live_restore.to_string()),
            (
                "default-stop-timeout".to_owned(),
                config.default_stop_timeout.to_string(),
            ),
        ]);
        *self.reloadable.write() = config;
        self.events.publish_local(
            m::EventMessageTypeEnum::DAEMON,
            "reload",
            self.id.clone(),
            attributes,
        );
        Ok(())
    }

    /// Ends the engine's work. Unless live-restore keeps them, containers are stopped, each with
    /// its own grace; together they get the configured shutdown timeout and then SIGKILL.
    pub async fn shutdown(self: &Arc<Self>) -> Result<()> {
        self.stopping.store(true, Ordering::SeqCst);
        for container in self.containers.all() {
            if let Some(wait) = container.live().restart_wait.take() {
                wait.cancel();
            }
        }
        if self.reloadable.read().live_restore {
            return Ok(());
        }
        let running: Vec<_> = self
            .containers
            .all()
            .into_iter()
            .filter(|c| c.record().state.is_up())
            .collect();
        let longest = running
            .iter()
            .map(|container| self.grace_of(&container.record()))
            .max()
            .unwrap_or(0);
        // As dockerd: the configured time, or more if a container has asked for more.
        let limit = self.config.shutdown_timeout.max(longest.saturating_add(5));
        let stops = running
            .iter()
            .map(|container| self.stop_running(container, StopOptions::default()));
        let all = futures::future::join_all(stops);
        let limit = u64::try_from(limit).unwrap_or(15);
        if tokio::time::timeout(std::time::Duration::from_secs(limit), all)
            .await
            .is_err()
        {
            for container in &running {
                if let Ok(shim) = container.shim() {
                    let _ = shim.kill(crate::signal::KILL).await;
                }
            }
        }
        // The exit path of each still has to write its state.
        for container in running {
            let _ = tokio::time::timeout(
                std::time::Duration::from_secs(5),
                container.operation.lock(),
            )
            .await;
        }
        // Nothing runs any more that the swarm's networks could connect; the next start is told of
        // them anew.
        self.networks.leave_swarm().await?;
        Ok(())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn host_name(&self) -> String {
        self.config.host_name.clone().unwrap_or_else(|| {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        })
    }

    /// Publishes an event of a container with its labels, name and image.
    pub(crate) fn container_event(&self, container: &Container, action: impl Into<String>) {
        self.container_event_with(container, action, &[]);
    }

    pub(crate) fn container_event_with(
        &self,
        container: &Container,
        action: impl Into<String>,
        more: &[(&str, String)],
    ) {
        let mut attributes = container.record().event_attributes();
        attributes.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone())),
        );
        self.events.publish_local(
            m::EventMessageTypeEnum::CONTAINER,
            action,
            container.id.clone(),
            attributes,
        );
    }
}

/// Runs disk work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::system(format!("internal error: {error}"))),
    }
}

/// Runs a change to its end even if the client goes away in the middle of it.
pub(crate) async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(change).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::system(format!("internal error: {error}"))),
    }
}

fn default_seccomp(profile: Option<&str>) -> Result<SeccompProfile> {
    match profile {
        None | Some("" | "builtin") => Ok(SeccompProfile::Default),
        Some("unconfined") => Ok(SeccompProfile::Unconfined),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                EngineError::from_source(format!("opening seccomp profile ({path}) failed"), &error)
            })?;
            SeccompProfile::parse(&text).map_err(|error| EngineError::invalid(error.to_string()))
        }
    }
}

/// Removes what a killed daemon was working on.
fn empty(scratch: &std::path::Path) -> Result<()> {
    let context =
        |error| EngineError::from_source(format!("cannot empty {}", scratch.display()), &error);
    match std::fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(context(error)),
        _ => {}
    }
    std::fs::create_dir_all(scratch).map_err(context)
}

/// Made once and kept.
fn daemon_id(root: &std::path::Path) -> Result<String> {
    let path = root.join("engine-id");
    if let Ok(id) = std::fs::read_to_string(&path)
        && !id.trim().is_empty()
    {
        return Ok(id.trim().to_owned());
    }
    let hex = crate::names::random_id();
    let id = format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..32]
    );
    crate::persist::write_atomically(&path, id.as_bytes(), true)?;
    Ok(id)
}
