//! Tasks and their specifications.

use skep_proto::{
    self as p, generic_resource, placement_preference, restart_policy, task_spec, task_status,
};

use super::super::types as t;
use super::{
    container_spec, container_spec_to, date, driver, driver_to, duration, meta, names, nanos,
    network_attachment, network_config, network_config_to, port, version, word,
};

pub(crate) fn task(task: &p::Task) -> t::Task {
    let (name, labels) = names(task.annotations.as_ref());
    let spec = task.spec.as_ref().map(task_spec).unwrap_or_default();
    t::Task {
        id: task.id.clone(),
        meta: meta(task.meta.as_ref()),
        name,
        labels,
        spec,
        service_id: task.service_id.clone(),
        slot: task.slot,
        node_id: task.node_id.clone(),
        status: status(task.status.as_ref().unwrap_or(&p::TaskStatus::default())),
        desired_state: word!(p::TaskState, task.desired_state),
        networks_attachments: task.networks.iter().map(network_attachment).collect(),
        generic_resources: generic_resources(&task.assigned_generic_resources),
        job_iteration: task
            .job_iteration
            .as_ref()
            .map(|iteration| version(Some(iteration))),
        volumes: (!task.volumes.is_empty()).then(|| {
            let attachment = |volume: &p::VolumeAttachment| t::VolumeAttachment {
                id: volume.id.clone(),
                source: volume.source.clone(),
                target: volume.target.clone(),
            };
            task.volumes.iter().map(attachment).collect()
        }),
    }
}

fn status(status: &p::TaskStatus) -> t::TaskStatus {
    let container = status
        .runtime_status
        .as_ref()
        .map(|task_status::RuntimeStatus::Container(status)| status);
    t::TaskStatus {
        timestamp: date(status.timestamp),
        state: word!(p::TaskState, status.state),
        message: status.message.clone(),
        err: status.err.clone(),
        container_status: container.map(|container| t::ContainerStatus {
            container_id: container.container_id.clone(),
            pid: container.pid,
            exit_code: container.exit_code,
        }),
        port_status: t::PortStatus {
            ports: status
                .port_status
                .iter()
                .flat_map(|status| &status.ports)
                .map(port)
                .collect(),
        },
    }
}

/// To JSON's form. A runtime that is not a container leaves its part out.
pub(crate) fn task_spec(spec: &p::TaskSpec) -> t::TaskSpec {
    let mut task = t::TaskSpec {
        resources: resources(spec),
        restart_policy: spec.restart.as_ref().map(restart),
        placement: spec.placement.as_ref().map(placement),
        networks: spec.networks.iter().map(network_config).collect(),
        log_driver: spec.log_driver.as_ref().map(driver),
        force_update: spec.force_update,
        ..t::TaskSpec::default()
    };
    match &spec.runtime {
        Some(task_spec::Runtime::Container(container)) => {
            task.container_spec = Some(container_spec(container));
        }
        Some(task_spec::Runtime::Attachment(attachment)) => {
            task.network_attachment_spec = Some(t::NetworkAttachmentSpec {
                container_id: attachment.container_id.clone(),
            });
            "attachment".clone_into(&mut task.runtime);
        }
        Some(task_spec::Runtime::Generic(generic)) => task.runtime.clone_from(&generic.kind),
        None => {}
    }
    task
}

/// To SwarmKit's form.
pub(crate) fn task_spec_to(task: &t::TaskSpec) -> Result<p::TaskSpec, String> {
    let resources = task.resources.as_ref().map(resources_to).transpose()?;
    let runtime = match (task.runtime.as_str(), &task.container_spec) {
        ("" | "container", Some(container)) => {
            let mut container = container_spec_to(container)?;
            container.pids_limit = task
                .resources
                .as_ref()
                .and_then(|resources| resources.limits.as_ref())
                .map_or(0, |limits| limits.pids);
            task_spec::Runtime::Container(container)
        }
        ("" | "container", None) => return Err("mismatched Runtime and *Spec fields".to_owned()),
        ("plugin", _) => {
            return Err("runtime type \"plugin\" only supported in experimental".to_owned());
        }
        _ => return Err("unsupported runtime".to_owned()),
    };
    Ok(p::TaskSpec {
        runtime: Some(runtime),
        resources,
        restart: task.restart_policy.as_ref().map(restart_to).transpose()?,
        placement: task.placement.as_ref().map(placement_to),
        log_driver: task.log_driver.as_ref().map(driver_to),
        networks: task.networks.iter().map(network_config_to).collect(),
        force_update: task.force_update,
        resource_references: Vec::new(),
    })
}

fn resources(spec: &p::TaskSpec) -> Option<t::ResourceRequirements> {
    let pids = match &spec.runtime {
        Some(task_spec::Runtime::Container(container)) => container.pids_limit,
        _ => 0,
    };
    let given = spec.resources.as_ref();
    if given.is_none() && pids == 0 {
        return None;
    }
    let limits = given.and_then(|resources| resources.limits.as_ref());
    Some(t::ResourceRequirements {
        limits: (limits.is_some() || pids != 0).then(|| t::Limit {
            nano_cpus: limits.map_or(0, |limits| limits.nano_cpus),
            memory_bytes: limits.map_or(0, |limits| limits.memory_bytes),
            pids,
        }),
        reservations: given
            .and_then(|resources| resources.reservations.as_ref())
            .map(node_resources),
        swap_bytes: given.and_then(|resources| resources.swap_bytes),
        memory_swappiness: given.and_then(|resources| resources.memory_swappiness),
    })
}

