//! Container specifications.

use skep_proto::{
    self as p, config_reference, container_spec, mount, privileges, secret_reference,
};

use super::super::types as t;
use super::{driver, driver_to, duration, nanos, number, word};

/// To JSON's form.
pub(crate) fn container_spec(c: &p::ContainerSpec) -> t::ContainerSpec {
    t::ContainerSpec {
        image: c.image.clone(),
        labels: c.labels.clone(),
        command: c.command.clone(),
        args: c.args.clone(),
        hostname: c.hostname.clone(),
        env: c.env.clone(),
        dir: c.dir.clone(),
        user: c.user.clone(),
        groups: c.groups.clone(),
        privileges: c.privileges.as_ref().map(privileges),
        init: c.init,
        stop_signal: c.stop_signal.clone(),
        tty: c.tty,
        open_stdin: c.open_stdin,
        read_only: c.read_only,
        mounts: c.mounts.iter().map(mount).collect(),
        stop_grace_period: c.stop_grace_period.map(nanos),
        healthcheck: c.healthcheck.as_ref().map(healthcheck),
        hosts: c.hosts.clone(),
        dns_config: c.dns_config.as_ref().map(|dns| t::DnsConfig {
            nameservers: dns.nameservers.clone(),
            search: dns.search.clone(),
            options: dns.options.clone(),
        }),
        secrets: c.secrets.iter().filter_map(secret_reference).collect(),
        configs: c.configs.iter().filter_map(config_reference).collect(),
        isolation: match c.isolation() {
            container_spec::Isolation::Default => "default",
            container_spec::Isolation::Process => "process",
            container_spec::Isolation::Hyperv => "hyperv",
        }
        .to_owned(),
        sysctls: c.sysctls.clone(),
        capability_add: c.capability_add.clone(),
        capability_drop: c.capability_drop.clone(),
        ulimits: c
            .ulimits
            .iter()
            .map(|limit| t::Ulimit {
                name: limit.name.clone(),
                hard: limit.hard,
                soft: limit.soft,
            })
            .collect(),
        oom_score_adj: c.oom_score_adj,
    }
}

