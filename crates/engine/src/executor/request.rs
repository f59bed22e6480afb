//! A task's spec as a container to create.

use std::collections::HashMap;

use bollard_stubs::models as m;
use skep_model::Task;
use skep_proto as proto;

use super::LABEL_PREFIX;
use super::networks;
use super::template::Template;
use crate::generic_resources;
use crate::types::CreateRequest;

/// Makes the request, or says what of the task is not possible here.
pub(super) fn request(
    task: &Task,
    template: &Template,
    allowed: &[String],
) -> Result<CreateRequest, String> {
    let spec = task
        .container()
        .ok_or("only container tasks are supported")?;
    if spec.image.is_empty() {
        return Err("dockerexec: image required".to_owned());
    }
    let env = spec
        .env
        .iter()
        .map(|variable| expand_variable(variable, template));
    let mut env = env.collect::<Result<Vec<_>, _>>()?;
    env.extend(generic_resources::environment(
        &task.assigned_generic_resources,
    ));
    let given = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let grace = spec.stop_grace_period.as_ref().map(|grace| grace.seconds);
    let (exposed, bindings) = host_ports(task);
    let config = m::ContainerConfig {
        image: Some(spec.image.clone()),
        // Command replaces the image's entrypoint, Args its command.
        entrypoint: given(&spec.command),
        cmd: given(&spec.args),
        env: Some(env),
        hostname: text(
            &template
                .expand(&spec.hostname)
                .map_err(|error| format!("expanding hostname failed: {error}"))?,
        ),
        user: text(&spec.user),
        working_dir: text(&spec.dir),
        labels: Some(labels(task, spec)),
        stop_signal: text(&spec.stop_signal),
        stop_timeout: grace,
        tty: Some(spec.tty),
        open_stdin: Some(spec.open_stdin),
        exposed_ports: given(&exposed),
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
        ..Default::default()
    };
    let networks = networks::of_task(task)?;
    let mut host = m::HostConfig {
        mounts: Some(
            spec.mounts
                .iter()
                .map(|mount| convert_mount(mount, template))
                .collect::<Result<_, _>>()?,
        ),
        port_bindings: Some(bindings),
        extra_hosts: Some(extra_hosts(&spec.hosts)),
        group_add: given(&spec.groups),
        readonly_rootfs: Some(spec.read_only),
        init: spec.init,
        sysctls: Some(spec.sysctls.clone().into_iter().collect()),
        cap_add: given(&spec.capability_add),
        cap_drop: given(&spec.capability_drop),
        ulimits: Some(spec.ulimits.iter().map(ulimit).collect()),
        oom_score_adj: Some(spec.oom_score_adj),
        pids_limit: (spec.pids_limit > 0).then_some(spec.pids_limit),
        security_opt: Some(security(spec.privileges.as_ref())?),
        network_mode: networks.mode,
        log_config: log_config(task),
        ..Default::default()
    };
    if let Some(dns) = &spec.dns_config {
        host.dns = given(&dns.nameservers);
        host.dns_search = given(&dns.search);
        host.dns_options = given(&dns.options);
    }
    resources(task, &mut host);
    super::extras::apply(task, allowed, &mut host)?;
    Ok(CreateRequest {
        config,
        host_config: host,
        task_files: super::files::wants_files(task),
        networking_config: Some(m::NetworkingConfig {
            endpoints_config: Some(networks.endpoints),
        }),
        ..CreateRequest::default()
    })
}

/// Only what stands after the equals sign is a template.
fn expand_variable(variable: &str, template: &Template) -> Result<String, String> {
    let Some((name, value)) = variable.split_once('=') else {
        return Ok(variable.to_owned());
    };
    let value = template
        .expand(value)
        .map_err(|error| format!("expanding env failed: expanding env {variable:?}: {error}"))?;
    Ok(format!("{name}={value}"))
}

fn labels(task: &Task, spec: &proto::ContainerSpec) -> HashMap<String, String> {
    let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
    labels.extend(task.annotations.labels.clone());
    let id = |id: Option<String>| id.unwrap_or_default();
    for (key, value) in [
        ("task", String::new()),
        ("task.id", task.id.to_string()),
        ("task.name", task.name()),
        (
            "node.id",
            id(task.node_id.as_ref().map(ToString::to_string)),
        ),
        (
            "service.id",
            id(task.service_id.as_ref().map(ToString::to_string)),
        ),
        ("service.name", task.service_annotations.name.clone()),
    ] {
        labels.insert(format!("{LABEL_PREFIX}.{key}"), value);
    }
    labels
}

