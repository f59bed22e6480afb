//! One task's container.

use std::sync::Arc;

use futures::StreamExt as _;
use skep_agent::{Controller, ControllerError, Dependencies, LogStream};
use skep_model::Task;
use skep_proto as proto;

use super::template::Template;
use super::{LABEL_PREFIX, files, request};
use crate::container::{Container, HealthStatus, Phase};
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind};
use crate::filters::Filters;
use crate::logs::Entry;
use crate::time::UnixNanos;
use crate::types::{LogOptions, RemoveOptions, StdStream, StopOptions, WaitCondition};

pub(super) struct TaskController {
    engine: Arc<Engine>,
    task: Task,
    dependencies: Arc<Dependencies>,
    /// The container's.
    name: String,
}

type Result<T> = std::result::Result<T, ControllerError>;

impl TaskController {
    pub(super) fn new(engine: Arc<Engine>, task: Task, dependencies: Arc<Dependencies>) -> Self {
        let name = task.name();
        Self {
            engine,
            task,
            dependencies,
            name,
        }
    }

    fn template(&self) -> Template {
        let facts = &self.engine.facts;
        Template::new(&self.task, &self.engine.host_name(), &facts.architecture)
    }

    /// Gives the engine the secrets and configs that the container is to find.
    fn provide_files(&self, container: &Container) -> Result<()> {
        if !files::wants_files(&self.task) {
            return Ok(());
        }
        let files = files::files(&self.task, &self.dependencies, &self.template())?;
        let mut provided = self.engine.task_files.lock();
        provided.insert(container.id.clone(), Arc::new(files));
        Ok(())
    }

    /// The task's container, if there is one; a stranger of that name is none.
    fn container(&self) -> Option<Arc<Container>> {
        let container = self.engine.containers.get(&self.name).ok()?;
        let label = format!("{LABEL_PREFIX}.task.id");
        let ours = container
            .record()
            .labels()
            .get(&label)
            .is_some_and(|id| id == self.task.id.as_str());
        ours.then_some(container)
    }

    fn existing(&self) -> Result<Arc<Container>> {
        self.container()
            .ok_or_else(|| ControllerError::fatal(format!("No such container: {}", self.name)))
    }

    fn status(container: &Container) -> proto::ContainerStatus {
        let record = container.record();
        proto::ContainerStatus {
            container_id: record.id.clone(),
            pid: record.state.pid,
            exit_code: record.state.exit_code,
        }
    }

    /// Waits until the container has been started once, for those who read its log.
    async fn until_started(&self) -> Result<Arc<Container>> {
        let mut filters = Filters::default();
        filters.add("type", "container");
        let mut events = self
            .engine
            .events()
            .subscribe(None, None, filters)
            .map_err(ControllerError::fatal)?;
        loop {
            if let Some(container) = self
                .container()
                .filter(|container| container.record().ever_started)
            {
                return Ok(container);
            }
            if events.next().await.is_none() {
                return Err(ControllerError::fatal("the engine has ended"));
            }
        }
    }

    /// Returns once the container is healthy or has none to check.
    async fn until_healthy(&self, container: &Arc<Container>) -> Result<()> {
        let mut progress = container.progress.subscribe();
        let mut cause = None;
        loop {
            let (phase, health) = {
                let record = container.record();
                (
                    record.state.phase,
                    record.state.health.as_ref().map(|health| health.status),
                )
            };
            match (phase, health) {
                (Phase::Running | Phase::Paused, None | Some(HealthStatus::Healthy)) => {
                    return Ok(());
                }
                (Phase::Running | Phase::Paused, Some(HealthStatus::Unhealthy))
                    if cause.is_none() =>
                {
                    cause = Some("unhealthy container".to_owned());
                    self.shutdown().await?;
                    continue;
                }
                (Phase::Running | Phase::Paused, _) => {}
                _ => return exit_result(container, cause),
            }
            if progress.changed().await.is_err() {
                return Err(ControllerError::fatal("the engine has ended"));
            }
        }
    }
}

