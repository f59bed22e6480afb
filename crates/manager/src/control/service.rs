//! Services.

use std::mem::discriminant;
use std::sync::Arc;

use skep_model::ext::{ServiceExt as _, ServiceSpecExt as _};
use skep_model::{NetworkId, ServiceId, TaskState, Version, defaults};
use skep_proto as proto;
use skep_proto::service_spec::Mode;
use skep_proto::task_spec::Runtime;
use skep_proto::update_service_request::Rollback;
use skep_proto::update_status::UpdateState;
use skep_store::{StoreError, View};

use super::filter::{common, contains};
use super::{Control, now, ports, validate};
use crate::error::{Code, ControlError, Result};

impl Control {
    pub async fn create_service(
        &self,
        request: proto::CreateServiceRequest,
    ) -> Result<proto::CreateServiceResponse> {
        let spec = request.spec.ok_or_else(ControlError::incomplete)?;
        validate::service_spec(&spec)?;
        let name = spec.annotations().name.clone();
        let service = proto::Service {
            id: ServiceId::random().into(),
            endpoint: ports::endpoint(&spec),
            spec_version: Some(proto::Version::default()),
            job_status: validate::is_job(&spec).then(|| proto::JobStatus {
                job_iteration: Some(proto::Version::default()),
                last_execution: Some(now()),
            }),
            spec: Some(spec),
            ..proto::Service::default()
        };
        let created = self
            .store
            .update(|tx| {
                check_references(tx, service.spec(), None)?;
                tx.create(service).map_err(|error| match error {
                    StoreError::NameConflict => ControlError::new(
                        Code::AlreadyExists,
                        format!("{error}: service {name} already exists"),
                    ),
                    error => error.into(),
                })
            })
            .await?;
        Ok(proto::CreateServiceResponse {
            service: Some((*created).clone()),
        })
    }

    pub fn get_service(
        &self,
        request: &proto::GetServiceRequest,
    ) -> Result<proto::GetServiceResponse> {
        let id = &request.service_id;
        if id.is_empty() {
            return Err(ControlError::incomplete());
        }
        let snapshot = self.store.snapshot();
        let found = snapshot
            .get::<proto::Service>(id)
            .ok_or_else(|| not_found(id))?;
        let mut service = (**found).clone();
        if request.insert_defaults {
            service.spec = Some(defaults::interpolate_service(service.spec()));
        }
        Ok(proto::GetServiceResponse {
            service: Some(service),
        })
    }

    /// Writes a new spec, or goes back to the one before. What becomes of the tasks is the
    /// orchestrator's to decide.
    pub async fn update_service(
        &self,
        request: proto::UpdateServiceRequest,
    ) -> Result<proto::UpdateServiceResponse> {
        let rollback = request.rollback();
        let version = request
            .service_version
            .filter(|_| !request.service_id.is_empty());
        let version = version.ok_or_else(ControlError::incomplete)?;
        let id = request.service_id;
        let spec = request.spec.ok_or_else(ControlError::incomplete)?;
        validate::service_spec(&spec)?;
        let updated = self
            .store
            .update(|tx| {
                let service = tx
                    .get::<proto::Service>(&id)
                    .ok_or_else(|| not_found(&id))?;
                let mut service = (**service).clone();
                check_change(service.spec(), &spec)?;
                check_references(tx, &spec, Some(&service))?;
                apply_update(&mut service, spec, version, rollback)?;
                ports::check_ingress(tx, service.spec())?;
                tx.update(service).map_err(ControlError::from)
            })
            .await?;
        Ok(proto::UpdateServiceResponse {
            service: Some((*updated).clone()),
        })
    }

