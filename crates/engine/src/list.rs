//! `docker ps`.

use std::sync::Arc;

use bollard_stubs::models as m;
use regex::Regex;

use crate::container::{Container, HealthStatus, Record};
use crate::create::ports;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::filters::Filters;
use crate::time::UnixNanos;
use crate::types::ListOptions;

const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

const STATES: &[&str] = &[
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
];

impl Engine {
    /// Lists containers, newest first.
    pub async fn list_containers(&self, options: ListOptions) -> Result<Vec<m::ContainerSummary>> {
        let selection = Selection::new(self, &options)?;
        let mut records: Vec<(Arc<Container>, Record)> = self
            .containers
            .all()
            .into_iter()
            .map(|container| {
                let record = container.record().clone();
                (container, record)
            })
            .filter(|(_, record)| selection.matches(record))
            .collect();
        records.sort_by_key(|(_, record)| std::cmp::Reverse(record.created));
        if options.limit > 0 {
            records.truncate(options.limit);
        }
        let mut list = Vec::with_capacity(records.len());
        let mut link_names = self.link_names();
        for (container, record) in records {
            let mut summary = self.summary(&record);
            if let (Some(names), Some(more)) = (&mut summary.names, link_names.remove(&record.id)) {
                names.extend(more);
            }
            if options.size {
                let (rw, root) = self.sizes(&container).await;
                summary.size_rw = Some(rw);
                summary.size_root_fs = Some(root);
            }
            list.push(summary);
        }
        Ok(list)
    }

    /// One row of the list.
    pub(crate) fn summary(&self, record: &Record) -> m::ContainerSummary {
        let (path, args) = record.command();
        let command = std::iter::once(path)
            .chain(args)
            .collect::<Vec<_>>()
            .join(" ");
        let state = &record.state;
        m::ContainerSummary {
            id: Some(record.id.clone()),
            names: Some(vec![format!("/{}", record.name)]),
            image: Some(self.shown_image(record)),
            image_id: Some(record.image_id.clone()),
            image_manifest_descriptor: None,
            command: Some(command),
            created: Some(record.created.seconds()),
            ports: Some(port_summaries(record)),
            size_rw: None,
            size_root_fs: None,
            labels: Some(record.labels().clone()),
            state: Some(match state.word() {
                "running" => m::ContainerSummaryStateEnum::RUNNING,
                "paused" => m::ContainerSummaryStateEnum::PAUSED,
                "restarting" => m::ContainerSummaryStateEnum::RESTARTING,
                "removing" => m::ContainerSummaryStateEnum::REMOVING,
                "exited" => m::ContainerSummaryStateEnum::EXITED,
                "dead" => m::ContainerSummaryStateEnum::DEAD,
                _ => m::ContainerSummaryStateEnum::CREATED,
            }),
            status: Some(state.describe(UnixNanos::now())),
            host_config: Some(m::ContainerSummaryHostConfig {
                network_mode: Some(record.network_mode().to_owned()),
                annotations: record.host_config.annotations.clone(),
            }),
            network_settings: Some(m::ContainerSummaryNetworkSettings {
                networks: Some(crate::inspect::networks(self, record)),
            }),
            mounts: Some(
                record
                    .mounts
                    .values()
                    .map(crate::mounts::MountPoint::to_api)
                    .collect(),
            ),
            health: Some(m::ContainerSummaryHealth {
                status: Some(match state.health.as_ref().map(|health| health.status) {
                    None => m::ContainerSummaryHealthStatusEnum::NONE,
                    Some(HealthStatus::Starting) => m::ContainerSummaryHealthStatusEnum::STARTING,
                    Some(HealthStatus::Healthy) => m::ContainerSummaryHealthStatusEnum::HEALTHY,
                    Some(HealthStatus::Unhealthy) => m::ContainerSummaryHealthStatusEnum::UNHEALTHY,
                }),
                failing_streak: Some(
                    state
                        .health
                        .as_ref()
                        .map_or(0, |health| health.failing_streak),
                ),
            }),
        }
    }