/// Nothing for a clean end, an error with the code for another.
fn exit_result(container: &Container, cause: Option<String>) -> Result<()> {
    let code = container.record().state.exit_code;
    if code == 0 {
        return Ok(());
    }
    Err(ControllerError::Exit {
        code,
        cause,
        container: Some(TaskController::status(container)),
    })
}

#[async_trait::async_trait]
impl Controller for TaskController {
    async fn update(&self, _task: &Task) -> Result<()> {
        // What a container is made of does not change; its desired state is the agent's.
        Ok(())
    }

    async fn prepare(&self) -> Result<()> {
        if self.container().is_some() {
            return Err(ControllerError::TaskPrepared);
        }
        let engine = &self.engine;
        super::networks::prepare(engine, &self.task).await?;
        let request = request::request(&self.task, &self.template(), &engine.config.swarm_allow)
            .map_err(ControllerError::Fatal)?;
        super::pull::ensure(engine, &self.task).await?;
        match engine
            .create_container(Some(self.name.clone()), request)
            .await
        {
            Ok(_) => Ok(()),
            // Made by an earlier call that nobody waited for.
            Err(error) if error.kind == ErrorKind::Conflict && self.container().is_some() => {
                Err(ControllerError::TaskPrepared)
            }
            Err(error) => Err(ControllerError::fatal(error)),
        }
    }

    async fn start(&self) -> Result<()> {
        let container = self.existing()?;
        if container.record().state.phase != Phase::Created {
            return Err(ControllerError::TaskStarted);
        }
        self.provide_files(&container)?;
        super::networks::prepare(&self.engine, &self.task).await?;
        match self.engine.start_container(&container.id).await {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::NotModified => {}
            Err(error) => {
                return Err(ControllerError::fatal(
                    error.context("starting container failed"),
                ));
            }
        }
        self.until_healthy(&container).await
    }

    async fn wait(&self) -> Result<()> {
        let container = self.existing()?;
        let ended = self
            .engine
            .wait_container(&container.id, WaitCondition::NotRunning)
            .await
            .map_err(ControllerError::fatal)?;
        tokio::pin!(ended);
        let mut progress = container.progress.subscribe();
        let mut cause = None;
        loop {
            tokio::select! {
                response = &mut ended => {
                    response.map_err(ControllerError::fatal)?;
                    return exit_result(&container, cause);
                }
                changed = progress.changed() => {
                    if changed.is_err() {
                        return Err(ControllerError::fatal("the engine has ended"));
                    }
                    let health = container.record().state.health.as_ref().map(|health| health.status);
                    if health == Some(HealthStatus::Unhealthy) && cause.is_none() {
                        cause = Some("unhealthy container".to_owned());
                        self.shutdown().await?;
                    }
                }
            }
        }
    }

    async fn shutdown(&self) -> Result<()> {
        let Some(container) = self.container() else {
            return Ok(());
        };
        let options = StopOptions::default();
        finished(self.engine.stop_container(&container.id, options).await)
    }

    async fn terminate(&self) -> Result<()> {
        let Some(container) = self.container() else {
            return Ok(());
        };
        match self.engine.kill_container(&container.id, None).await {
            // It has ended already.
            Err(error) if error.kind == ErrorKind::Conflict => Ok(()),
            other => finished(other),
        }
    }