    pub async fn remove_service(
        &self,
        request: proto::RemoveServiceRequest,
    ) -> Result<proto::RemoveServiceResponse> {
        let id = request.service_id;
        if id.is_empty() {
            return Err(ControlError::incomplete());
        }
        self.store
            .update(|tx| match tx.delete::<proto::Service>(&id) {
                Ok(_) => Ok(()),
                Err(StoreError::NotExist) => Err(not_found(&id)),
                Err(error) => Err(error.into()),
            })
            .await?;
        Ok(proto::RemoveServiceResponse {})
    }

    pub fn list_services(
        &self,
        request: &proto::ListServicesRequest,
    ) -> proto::ListServicesResponse {
        let filters = request.filters.clone().unwrap_or_default();
        let common = common!(filters);
        let matches = |service: &&Arc<proto::Service>| {
            let spec = service.spec();
            let annotations = spec.annotations();
            common.holds(&service.id, &annotations.name, &annotations.labels)
                && has_runtime(&filters.runtimes, spec.task())
        };
        let snapshot = self.store.snapshot();
        let services = snapshot
            .services()
            .filter(matches)
            .map(|s| (**s).clone())
            .collect();
        proto::ListServicesResponse { services }
    }

    /// Running and desired tasks of each service asked for. Unknown services have none.
    pub fn list_service_statuses(
        &self,
        request: &proto::ListServiceStatusesRequest,
    ) -> proto::ListServiceStatusesResponse {
        let snapshot = self.store.snapshot();
        let statuses = request
            .services
            .iter()
            .map(|id| status(&snapshot, id))
            .collect();
        proto::ListServiceStatusesResponse { statuses }
    }
}

fn not_found(id: &str) -> ControlError {
    ControlError::not_found(format!("service {id} not found"))
}

/// What an update may not change.
fn check_change(old: &proto::ServiceSpec, new: &proto::ServiceSpec) -> Result<()> {
    if new.networks != old.networks && new.task().networks == old.task().networks {
        return Err(ControlError::unimplemented(
            "networks must be migrated to TaskSpec before being changed",
        ));
    }
    if old.mode.as_ref().map(discriminant) != new.mode.as_ref().map(discriminant) {
        return Err(ControlError::unimplemented(
            "service mode change is not allowed",
        ));
    }
    if old.annotations().name != new.annotations().name {
        return Err(ControlError::unimplemented(
            "renaming services is not supported",
        ));
    }
    Ok(())
}

/// Everything that the spec names must be there.
fn check_references(
    view: &View,
    spec: &proto::ServiceSpec,
    updated: Option<&proto::Service>,
) -> Result<()> {
    for attachment in spec.task().networks.iter().chain(&spec.networks) {
        let target = &attachment.target;
        let network = view.network(&NetworkId::from(target.as_str()));
        let network = network
            .ok_or_else(|| ControlError::not_found(format!("network {target} not found")))?;
        if ports::is_ingress(network) {
            return Err(ControlError::invalid(format!(
                "Service cannot be explicitly attached to the ingress network {:?}",
                skep_model::StoreObject::name(&**network)
            )));
        }
    }
    if updated.is_none_or(|service| service.spec().endpoint != spec.endpoint) {
        ports::check_conflicts(view, spec, updated.map(|service| service.id.as_str()))?;
    }
    if updated.is_none() {
        ports::check_ingress(view, spec)?;
    }
    let Some(Runtime::Container(container)) = &spec.task().runtime else {
        return Ok(());
    };
    let missing_secrets = container.secrets.iter().filter(|reference| {
        let secret = view.get::<proto::Secret>(&reference.secret_id);
        secret.map(|secret| skep_model::StoreObject::name(&**secret))
            != Some(&*reference.secret_name)
    });
    all_found(
        "secret",
        missing_secrets.map(|reference| reference.secret_name.as_str()),
    )?;
    let missing_configs = container.configs.iter().filter(|reference| {
        let config = view.get::<proto::Config>(&reference.config_id);
        config.map(|config| skep_model::StoreObject::name(&**config))
            != Some(&*reference.config_name)
    });
    all_found(
        "config",
        missing_configs.map(|reference| reference.config_name.as_str()),
    )
}