    /// The name the container was made with, or the image's id if that name has moved on.
    fn shown_image(&self, record: &Record) -> String {
        let name = record.image_name();
        match self.images.get(name) {
            Ok(image) if image.id().as_str() == record.image_id => name.to_owned(),
            _ => record.image_id.clone(),
        }
    }

    /// Bytes written, and those with the image's.
    pub(crate) async fn sizes(&self, container: &Container) -> (i64, i64) {
        let (images, id) = (self.images.clone(), container.id.clone());
        let sizes = blocking(move || {
            let rootfs = images.open_rootfs(&id)?;
            Ok((rootfs.size_rw()?, rootfs.size_root()?))
        });
        let clamp = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
        sizes
            .await
            .map_or((0, 0), |(rw, root)| (clamp(rw), clamp(root)))
    }
}

fn port_summaries(record: &Record) -> Vec<m::PortSummary> {
    let typ = |protocol: skep_network::Protocol| match protocol {
        skep_network::Protocol::Tcp => m::PortSummaryTypeEnum::TCP,
        skep_network::Protocol::Udp => m::PortSummaryTypeEnum::UDP,
        skep_network::Protocol::Sctp => m::PortSummaryTypeEnum::SCTP,
    };
    if !record.state.is_up() {
        return Vec::new();
    }
    let published: Vec<_> = record
        .endpoints
        .values()
        .flat_map(|endpoint| &endpoint.ports)
        .collect();
    let mut list: Vec<_> = published
        .iter()
        .map(|port| m::PortSummary {
            ip: Some(port.host_ip.to_string()),
            private_port: port.container_port,
            public_port: Some(port.host_port),
            typ: Some(typ(port.protocol)),
        })
        .collect();
    if record.network_mode() != "host" {
        let exposed = record
            .config
            .exposed_ports
            .iter()
            .flatten()
            .filter_map(|port| ports::parse_port(port));
        for (number, protocol) in exposed {
            if !published
                .iter()
                .any(|port| port.container_port == number && port.protocol == protocol)
            {
                list.push(m::PortSummary {
                    ip: None,
                    private_port: number,
                    public_port: None,
                    typ: Some(typ(protocol)),
                });
            }
        }
    }
    list.sort_by(|a, b| {
        (a.private_port, a.public_port, &a.ip).cmp(&(b.private_port, b.public_port, &b.ip))
    });
    list
}

/// The filters, checked and looked up.
struct Selection<'a> {
    filters: &'a Filters,
    all: bool,
    exit_codes: Vec<i32>,
    before: Option<UnixNanos>,
    since: Option<UnixNanos>,
    is_task: Option<bool>,
    /// Image ids.
    ancestors: Option<Vec<String>>,
    network_ids: Vec<String>,
    names: Option<Vec<Regex>>,
}

impl<'a> Selection<'a> {
    fn new(engine: &Engine, options: &'a ListOptions) -> Result<Self> {
        let filters = &options.filters;
        filters.check(FILTERS)?;
        for state in filters.get("status") {
            if !STATES.contains(&state) {
                return Err(EngineError::invalid(format!(
                    "invalid filter 'status={state}'"
                )));
            }
        }
        for health in filters.get("health") {
            if !["none", "starting", "healthy", "unhealthy"].contains(&health) {
                return Err(EngineError::invalid(format!(
                    "invalid filter 'health={health}'"
                )));
            }
        }
        let exit_codes = filters
            .get("exited")
            .map(|code| {
                code.parse()
                    .map_err(|_| EngineError::invalid(format!("invalid filter 'exited={code}'")))
            })
            .collect::<Result<Vec<i32>>>()?;
        let created = |key: &str| -> Result<Option<UnixNanos>> {
            filters
                .get(key)
                .next()
                .map(|id| Ok(engine.containers.get(id)?.record().created))
                .transpose()
        };
        let ancestors = filters
            .contains("ancestor")
            .then(|| engine.images_below(filters.get("ancestor")));
        let network_ids = filters
            .get("network")
            .filter_map(|name| engine.networks.resolve(name).ok())
            .map(|network| network.id)
            .collect();
        let all = options.all
            || options.limit > 0
            || ["status", "exited", "before", "since"]
                .iter()
                .any(|key| filters.contains(key));
        Ok(Self {
            filters,
            // A state filter looks at all; "since" and "before" look at all as dockerd does.
            all,
            exit_codes,
            before: created("before")?,
            since: created("since")?,
            is_task: filters.boolean("is-task")?,
            ancestors,
            network_ids,
            names: filters
                .contains("name")
                .then(|| expressions(filters.get("name"))),
        })
    }