    async fn remove(&self) -> Result<()> {
        self.shutdown().await?;
        let Some(container) = self.container() else {
            return Ok(());
        };
        let options = RemoveOptions {
            force: true,
            volumes: true,
            link: false,
        };
        match self.engine.remove_container(&container.id, options).await {
            // Somebody else removes it.
            Err(error) if error.kind == ErrorKind::Conflict => {
                Err(ControllerError::Temporary(error.message))
            }
            other => finished(other),
        }
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn container_status(&self) -> Result<Option<proto::ContainerStatus>> {
        Ok(self.container().map(|container| Self::status(&container)))
    }

    async fn port_status(&self) -> Result<Option<proto::PortStatus>> {
        use proto::port_config::{Protocol, PublishMode};
        let Some(container) = self.container() else {
            return Ok(None);
        };
        let record = container.record();
        let mut ports: Vec<proto::PortConfig> = Vec::new();
        for port in record
            .endpoints
            .values()
            .flat_map(|endpoint| &endpoint.ports)
        {
            let protocol = match port.protocol {
                skep_network::Protocol::Tcp => Protocol::Tcp,
                skep_network::Protocol::Udp => Protocol::Udp,
                skep_network::Protocol::Sctp => Protocol::Sctp,
            };
            let config = proto::PortConfig {
                name: String::new(),
                protocol: protocol as i32,
                target_port: u32::from(port.container_port),
                published_port: u32::from(port.host_port),
                publish_mode: PublishMode::Host as i32,
            };
            // Once for IPv4 and IPv6 together.
            if !ports.contains(&config) {
                ports.push(config);
            }
        }
        Ok((!ports.is_empty()).then_some(proto::PortStatus { ports }))
    }

    async fn logs(&self, options: proto::LogSubscriptionOptions) -> Result<LogStream> {
        let container = if options.follow {
            self.until_started().await?
        } else {
            match self.container() {
                Some(container) => container,
                None => return Ok(futures::stream::empty().boxed()),
            }
        };
        let (log_options, skip) = log_options(&options);
        let entries =
            Engine::log_entries(&container, &log_options).map_err(ControllerError::fatal)?;
        let stream = futures::stream::unfold(entries, |mut entries| async move {
            entries.recv().await.map(|entry| (entry, entries))
        });
        let (stdout, stderr) = (log_options.stdout, log_options.stderr);
        let messages = stream.skip(skip).filter_map(move |entry| async move {
            match entry {
                Ok(entry) => {
                    let wanted = match entry.stream {
                        StdStream::Stdout => stdout,
                        StdStream::Stderr => stderr,
                    };
                    wanted.then(|| Ok(message(entry)))
                }
                Err(error) => Some(Err(ControllerError::fatal(error))),
            }
        });
        Ok(messages.boxed())
    }
}

fn finished(result: std::result::Result<(), EngineError>) -> Result<()> {
    match result {
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::NotModified) => Ok(()),
        Err(error) => Err(ControllerError::fatal(error)),
        Ok(()) => Ok(()),
    }
}

/// SwarmKit's `tail`: 0 is all, -1 is none, -11 the last ten; a positive number is skipped.
fn log_options(options: &proto::LogSubscriptionOptions) -> (LogOptions, usize) {
    let wants = |stream: proto::LogStream| {
        options.streams.is_empty() || options.streams.contains(&(stream as i32))
    };
    let since = options.since.as_ref().map(|since| {
        UnixNanos(
            since
                .seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(i64::from(since.nanos)),
        )
    });
    let tail =
        (options.tail < 0).then(|| usize::try_from(-(options.tail + 1)).unwrap_or(usize::MAX));
    let log = LogOptions {
        stdout: wants(proto::LogStream::Stdout),
        stderr: wants(proto::LogStream::Stderr),
        follow: options.follow,
        since,
        tail,
        ..LogOptions::default()
    };
    (log, usize::try_from(options.tail).unwrap_or(0))
}

fn message(entry: Entry) -> proto::LogMessage {
    let stream = match entry.stream {
        StdStream::Stdout => proto::LogStream::Stdout,
        StdStream::Stderr => proto::LogStream::Stderr,
    };
    proto::LogMessage {
        context: None,
        timestamp: Some(prost_types::Timestamp {
            seconds: entry.time.seconds(),
            nanos: entry.time.0.rem_euclid(1_000_000_000) as i32,
        }),
        stream: stream as i32,
        data: entry.line.to_vec(),
        attrs: entry
            .attributes
            .into_iter()
            .map(|(key, value)| proto::LogAttr { key, value })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_swarmkits() {
        let tail = |tail| {
            log_options(&proto::LogSubscriptionOptions {
                tail,
                ..Default::default()
            })
        };
        assert_eq!((tail(0).0.tail, tail(0).1), (None, 0));
        assert_eq!(tail(-1).0.tail, Some(0));
        assert_eq!(tail(-11).0.tail, Some(10));
        assert_eq!((tail(5).0.tail, tail(5).1), (None, 5));
    }
}
