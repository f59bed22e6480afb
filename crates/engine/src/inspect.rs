//! `docker inspect` of a container.

use std::collections::HashMap;

use bollard_stubs::models as m;
use skep_network::GATEWAY_BRIDGE;

use crate::container::Record;
use crate::create::ports;
use crate::engine::{Engine, blocking};
use crate::error::Result;

impl Engine {
    /// Everything about a container.
    pub async fn inspect_container(
        &self,
        id: &str,
        size: bool,
    ) -> Result<m::ContainerInspectResponse> {
        let container = self.containers.get(id)?;
        let record = container.record().clone();
        let execs: Vec<_> = container.live().execs.keys().cloned().collect();
        let (path, args) = record.command();
        let sizes = if size {
            Some(self.sizes(&container).await)
        } else {
            None
        };
        let (images, rootfs_id) = (self.images.clone(), record.id.clone());
        let driver = blocking(move || Ok(images.open_rootfs(&rootfs_id)?.graph_driver()))
            .await
            .ok();
        let file = |name: &str| Some(container.dir.join(name).display().to_string());
        let log_path = if record.log_driver() == "json-file" {
            container.log_path().display().to_string()
        } else {
            String::new()
        };
        let apparmor = record.security.apparmor.clone().unwrap_or_default();
        Ok(m::ContainerInspectResponse {
            id: Some(record.id.clone()),
            created: Some(record.created.rfc3339()),
            path: Some(path),
            args: Some(args),
            state: Some(record.state.to_api()),
            image: Some(record.image_id.clone()),
            resolv_conf_path: if record.ever_started {
                file("resolv.conf")
            } else {
                Some(String::new())
            },
            hostname_path: if record.ever_started {
                file("hostname")
            } else {
                Some(String::new())
            },
            hosts_path: if record.ever_started {
                file("hosts")
            } else {
                Some(String::new())
            },
            log_path: Some(log_path),
            name: Some(format!("/{}", record.name)),
            restart_count: Some(record.restart_count),
            driver: Some("overlay2".to_owned()),
            platform: Some("linux".to_owned()),
            image_manifest_descriptor: None,
            mount_label: Some(String::new()),
            process_label: Some(String::new()),
            app_armor_profile: Some(apparmor),
            exec_ids: (!execs.is_empty()).then_some(execs),
            host_config: Some(m::HostConfig {
                links: self.shown_links(&record),
                ..record.host_config.clone()
            }),
            graph_driver: driver,
            storage: None,
            size_rw: sizes.map(|(rw, _)| rw),
            size_root_fs: sizes.map(|(_, root)| root),
            mounts: Some(
                record
                    .mounts
                    .values()
                    .map(crate::mounts::MountPoint::to_api)
                    .collect(),
            ),
            network_settings: Some(self.network_settings(&record)),
            config: Some(record.config),
        })
    }

    fn network_settings(&self, record: &Record) -> m::NetworkSettings {
        let up = record.state.is_up() && !record.endpoints.is_empty();
        let mut ports: m::PortMap = HashMap::new();
        if up {
            for endpoint in record.endpoints.values() {
                ports.extend(skep_network::port_map(&endpoint.ports));
            }
            for (number, protocol) in record
                .config
                .exposed_ports
                .iter()
                .flatten()
                .filter_map(|port| ports::parse_port(port))
            {
                ports.entry(format!("{number}/{protocol}")).or_insert(None);
            }
        }
        let key = self
            .config
            .exec_root
            .join("netns")
            .join(crate::names::short(&record.id))
            .display()
            .to_string();
        m::NetworkSettings {
            sandbox_id: Some(if up { record.id.clone() } else { String::new() }),
            sandbox_key: Some(if up { key } else { String::new() }),
            ports: Some(ports),
            networks: Some(networks(self, record)),
        }
    }
}

/// The container's networks: what they gave while it runs, what was asked of them otherwise.
pub(crate) fn networks(engine: &Engine, record: &Record) -> HashMap<String, m::EndpointSettings> {
    if !record.endpoints.is_empty() {
        // The way out of overlays is nobody's wish, and not shown.
        let live = record
            .endpoints
            .iter()
            .filter(|(name, _)| *name != GATEWAY_BRIDGE || record.networks.contains_key(*name));
        return live
            .map(|(name, endpoint)| {
                let mut settings = endpoint.settings();
                settings.dns_names = dns_names(record, &settings, name);
                (name.clone(), settings)
            })
            .collect();
    }
    record
        .networks
        .iter()
        .map(|(name, asked)| {
            let mut settings = asked.clone();
            for field in [
                &mut settings.endpoint_id,
                &mut settings.gateway,
                &mut settings.ip_address,
                &mut settings.ipv6_gateway,
                &mut settings.global_ipv6_address,
            ] {
                *field = Some(String::new());
            }
            settings.ip_prefix_len = Some(0);
            settings.global_ipv6_prefix_len = Some(0);
            settings.mac_address.get_or_insert_default();
            settings.gw_priority.get_or_insert(0);
            settings.network_id = Some(
                engine
                    .networks
                    .resolve(name)
                    .map(|network| network.id)
                    .unwrap_or_default(),
            );
            (name.clone(), settings)
        })
        .collect()
}

fn dns_names(
    record: &Record,
    settings: &m::EndpointSettings,
    network: &str,
) -> Option<Vec<String>> {
    if matches!(network, "bridge" | "host" | "none") {
        return None;
    }
    let mut names = vec![record.name.clone()];
    names.extend(settings.aliases.iter().flatten().cloned());
    names.push(crate::names::short(&record.id).to_owned());
    names.extend(record.config.hostname.clone());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    Some(names)
}