fn all_found<'a>(what: &str, missing: impl Iterator<Item = &'a str>) -> Result<()> {
    let missing: Vec<&str> = missing.collect();
    let plural = if missing.len() == 1 { "" } else { "s" };
    match missing.as_slice() {
        [] => Ok(()),
        names => {
            let message = format!("{what}{plural} not found: {}", names.join(", "));
            Err(ControlError::invalid(message))
        }
    }
}

fn apply_update(
    service: &mut proto::Service,
    spec: proto::ServiceSpec,
    version: proto::Version,
    rollback: Rollback,
) -> Result<()> {
    let mut meta = service.meta.unwrap_or_default();
    meta.version = Some(version);
    service.meta = Some(meta);
    if let Some(job) = &mut service.job_status {
        job.job_iteration.get_or_insert_default().index += 1;
        job.last_execution = Some(now());
    }
    let old_spec = service.spec.take();
    let old_version = service.spec_version.take();
    if rollback == Rollback::Previous {
        let Some(previous) = service.previous_spec.take() else {
            let message = format!("service {} does not have a previous spec", service.id);
            return Err(ControlError::precondition(message));
        };
        service.spec = Some(previous);
        service.spec_version = service.previous_spec_version.take();
        service.update_status = Some(proto::UpdateStatus {
            state: UpdateState::RollbackStarted.into(),
            message: "manually requested rollback".to_owned(),
            started_at: Some(now()),
            completed_at: None,
        });
    } else {
        service.spec = Some(spec);
        // The version that the update was based on; it need only differ from all earlier ones.
        service.spec_version = Some(version);
        service.update_status = None;
    }
    // What is allocated stays until the allocator changes it.
    if !skep_allocator::needs_networks(service.spec()) {
        service.endpoint = ports::endpoint(service.spec());
    }
    service.previous_spec = old_spec;
    service.previous_spec_version = old_version;
    Ok(())
}

/// The runtime's name, as filters use it.
pub(super) fn has_runtime(wanted: &[String], spec: &proto::TaskSpec) -> bool {
    let name = match &spec.runtime {
        Some(Runtime::Attachment(_)) => "attachment".to_owned(),
        Some(Runtime::Container(_)) => "container".to_owned(),
        Some(Runtime::Generic(generic)) => generic.kind.to_lowercase(),
        None => return wanted.is_empty(),
    };
    contains(wanted, &name)
}

fn status(view: &View, id: &str) -> proto::list_service_statuses_response::ServiceStatus {
    let mut status = proto::list_service_statuses_response::ServiceStatus {
        service_id: id.to_owned(),
        ..Default::default()
    };
    let service = view.get::<proto::Service>(id);
    let mode = service.and_then(|service| service.spec().mode.as_ref());
    let by_node = matches!(mode, Some(Mode::Global(_) | Mode::GlobalJob(_)));
    status.desired_tasks = match mode {
        Some(Mode::Replicated(mode)) => mode.replicas,
        Some(Mode::ReplicatedJob(job)) => job.max_concurrent,
        _ => 0,
    };
    let job = service.and_then(|service| service.job_status.as_ref());
    let iteration = job.map(|job| job.job_iteration.map(Version::from).unwrap_or_default());
    for task in view.tasks_of_service(&ServiceId::from(id)) {
        // Earlier iterations of a job do not count.
        if iteration.is_some() && task.job_iteration != iteration {
            continue;
        }
        let state = task.status.state;
        let completed = state == TaskState::Complete;
        status.completed_tasks += u64::from(iteration.is_some() && completed);
        status.running_tasks += u64::from(state == TaskState::Running);
        let desired = task.desired_state == TaskState::Running
            || (task.desired_state == TaskState::Complete && !completed);
        status.desired_tasks += u64::from(by_node && desired);
    }
    status
}
