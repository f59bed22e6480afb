//! What a service spec must satisfy before it is written, with SwarmKit's words for what does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_model::defaults::duration_from_wire;
use skep_model::ext::ServiceSpecExt as _;
use skep_model::{labels, name};
use skep_proto as proto;
use skep_proto::service_spec::Mode;
use skep_proto::task_spec::Runtime;
use skep_reference::Reference;
use skep_scheduler::constraint;

use crate::error::{Code, ControlError, Result};

const MIN_NANO_CPUS: i64 = 1_000_000;
const MIN_MEMORY: i64 = 4 * 1024 * 1024;
const MIN_HEALTH_DURATION: Duration = Duration::from_millis(1);

pub(super) fn service_spec(spec: &proto::ServiceSpec) -> Result<()> {
    annotations(spec.annotations())?;
    labels::check(&spec.annotations().labels)
        .map_err(|error| ControlError::invalid(error.to_string()))?;
    task_spec(spec.task())?;
    mode(spec)?;
    if is_job(spec) {
        if spec.update.is_some() {
            return Err(ControlError::invalid("Jobs may not have an update config"));
        }
    } else {
        update_config(spec.update.as_ref())?;
        update_config(spec.rollback.as_ref())?;
    }
    endpoint(spec.endpoint.as_ref())
}

pub(super) fn annotations(annotations: &proto::Annotations) -> Result<()> {
    name::validate(&annotations.name).map_err(|error| ControlError::invalid(error.to_string()))
}

pub(super) fn file_annotations(annotations: Option<&proto::Annotations>) -> Result<()> {
    let name = annotations.map_or("", |annotations| &annotations.name);
    name::validate_file(name).map_err(|error| ControlError::invalid(error.to_string()))
}

pub(super) fn is_job(spec: &proto::ServiceSpec) -> bool {
    matches!(spec.mode, Some(Mode::ReplicatedJob(_) | Mode::GlobalJob(_)))
}

fn task_spec(spec: &proto::TaskSpec) -> Result<()> {
    if let Some(requirements) = &spec.resources {
        resources(requirements.limits.as_ref())?;
        resources(requirements.reservations.as_ref())?;
    }
    if let Some(policy) = &spec.restart {
        not_negative(
            policy.delay.as_ref(),
            "TaskSpec: restart-delay cannot be negative",
        )?;
        not_negative(
            policy.window.as_ref(),
            "TaskSpec: restart-window cannot be negative",
        )?;
    }
    if let Some(placement) = &spec.placement {
        constraint::parse(&placement.constraints)
            .map_err(|error| ControlError::new(Code::Unknown, error.to_string()))?;
    }
    if let Some(Runtime::Container(container)) = &spec.runtime {
        secret_references(container)?;
        config_references(container)?;
    }
    match &spec.runtime {
        None => Err(ControlError::invalid("TaskSpec: missing runtime")),
        Some(Runtime::Container(spec)) => container(spec),
        Some(Runtime::Generic(_) | Runtime::Attachment(_)) => Err(ControlError::unimplemented(
            "RuntimeSpec: unimplemented runtime in service spec",
        )),
    }
}

fn resources(resources: Option<&proto::Resources>) -> Result<()> {
    let Some(resources) = resources else {
        return Ok(());
    };
    if resources.nano_cpus != 0 && resources.nano_cpus < MIN_NANO_CPUS {
        return Err(ControlError::invalid(format!(
            "invalid cpu value {}: Must be at least 0.001",
            as_go_prints(resources.nano_cpus as f64 / 1e9)
        )));
    }
    if resources.memory_bytes != 0 && resources.memory_bytes < MIN_MEMORY {
        return Err(ControlError::invalid(format!(
            "invalid memory value {}: Must be at least 4MiB",
            resources.memory_bytes
        )));
    }
    Ok(())
}

/// Go's `%g`: the shortest form, with an exponent of two digits where numbers get small.
fn as_go_prints(number: f64) -> String {
    if number == 0.0 || number.abs() >= 1e-4 {
        return number.to_string();
    }
    let scientific = format!("{number:e}");
    match scientific.split_once("e-") {
        Some((mantissa, exponent)) => format!("{mantissa}e-{exponent:0>2}"),
        None => scientific,
    }
}

fn is_negative(duration: Option<&prost_types::Duration>) -> bool {
    duration.is_some_and(|duration| duration_from_wire(duration).is_none())
}

fn not_negative(duration: Option<&prost_types::Duration>, message: &str) -> Result<()> {
    if is_negative(duration) {
        Err(ControlError::invalid(message))
    } else {
        Ok(())
    }
}

fn update_config(config: Option<&proto::UpdateConfig>) -> Result<()> {
    let Some(config) = config else { return Ok(()) };
    not_negative(
        config.delay.as_ref(),
        "TaskSpec: update-delay cannot be negative",
    )?;
    not_negative(
        config.monitor.as_ref(),
        "TaskSpec: update-monitor cannot be negative",
    )?;
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(ControlError::invalid(
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ));
    }
    Ok(())
}