/// To SwarmKit's form.
pub(crate) fn container_spec_to(c: &t::ContainerSpec) -> Result<p::ContainerSpec, String> {
    Ok(p::ContainerSpec {
        image: c.image.clone(),
        labels: c.labels.clone(),
        command: c.command.clone(),
        args: c.args.clone(),
        hostname: c.hostname.clone(),
        env: c.env.clone(),
        dir: c.dir.clone(),
        user: c.user.clone(),
        groups: c.groups.clone(),
        privileges: c.privileges.as_ref().map(privileges_to).transpose()?,
        init: c.init,
        tty: c.tty,
        open_stdin: c.open_stdin,
        read_only: c.read_only,
        stop_signal: c.stop_signal.clone(),
        mounts: c.mounts.iter().map(mount_to).collect::<Result<_, _>>()?,
        stop_grace_period: c.stop_grace_period.map(duration),
        pull_options: None,
        secrets: c.secrets.iter().map(secret_reference_to).collect(),
        configs: c
            .configs
            .iter()
            .map(config_reference_to)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("invalid Config: {error}"))?,
        hosts: c.hosts.clone(),
        dns_config: c.dns_config.as_ref().map(|dns| container_spec::DnsConfig {
            nameservers: dns.nameservers.clone(),
            search: dns.search.clone(),
            options: dns.options.clone(),
        }),
        healthcheck: c.healthcheck.as_ref().map(healthcheck_to),
        isolation: match c.isolation.to_lowercase().as_str() {
            "process" => container_spec::Isolation::Process,
            "hyperv" => container_spec::Isolation::Hyperv,
            _ => container_spec::Isolation::Default,
        }
        .into(),
        pids_limit: 0,
        sysctls: c.sysctls.clone(),
        capability_add: c.capability_add.clone(),
        capability_drop: c.capability_drop.clone(),
        ulimits: c
            .ulimits
            .iter()
            .map(|limit| container_spec::Ulimit {
                name: limit.name.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        oom_score_adj: c.oom_score_adj,
    })
}

fn healthcheck(h: &p::HealthConfig) -> t::HealthConfig {
    t::HealthConfig {
        test: h.test.clone(),
        interval: h.interval.map_or(0, nanos),
        timeout: h.timeout.map_or(0, nanos),
        start_period: h.start_period.map_or(0, nanos),
        start_interval: h.start_interval.map_or(0, nanos),
        retries: h.retries,
    }
}

fn healthcheck_to(h: &t::HealthConfig) -> p::HealthConfig {
    p::HealthConfig {
        test: h.test.clone(),
        interval: Some(duration(h.interval)),
        timeout: Some(duration(h.timeout)),
        retries: h.retries,
        start_period: Some(duration(h.start_period)),
        start_interval: Some(duration(h.start_interval)),
    }
}

fn privileges(given: &p::Privileges) -> t::Privileges {
    t::Privileges {
        credential_spec: given.credential_spec.as_ref().map(|spec| {
            let mut credential = t::CredentialSpec::default();
            match &spec.source {
                Some(privileges::credential_spec::Source::Config(id)) => {
                    credential.config.clone_from(id);
                }
                Some(privileges::credential_spec::Source::File(file)) => {
                    credential.file.clone_from(file);
                }
                Some(privileges::credential_spec::Source::Registry(key)) => {
                    credential.registry.clone_from(key);
                }
                None => {}
            }
            credential
        }),
        selinux_context: given
            .selinux_context
            .as_ref()
            .map(|context| t::SeLinuxContext {
                disable: context.disable,
                user: context.user.clone(),
                role: context.role.clone(),
                kind: context.r#type.clone(),
                level: context.level.clone(),
            }),
        seccomp: given.seccomp.as_ref().map(|seccomp| t::SeccompOpts {
            mode: word!(privileges::seccomp_opts::SeccompMode, seccomp.mode),
            profile: t::Bytes(seccomp.profile.clone()),
        }),
        apparmor: given.apparmor.as_ref().map(|apparmor| t::AppArmorOpts {
            mode: word!(privileges::app_armor_opts::AppArmorMode, apparmor.mode),
        }),
        no_new_privileges: given.no_new_privileges,
    }
}

fn privileges_to(given: &t::Privileges) -> Result<p::Privileges, String> {
    let credential_spec = given
        .credential_spec
        .as_ref()
        .map(credential_to)
        .transpose()
        .map_err(|error| format!("invalid CredentialSpec: {error}"))?;
    Ok(p::Privileges {
        credential_spec,
        selinux_context: given
            .selinux_context
            .as_ref()
            .map(|context| privileges::SeLinuxContext {
                disable: context.disable,
                user: context.user.clone(),
                role: context.role.clone(),
                r#type: context.kind.clone(),
                level: context.level.clone(),
            }),
        // As in moby, an unknown mode is the default one.
        seccomp: given
            .seccomp
            .as_ref()
            .map(|seccomp| privileges::SeccompOpts {
                mode: number!(privileges::seccomp_opts::SeccompMode, seccomp.mode)
                    .unwrap_or_default(),
                profile: seccomp.profile.0.clone(),
            }),
        apparmor: given
            .apparmor
            .as_ref()
            .map(|apparmor| privileges::AppArmorOpts {
                mode: number!(privileges::app_armor_opts::AppArmorMode, apparmor.mode)
                    .unwrap_or_default(),
            }),
        no_new_privileges: given.no_new_privileges,
    })
}

fn credential_to(spec: &t::CredentialSpec) -> Result<privileges::CredentialSpec, String> {
    use privileges::credential_spec::Source;
    let given: Vec<_> = [
        (
            "\"config\"",
            Source::Config(spec.config.clone()),
            &spec.config,
        ),
        ("\"file\"", Source::File(spec.file.clone()), &spec.file),
        (
            "\"registry\"",
            Source::Registry(spec.registry.clone()),
            &spec.registry,
        ),
    ]
    .into_iter()
    .filter(|(_, _, value)| !value.is_empty())
    .collect();
    match given.as_slice() {
        [] => Err(
            "must either provide \"file\", \"registry\", or \"config\" for credential spec"
                .to_owned(),
        ),
        [(_, source, _)] => Ok(privileges::CredentialSpec {
            source: Some(source.clone()),
        }),
        [(first, ..), (second, ..)] => Err(format!(
            "cannot specify both {first} and {second} credential specs"
        )),
        [(first, ..), (second, ..), (third, ..), ..] => Err(format!(
            "cannot specify both {first}, {second}, and {third} credential specs"
        )),
    }
}

fn mount(m: &p::Mount) -> t::Mount {
    t::Mount {
        kind: word!(mount::Type, m.r#type),
        source: m.source.clone(),
        target: m.target.clone(),
        read_only: m.readonly,
        consistency: match m.consistency() {
            mount::Consistency::Default => String::new(),
            other => other.as_str_name().to_lowercase(),
        },
        bind_options: m.bind_options.as_ref().map(|bind| t::BindOptions {
            propagation: word!(mount::bind_options::Propagation, bind.propagation),
            non_recursive: bind.nonrecursive,
            create_mountpoint: bind.createmountpoint,
            read_only_non_recursive: bind.readonlynonrecursive,
            read_only_force_recursive: bind.readonlyforcerecursive,
        }),
        volume_options: m.volume_options.as_ref().map(|volume| t::VolumeOptions {
            no_copy: volume.nocopy,
            labels: volume.labels.clone(),
            subpath: volume.subpath.clone(),
            driver_config: volume.driver_config.as_ref().map(driver),
        }),
        tmpfs_options: m.tmpfs_options.as_ref().map(|tmpfs| t::TmpfsOptions {
            size_bytes: tmpfs.size_bytes,
            mode: tmpfs.mode,
            // A list of lists as JSON in a text: moby's way around SwarmKit's type.
            options: serde_json::from_str(&tmpfs.options).unwrap_or_default(),
        }),
    }
}

fn mount_to(m: &t::Mount) -> Result<p::Mount, String> {
    let kind = match m.kind.as_str() {
        "" => 0,
        kind => number!(mount::Type, kind).ok_or_else(|| format!("invalid MountType: {kind:?}"))?,
    };
    Ok(p::Mount {
        r#type: kind,
        source: m.source.clone(),
        target: m.target.clone(),
        readonly: m.read_only,
        consistency: number!(mount::Consistency, m.consistency).unwrap_or_default(),
        bind_options: m.bind_options.as_ref().map(bind_to).transpose()?,
        volume_options: m
            .volume_options
            .as_ref()
            .map(|volume| mount::VolumeOptions {
                nocopy: volume.no_copy,
                labels: volume.labels.clone(),
                driver_config: volume.driver_config.as_ref().map(driver_to),
                subpath: volume.subpath.clone(),
            }),
        tmpfs_options: m.tmpfs_options.as_ref().map(|tmpfs| mount::TmpfsOptions {
            size_bytes: tmpfs.size_bytes,
            mode: tmpfs.mode,
            options: if tmpfs.options.is_empty() {
                String::new()
            } else {
                serde_json::json!(tmpfs.options).to_string()
            },
        }),
    })
}

fn bind_to(bind: &t::BindOptions) -> Result<mount::BindOptions, String> {
    let propagation = match bind.propagation.as_str() {
        "" => 0,
        word => number!(mount::bind_options::Propagation, word)
            .ok_or_else(|| format!("invalid MountPropagation: {word:?}"))?,
    };
    Ok(mount::BindOptions {
        propagation,
        nonrecursive: bind.non_recursive,
        createmountpoint: bind.create_mountpoint,
        readonlynonrecursive: bind.read_only_non_recursive,
        readonlyforcerecursive: bind.read_only_force_recursive,
    })
}

fn file(target: &p::FileTarget) -> t::FileTarget {
    t::FileTarget {
        name: target.name.clone(),
        uid: target.uid.clone(),
        gid: target.gid.clone(),
        mode: target.mode,
    }
}

fn file_to(target: &t::FileTarget) -> p::FileTarget {
    p::FileTarget {
        name: target.name.clone(),
        uid: target.uid.clone(),
        gid: target.gid.clone(),
        mode: target.mode,
    }
}

fn secret_reference(reference: &p::SecretReference) -> Option<t::SecretReference> {
    let Some(secret_reference::Target::File(target)) = &reference.target else {
        tracing::warn!(
            secret.id = reference.secret_id,
            "a secret's target is not a file"
        );
        return None;
    };
    Some(t::SecretReference {
        file: Some(file(target)),
        secret_id: reference.secret_id.clone(),
        secret_name: reference.secret_name.clone(),
    })
}

fn secret_reference_to(reference: &t::SecretReference) -> p::SecretReference {
    p::SecretReference {
        secret_id: reference.secret_id.clone(),
        secret_name: reference.secret_name.clone(),
        target: reference
            .file
            .as_ref()
            .map(file_to)
            .map(secret_reference::Target::File),
    }
}

fn config_reference(reference: &p::ConfigReference) -> Option<t::ConfigReference> {
    let (file, runtime) = match reference.target.as_ref() {
        Some(config_reference::Target::File(target)) => (Some(file(target)), None),
        Some(config_reference::Target::Runtime(_)) => (None, Some(t::Empty {})),
        None => {
            tracing::warn!(
                config.id = reference.config_id,
                "a config has no known target"
            );
            return None;
        }
    };
    Some(t::ConfigReference {
        file,
        runtime,
        config_id: reference.config_id.clone(),
        config_name: reference.config_name.clone(),
    })
}

fn config_reference_to(reference: &t::ConfigReference) -> Result<p::ConfigReference, &'static str> {
    let target = match (&reference.file, &reference.runtime) {
        (None, None) => return Err("either File or Runtime should be set"),
        (Some(_), Some(_)) => return Err("cannot specify both File and Runtime"),
        (Some(target), None) => config_reference::Target::File(file_to(target)),
        (None, Some(_)) => config_reference::Target::Runtime(p::RuntimeTarget {}),
    };
    Ok(p::ConfigReference {
        config_id: reference.config_id.clone(),
        config_name: reference.config_name.clone(),
        target: Some(target),
    })
}