    fn matches(&self, record: &Record) -> bool {
        let filters = self.filters;
        let state = &record.state;
        let health = state
            .health
            .as_ref()
            .map_or("none", |health| health.status.as_str());
        (self.all || state.is_running())
            && self.names.as_ref().is_none_or(|names| {
                names
                    .iter()
                    .any(|wanted| name_matches(&record.name, wanted))
            })
            && filters.any("id", |wanted| record.id.starts_with(wanted))
            && filters.labels("label", record.labels())
            && filters.any("status", |wanted| wanted == state.word())
            && filters.any("health", |wanted| wanted == health)
            && (self.exit_codes.is_empty()
                || (self.exit_codes.contains(&state.exit_code)
                    && !state.is_running()
                    && state.started_at.is_some()))
            && self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
            && self
                .is_task
                .is_none_or(|task| record.labels().contains_key("com.docker.swarm.task.id") == task)
            && self
                .ancestors
                .as_ref()
                .is_none_or(|images| images.contains(&record.image_id))
            && filters.any("volume", |wanted| {
                record.mounts.values().any(|point| {
                    point.name.as_deref() == Some(wanted)
                        || point.source == wanted
                        || point.destination == wanted
                })
            })
            && filters.any("network", |wanted| {
                record.networks.contains_key(wanted)
                    || record
                        .endpoints
                        .values()
                        .any(|endpoint| self.network_ids.contains(&endpoint.network_id))
            })
            && filters.any("publish", |wanted| {
                let ports: Vec<_> = record
                    .host_config
                    .port_bindings
                    .iter()
                    .flatten()
                    .map(|(port, _)| port.clone())
                    .collect();
                port_in(wanted, &ports)
            })
            && filters.any("expose", |wanted| {
                port_in(
                    wanted,
                    record.config.exposed_ports.as_deref().unwrap_or_default(),
                )
            })
    }
}

/// One that cannot be parsed matches nothing, as in Docker.
fn expressions<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Regex> {
    texts.filter_map(|text| Regex::new(text).ok()).collect()
}

/// Names match with and without the slash that they once had.
fn name_matches(name: &str, wanted: &Regex) -> bool {
    wanted.is_match(name) || wanted.is_match(&format!("/{name}"))
}

/// "80", "80/udp" or "8000-8010/tcp".
fn port_in(wanted: &str, have: &[String]) -> bool {
    let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
        return false;
    };
    have.iter()
        .filter_map(|port| ports::parse_port(port))
        .any(|(number, theirs)| (first..=last).contains(&number) && theirs.as_str() == protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_by_regular_expressions() {
        let matches = |name: &str, wanted: &str| {
            expressions([wanted].into_iter())
                .iter()
                .any(|wanted| name_matches(name, wanted))
        };
        assert!(matches("web.1.abc", "web"));
        assert!(matches("web", "^web$") && matches("web", "^/web$"));
        assert!(!matches("web2", "^web$") && matches("web2", "^web"));
        assert!(matches("web2", r"^web\d$") && matches("db", "web|db") && matches("wb", "we*b"));
        assert!(!matches("web(", "web("), "not an expression");
    }

    #[test]
    fn ports_are_single_or_ranges() {
        let have = ["80/tcp".to_owned(), "53/udp".to_owned()];
        assert!(port_in("80", &have) && port_in("70-90/tcp", &have) && port_in("53/udp", &have));
        assert!(!port_in("53", &have) && !port_in("x", &have));
    }
}