/// Reserved by a task, or had by a node.
pub(crate) fn node_resources(resources: &p::Resources) -> t::Resources {
    t::Resources {
        nano_cpus: resources.nano_cpus,
        memory_bytes: resources.memory_bytes,
        generic_resources: generic_resources(&resources.generic),
    }
}

fn resources_to(resources: &t::ResourceRequirements) -> Result<p::ResourceRequirements, String> {
    let limits = resources.limits.as_ref().map(|limits| p::Resources {
        nano_cpus: limits.nano_cpus,
        memory_bytes: limits.memory_bytes,
        generic: Vec::new(),
    });
    if resources.swap_bytes.is_some()
        && limits
            .as_ref()
            .is_none_or(|limits| limits.memory_bytes == 0)
    {
        return Err("memory swap provided, but no memory-limit was set".to_owned());
    }
    Ok(p::ResourceRequirements {
        limits,
        reservations: resources
            .reservations
            .as_ref()
            .map(|reserved| p::Resources {
                nano_cpus: reserved.nano_cpus,
                memory_bytes: reserved.memory_bytes,
                generic: reserved
                    .generic_resources
                    .iter()
                    .map(generic_resource_to)
                    .collect(),
            }),
        swap_bytes: resources.swap_bytes,
        memory_swappiness: resources.memory_swappiness,
    })
}

pub(crate) fn generic_resources(resources: &[p::GenericResource]) -> Vec<t::GenericResource> {
    let convert = |resource: &p::GenericResource| match &resource.resource {
        Some(generic_resource::Resource::NamedResourceSpec(named)) => t::GenericResource {
            named_resource_spec: Some(t::NamedResource {
                kind: named.kind.clone(),
                value: named.value.clone(),
            }),
            discrete_resource_spec: None,
        },
        Some(generic_resource::Resource::DiscreteResourceSpec(discrete)) => t::GenericResource {
            named_resource_spec: None,
            discrete_resource_spec: Some(t::DiscreteResource {
                kind: discrete.kind.clone(),
                value: discrete.value,
            }),
        },
        None => t::GenericResource::default(),
    };
    resources.iter().map(convert).collect()
}

fn generic_resource_to(resource: &t::GenericResource) -> p::GenericResource {
    let discrete = resource.discrete_resource_spec.as_ref().map(|discrete| {
        generic_resource::Resource::DiscreteResourceSpec(p::DiscreteGenericResource {
            kind: discrete.kind.clone(),
            value: discrete.value,
        })
    });
    let named = || {
        resource.named_resource_spec.as_ref().map(|named| {
            generic_resource::Resource::NamedResourceSpec(p::NamedGenericResource {
                kind: named.kind.clone(),
                value: named.value.clone(),
            })
        })
    };
    p::GenericResource {
        resource: discrete.or_else(named),
    }
}

fn restart(policy: &p::RestartPolicy) -> t::RestartPolicy {
    t::RestartPolicy {
        condition: match policy.condition() {
            restart_policy::RestartCondition::None => "none",
            restart_policy::RestartCondition::OnFailure => "on-failure",
            restart_policy::RestartCondition::Any => "any",
        }
        .to_owned(),
        delay: policy.delay.map(nanos),
        max_attempts: Some(policy.max_attempts),
        window: policy.window.map(nanos),
    }
}

fn restart_to(policy: &t::RestartPolicy) -> Result<p::RestartPolicy, String> {
    let condition = match policy.condition.as_str() {
        "none" => restart_policy::RestartCondition::None,
        "on-failure" => restart_policy::RestartCondition::OnFailure,
        "" | "any" => restart_policy::RestartCondition::Any,
        other => return Err(format!("invalid RestartCondition: {other:?}")),
    };
    Ok(p::RestartPolicy {
        condition: condition.into(),
        delay: policy.delay.map(duration),
        max_attempts: policy.max_attempts.unwrap_or_default(),
        window: policy.window.map(duration),
    })
}

fn placement(placement: &p::Placement) -> t::Placement {
    t::Placement {
        constraints: placement.constraints.clone(),
        preferences: placement
            .preferences
            .iter()
            .filter_map(|preference| preference.preference.as_ref())
            .map(
                |placement_preference::Preference::Spread(spread)| t::PlacementPreference {
                    spread: Some(t::SpreadOver {
                        spread_descriptor: spread.spread_descriptor.clone(),
                    }),
                },
            )
            .collect(),
        max_replicas: placement.max_replicas,
        platforms: placement
            .platforms
            .iter()
            .map(|platform| t::Platform {
                architecture: platform.architecture.clone(),
                os: platform.os.clone(),
            })
            .collect(),
    }
}

fn placement_to(placement: &t::Placement) -> p::Placement {
    p::Placement {
        constraints: placement.constraints.clone(),
        preferences: placement
            .preferences
            .iter()
            .filter_map(|preference| preference.spread.as_ref())
            .map(|spread| p::PlacementPreference {
                preference: Some(placement_preference::Preference::Spread(p::SpreadOver {
                    spread_descriptor: spread.spread_descriptor.clone(),
                })),
            })
            .collect(),
        platforms: placement
            .platforms
            .iter()
            .map(|platform| p::Platform {
                architecture: platform.architecture.clone(),
                os: platform.os.clone(),
            })
            .collect(),
        max_replicas: placement.max_replicas,
    }
}