/// Ports published on the node itself; the routing mesh's are not the container's business.
fn host_ports(task: &Task) -> (Vec<String>, m::PortMap) {
    use proto::port_config::{Protocol, PublishMode};
    let mut exposed = Vec::new();
    let mut bindings = m::PortMap::new();
    for port in task.endpoint.iter().flat_map(|endpoint| &endpoint.ports) {
        if port.publish_mode != PublishMode::Host as i32 {
            continue;
        }
        let protocol = match Protocol::try_from(port.protocol) {
            Ok(Protocol::Udp) => "udp",
            Ok(Protocol::Sctp) => "sctp",
            _ => "tcp",
        };
        let key = format!("{}/{protocol}", port.target_port);
        let published = if port.published_port == 0 {
            String::new()
        } else {
            port.published_port.to_string()
        };
        let binding = m::PortBinding {
            host_ip: None,
            host_port: Some(published),
        };
        exposed.push(key.clone());
        bindings
            .entry(key)
            .or_default()
            .get_or_insert_default()
            .push(binding);
    }
    (exposed, bindings)
}

fn log_config(task: &Task) -> Option<m::HostConfigLogConfig> {
    let driver = task.log_driver.as_ref().or(task.spec.log_driver.as_ref())?;
    Some(m::HostConfigLogConfig {
        typ: Some(driver.name.clone()),
        config: Some(driver.options.clone().into_iter().collect()),
    })
}

fn resources(task: &Task, host: &mut m::HostConfig) {
    let Some(wanted) = &task.spec.resources else {
        return;
    };
    let positive = |number: i64| (number > 0).then_some(number);
    if let Some(limits) = &wanted.limits {
        host.memory = positive(limits.memory_bytes);
        host.nano_cpus = positive(limits.nano_cpus);
    }
    if let Some(reservations) = &wanted.reservations {
        host.memory_reservation = positive(reservations.memory_bytes);
    }
    if let (Some(swap), Some(memory)) = (wanted.swap_bytes, host.memory) {
        host.memory_swap = Some(if swap == -1 {
            -1
        } else {
            memory.saturating_add(swap)
        });
    }
    host.memory_swappiness = wanted.memory_swappiness;
}

fn nanoseconds(duration: Option<&prost_types::Duration>) -> Option<i64> {
    duration.map(|duration| {
        duration
            .seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(duration.nanos))
    })
}

fn healthcheck(health: &proto::HealthConfig) -> m::HealthConfig {
    m::HealthConfig {
        test: Some(health.test.clone()),
        interval: nanoseconds(health.interval.as_ref()),
        timeout: nanoseconds(health.timeout.as_ref()),
        retries: Some(i64::from(health.retries)),
        start_period: nanoseconds(health.start_period.as_ref()),
        start_interval: nanoseconds(health.start_interval.as_ref()),
    }
}