fn container(spec: &proto::ContainerSpec) -> Result<()> {
    if spec.image.is_empty() {
        return Err(ControlError::invalid(
            "ContainerSpec: image reference must be provided",
        ));
    }
    if Reference::parse(&spec.image).is_err() {
        let message = format!(
            "ContainerSpec: {:?} is not a valid repository/tag",
            spec.image
        );
        return Err(ControlError::invalid(message));
    }
    let mut targets = BTreeSet::new();
    for mount in &spec.mounts {
        if !targets.insert(&mount.target) {
            let message = format!("ContainerSpec: duplicate mount point: {}", mount.target);
            return Err(ControlError::invalid(message));
        }
    }
    spec.healthcheck.as_ref().map_or(Ok(()), healthcheck)
}

fn healthcheck(config: &proto::HealthConfig) -> Result<()> {
    let durations = [
        ("Interval", &config.interval),
        ("Timeout", &config.timeout),
        ("StartPeriod", &config.start_period),
        ("StartInterval", &config.start_interval),
    ];
    for (name, duration) in durations {
        let Some(wire) = duration else { continue };
        let long_enough = duration_from_wire(wire)
            .is_some_and(|duration| duration.is_zero() || duration >= MIN_HEALTH_DURATION);
        if !long_enough {
            let message = format!("ContainerSpec: {name} in HealthConfig cannot be less than 1ms");
            return Err(ControlError::invalid(message));
        }
    }
    if config.retries < 0 {
        let message = "ContainerSpec: Retries in HealthConfig cannot be negative";
        return Err(ControlError::invalid(message));
    }
    Ok(())
}

fn secret_references(container: &proto::ContainerSpec) -> Result<()> {
    let mut files = BTreeMap::new();
    for secret in &container.secrets {
        if secret.secret_id.is_empty() || secret.secret_name.is_empty() {
            return Err(ControlError::invalid("malformed secret reference"));
        }
        let Some(proto::secret_reference::Target::File(file)) = &secret.target else {
            let message = "malformed secret reference, no target provided";
            return Err(ControlError::invalid(message));
        };
        if file.name.is_empty() {
            let message = "malformed file secret reference, invalid target file name provided";
            return Err(ControlError::invalid(message));
        }
        if let Some(other) = files.insert(&file.name, &secret.secret_name) {
            return Err(ControlError::invalid(format!(
                "secret references '{other}' and '{}' have a conflicting target: '{}'",
                secret.secret_name, file.name
            )));
        }
    }
    Ok(())
}

fn config_references(container: &proto::ContainerSpec) -> Result<()> {
    use proto::config_reference::Target;
    let mut files = BTreeMap::new();
    let mut at_runtime = BTreeSet::new();
    for config in &container.configs {
        if config.config_id.is_empty() || config.config_name.is_empty() {
            return Err(ControlError::invalid("malformed config reference"));
        }
        match &config.target {
            None => {
                let message = "malformed config reference, no target provided";
                return Err(ControlError::invalid(message));
            }
            Some(Target::Runtime(_)) => drop(at_runtime.insert(config.config_id.as_str())),
            Some(Target::File(file)) if file.name.is_empty() => {
                let message = "malformed file config reference, invalid target file name provided";
                return Err(ControlError::invalid(message));
            }
            Some(Target::File(file)) => {
                if let Some(other) = files.insert(&file.name, &config.config_name) {
                    return Err(ControlError::invalid(format!(
                        "config references '{other}' and '{}' have a conflicting target: '{}'",
                        config.config_name, file.name
                    )));
                }
            }
        }
    }
    let credentials = container
        .privileges
        .as_ref()
        .and_then(|p| p.credential_spec.as_ref());
    if let Some(proto::privileges::credential_spec::Source::Config(config)) =
        credentials.and_then(|spec| spec.source.as_ref())
        && !config.is_empty()
        && !at_runtime.contains(config.as_str())
    {
        return Err(ControlError::invalid(format!(
            "CredentialSpec references config '{config}', but that config isn't in config \
             references with RuntimeTarget"
        )));
    }
    Ok(())
}

/// Clients that count with signs send a negative number as a huge one.
fn mode(spec: &proto::ServiceSpec) -> Result<()> {
    let negative = |number: u64| i64::try_from(number).is_err();
    match &spec.mode {
        Some(Mode::Replicated(mode)) if negative(mode.replicas) => Err(ControlError::invalid(
            "Number of replicas must be non-negative",
        )),
        Some(Mode::ReplicatedJob(job)) if negative(job.max_concurrent) => Err(
            ControlError::invalid("Maximum concurrent jobs must not be negative"),
        ),
        Some(Mode::ReplicatedJob(job)) if negative(job.total_completions) => Err(
            ControlError::invalid("Total completed jobs must not be negative"),
        ),
        Some(_) => Ok(()),
        None => Err(ControlError::invalid("Unrecognized service mode")),
    }
}

fn endpoint(spec: Option<&proto::EndpointSpec>) -> Result<()> {
    let Some(spec) = spec else { return Ok(()) };
    let round_robin = spec.mode() == proto::endpoint_spec::ResolutionMode::Dnsrr;
    let mut published = BTreeSet::new();
    for port in &spec.ports {
        if round_robin && port.publish_mode() == proto::port_config::PublishMode::Ingress {
            return Err(ControlError::invalid(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        if port.published_port != 0 && !published.insert((port.published_port, port.protocol)) {
            let message = "EndpointSpec: duplicate published ports provided";
            return Err(ControlError::invalid(message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_cpu_values_read_as_in_go() {
        assert_eq!(as_go_prints(0.0005), "0.0005");
        assert_eq!(as_go_prints(1e-9), "1e-09");
        assert_eq!(as_go_prints(-1.5), "-1.5");
    }
}
