//! Services and their specifications.

use skep_proto::{self as p, service_spec, task_spec, update_config, update_status};

use super::super::types as t;
use super::{
    annotations, date, date_if_set, duration, endpoint, endpoint_spec, endpoint_spec_to, meta,
    names, nanos, network_config, task_spec, task_spec_to, version,
};

/// To JSON's form; the error is about objects that no Docker client could have made.
pub(crate) fn service(service: &p::Service) -> Result<t::Service, String> {
    let spec = service.spec.as_ref().map(service_spec).transpose()?;
    Ok(t::Service {
        id: service.id.clone(),
        meta: meta(service.meta.as_ref()),
        spec: spec.unwrap_or_default(),
        previous_spec: service
            .previous_spec
            .as_ref()
            .map(service_spec)
            .transpose()?,
        endpoint: service.endpoint.as_ref().map(endpoint).unwrap_or_default(),
        update_status: service.update_status.as_ref().map(status),
        service_status: None,
        job_status: service.job_status.as_ref().map(|status| t::JobStatus {
            job_iteration: version(status.job_iteration.as_ref()),
            last_execution: date(status.last_execution),
        }),
    })
}

fn status(status: &p::UpdateStatus) -> t::UpdateStatus {
    use update_status::UpdateState;
    t::UpdateStatus {
        state: match status.state() {
            UpdateState::Unknown => "",
            UpdateState::Updating => "updating",
            UpdateState::Paused => "paused",
            UpdateState::Completed => "completed",
            UpdateState::RollbackStarted => "rollback_started",
            UpdateState::RollbackPaused => "rollback_paused",
            UpdateState::RollbackCompleted => "rollback_completed",
        },
        started_at: date_if_set(status.started_at),
        completed_at: date_if_set(status.completed_at),
        message: status.message.clone(),
    }
}

/// To JSON's form.
pub(crate) fn service_spec(spec: &p::ServiceSpec) -> Result<t::ServiceSpec, String> {
    let empty = p::TaskSpec::default();
    let task = spec.task.as_ref().unwrap_or(&empty);
    let mut task_template = task_spec(task);
    if task_template.networks.is_empty() {
        task_template.networks = spec.networks.iter().map(network_config).collect();
    }
    task_template.runtime = match &task.runtime {
        Some(task_spec::Runtime::Container(_)) => "container".to_owned(),
        Some(task_spec::Runtime::Generic(generic)) if generic.kind == "plugin" => {
            generic.kind.clone()
        }
        Some(task_spec::Runtime::Generic(generic)) => {
            let url = generic
                .payload
                .as_ref()
                .map_or("", |payload| &payload.type_url);
            return Err(format!("unknown task runtime type: {url}"));
        }
        Some(task_spec::Runtime::Attachment(_)) | None => {
            return Err("error creating service; unsupported runtime".to_owned());
        }
    };
    let (name, labels) = names(spec.annotations.as_ref());
    Ok(t::ServiceSpec {
        name,
        labels,
        task_template,
        mode: mode(spec.mode.as_ref()),
        update_config: spec.update.as_ref().map(update),
        rollback_config: spec.rollback.as_ref().map(update),
        endpoint_spec: spec.endpoint.as_ref().map(endpoint_spec),
        networks: Vec::new(),
    })
}

/// To SwarmKit's form. A service without a name must have been given one by now.
pub(crate) fn service_spec_to(spec: &t::ServiceSpec) -> Result<p::ServiceSpec, String> {
    Ok(p::ServiceSpec {
        annotations: Some(annotations(&spec.name, &spec.labels)),
        task: Some(task_spec_to(&spec.task_template)?),
        update: spec.update_config.as_ref().map(update_to).transpose()?,
        rollback: spec.rollback_config.as_ref().map(update_to).transpose()?,
        networks: Vec::new(),
        endpoint: spec
            .endpoint_spec
            .as_ref()
            .map(endpoint_spec_to)
            .transpose()?,
        mode: Some(mode_to(&spec.mode)?),
    })
}

fn mode(mode: Option<&service_spec::Mode>) -> t::ServiceMode {
    let mut given = t::ServiceMode::default();
    match mode {
        Some(service_spec::Mode::Replicated(replicated)) => {
            given.replicated = Some(t::ReplicatedService {
                replicas: Some(replicated.replicas),
            });
        }
        Some(service_spec::Mode::Global(_)) => given.global = Some(t::Empty {}),
        Some(service_spec::Mode::ReplicatedJob(job)) => {
            given.replicated_job = Some(t::ReplicatedJob {
                max_concurrent: Some(job.max_concurrent),
                total_completions: Some(job.total_completions),
            });
        }
        Some(service_spec::Mode::GlobalJob(_)) => given.global_job = Some(t::Empty {}),
        None => {}
    }
    given
}

fn mode_to(mode: &t::ServiceMode) -> Result<service_spec::Mode, String> {
    let given = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return Err("must specify only one service mode".to_owned());
    }
    Ok(if mode.global.is_some() {
        service_spec::Mode::Global(p::GlobalService {})
    } else if mode.global_job.is_some() {
        service_spec::Mode::GlobalJob(p::GlobalJob {})
    } else if let Some(job) = &mode.replicated_job {
        let max_concurrent = job.max_concurrent.unwrap_or(1);
        let total_completions = job.total_completions.unwrap_or(max_concurrent);
        service_spec::Mode::ReplicatedJob(p::ReplicatedJob {
            max_concurrent,
            total_completions,
        })
    } else {
        let replicas = mode
            .replicated
            .as_ref()
            .and_then(|replicated| replicated.replicas)
            .unwrap_or(1);
        service_spec::Mode::Replicated(p::ReplicatedService { replicas })
    })
}

fn update(config: &p::UpdateConfig) -> t::UpdateConfig {
    t::UpdateConfig {
        parallelism: config.parallelism,
        delay: config.delay.map_or(0, nanos),
        failure_action: match config.failure_action() {
            update_config::FailureAction::Pause => "pause",
            update_config::FailureAction::Continue => "continue",
            update_config::FailureAction::Rollback => "rollback",
        }
        .to_owned(),
        monitor: config.monitor.map_or(0, nanos),
        max_failure_ratio: config.max_failure_ratio,
        order: match config.order() {
            update_config::UpdateOrder::StopFirst => "stop-first",
            update_config::UpdateOrder::StartFirst => "start-first",
        }
        .to_owned(),
    }
}

fn update_to(config: &t::UpdateConfig) -> Result<p::UpdateConfig, String> {
    let failure_action = match config.failure_action.as_str() {
        "" | "pause" => update_config::FailureAction::Pause,
        "continue" => update_config::FailureAction::Continue,
        "rollback" => update_config::FailureAction::Rollback,
        other => return Err(format!("unrecognized update failure action {other}")),
    };
    let order = match config.order.as_str() {
        "" | "stop-first" => update_config::UpdateOrder::StopFirst,
        "start-first" => update_config::UpdateOrder::StartFirst,
        other => return Err(format!("unrecognized update order {other}")),
    };
    Ok(p::UpdateConfig {
        parallelism: config.parallelism,
        delay: Some(duration(config.delay)),
        failure_action: failure_action.into(),
        monitor: (config.monitor != 0).then(|| duration(config.monitor)),
        max_failure_ratio: config.max_failure_ratio,
        order: order.into(),
    })
}