fn ulimit(limit: &proto::container_spec::Ulimit) -> m::ResourcesUlimits {
    m::ResourcesUlimits {
        name: Some(limit.name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    }
}

/// "10.0.0.1 name alias" per entry, as in /etc/hosts, becomes "name:10.0.0.1".
fn extra_hosts(hosts: &[String]) -> Vec<String> {
    let pairs = hosts.iter().flat_map(|entry| {
        let mut words = entry.split_whitespace();
        let address = words.next().unwrap_or_default().to_owned();
        words
            .map(move |name| format!("{name}:{address}"))
            .collect::<Vec<_>>()
    });
    pairs.collect()
}

fn security(privileges: Option<&proto::Privileges>) -> Result<Vec<String>, String> {
    use proto::privileges::app_armor_opts::AppArmorMode;
    use proto::privileges::seccomp_opts::SeccompMode;
    let Some(privileges) = privileges else {
        return Ok(Vec::new());
    };
    if privileges.credential_spec.is_some() {
        return Err("credential specs are for Windows containers".to_owned());
    }
    let mut options = Vec::new();
    if let Some(selinux) = &privileges.selinux_context {
        if !selinux.disable {
            return Err("SELinux labels are not supported".to_owned());
        }
        options.push("label=disable".to_owned());
    }
    if let Some(seccomp) = &privileges.seccomp {
        match SeccompMode::try_from(seccomp.mode) {
            Ok(SeccompMode::Unconfined) => options.push("seccomp=unconfined".to_owned()),
            Ok(SeccompMode::Custom) => options.push(format!(
                "seccomp={}",
                String::from_utf8_lossy(&seccomp.profile)
            )),
            _ => {}
        }
    }
    if let Some(apparmor) = &privileges.apparmor
        && AppArmorMode::try_from(apparmor.mode) == Ok(AppArmorMode::Disabled)
    {
        options.push("apparmor=unconfined".to_owned());
    }
    if privileges.no_new_privileges {
        options.push("no-new-privileges=true".to_owned());
    }
    Ok(options)
}

fn convert_mount(mount: &proto::Mount, template: &Template) -> Result<m::Mount, String> {
    use proto::mount::Type;
    let expand = |what: &str, text: &str| {
        template.expand(text).map_err(|error| {
            format!("expanding mounts failed: expanding mount {what} {text:?}: {error}")
        })
    };
    let typ = match Type::try_from(mount.r#type) {
        Ok(Type::Bind) => m::MountType::BIND,
        Ok(Type::Volume) => m::MountType::VOLUME,
        Ok(Type::Tmpfs) => m::MountType::TMPFS,
        Ok(Type::Npipe) => m::MountType::NPIPE,
        _ => return Err("cluster volumes are not supported yet".to_owned()),
    };
    let tmpfs = mount
        .tmpfs_options
        .as_ref()
        .map(|options| m::MountTmpfsOptions {
            size_bytes: Some(options.size_bytes),
            mode: Some(i64::from(options.mode)),
            // A list of lists as JSON in a text: moby's way around SwarmKit's type.
            options: serde_json::from_str(&options.options).ok(),
        });
    Ok(m::Mount {
        typ: Some(typ),
        source: Some(expand("source", &mount.source)?),
        target: Some(expand("target", &mount.target)?),
        read_only: Some(mount.readonly),
        bind_options: mount.bind_options.map(bind_options),
        volume_options: mount
            .volume_options
            .as_ref()
            .map(|options| volume_options(options, template))
            .transpose()?,
        tmpfs_options: tmpfs,
        ..Default::default()
    })
}

fn bind_options(options: proto::mount::BindOptions) -> m::MountBindOptions {
    use m::MountBindOptionsPropagationEnum as To;
    use proto::mount::bind_options::Propagation as From;
    let propagation = match From::try_from(options.propagation) {
        Ok(From::Private) => To::PRIVATE,
        Ok(From::Rshared) => To::RSHARED,
        Ok(From::Shared) => To::SHARED,
        Ok(From::Rslave) => To::RSLAVE,
        Ok(From::Slave) => To::SLAVE,
        _ => To::RPRIVATE,
    };
    m::MountBindOptions {
        propagation: Some(propagation),
        non_recursive: Some(options.nonrecursive),
        create_mountpoint: Some(options.createmountpoint),
        read_only_non_recursive: Some(options.readonlynonrecursive),
        read_only_force_recursive: Some(options.readonlyforcerecursive),
    }
}

fn volume_options(
    options: &proto::mount::VolumeOptions,
    template: &Template,
) -> Result<m::MountVolumeOptions, String> {
    let expand = |what: &str, map: &std::collections::BTreeMap<String, String>| {
        let expanded = map.iter().map(|(key, value)| {
            let value = template.expand(value).map_err(|error| {
                format!(
                    "expanding mounts failed: expanding volume {what}: \
                     expanding map entry {key:?}={value:?}: {error}"
                )
            })?;
            Ok((key.clone(), value))
        });
        expanded.collect::<Result<HashMap<_, _>, String>>()
    };
    let driver = options.driver_config.as_ref().map(|driver| {
        Ok::<_, String>(m::MountVolumeOptionsDriverConfig {
            name: Some(driver.name.clone()),
            options: Some(expand("driver config", &driver.options)?),
        })
    });
    Ok(m::MountVolumeOptions {
        no_copy: Some(options.nocopy),
        labels: Some(expand("labels", &options.labels)?),
        driver_config: driver.transpose()?,
        subpath: (!options.subpath.is_empty()).then(|| options.subpath.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn task(spec: proto::ContainerSpec) -> Task {
        Task {
            slot: skep_model::Slot(1),
            spec: Arc::new(proto::TaskSpec {
                runtime: Some(proto::task_spec::Runtime::Container(spec)),
                resources: Some(proto::ResourceRequirements {
                    limits: Some(proto::Resources {
                        memory_bytes: 64 << 20,
                        nano_cpus: 500_000_000,
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            service_annotations: Arc::new(proto::Annotations {
                name: "web".to_owned(),
                ..Default::default()
            }),
            ..Task::default()
        }
    }

    #[test]
    fn a_service_becomes_a_container() {
        let spec = proto::ContainerSpec {
            image: "busybox:1".to_owned(),
            args: vec!["top".to_owned()],
            env: vec!["ME={{.Task.Slot}}".to_owned()],
            hosts: vec!["10.0.0.1 db database".to_owned()],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Default::default()
        };
        let made = {
            let task = task(spec);
            request(&task, &Template::new(&task, "node", "x86_64"), &[]).unwrap()
        };
        assert_eq!(
            (made.config.entrypoint, made.config.cmd),
            (None, Some(vec!["top".to_owned()]))
        );
        assert_eq!(made.config.env, Some(vec!["ME=1".to_owned()]));
        assert_eq!(
            made.host_config.extra_hosts.unwrap(),
            ["db:10.0.0.1", "database:10.0.0.1"]
        );
        assert_eq!(
            (made.host_config.memory, made.host_config.nano_cpus),
            (Some(64 << 20), Some(500_000_000))
        );
        let labels = made.config.labels.unwrap();
        assert_eq!(labels["com.docker.swarm.service.name"], "web");
        assert_eq!(
            (
                labels["com.docker.swarm.task"].as_str(),
                labels["a"].as_str()
            ),
            ("", "b")
        );
    }
}
