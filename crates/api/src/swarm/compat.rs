//! What older API versions did not have is taken out of a service's specification, so that a
//! field which happens to have the same name does not mean something new.

use super::types as t;
use crate::version::ApiVersion;

pub(crate) fn adjust(spec: &mut t::ServiceSpec, version: ApiVersion) {
    let task = &mut spec.task_template;
    if let Some(resources) = task.resources.as_mut() {
        if version.before(52) {
            resources.swap_bytes = None;
            resources.memory_swappiness = None;
        }
        if version.before(41)
            && let Some(limits) = resources.limits.as_mut()
        {
            limits.pids = 0;
        }
    }
    if version.before(40)
        && let Some(placement) = task.placement.as_mut()
    {
        placement.max_replicas = 0;
    }
    if let Some(container) = task.container_spec.as_mut() {
        adjust_container(container, version);
    }
    if version.before(41) {
        spec.mode.replicated_job = None;
        spec.mode.global_job = None;
    }
    let legacy = std::mem::take(&mut spec.networks);
    if version.before(44) && task.networks.is_empty() {
        task.networks = legacy;
    }
}

fn adjust_container(container: &mut t::ContainerSpec, version: ApiVersion) {
    if version.before(46) {
        container.oom_score_adj = 0;
        for tmpfs in container
            .mounts
            .iter_mut()
            .filter_map(|mount| mount.tmpfs_options.as_mut())
        {
            tmpfs.options.clear();
        }
    }
    if version.before(44) {
        if let Some(privileges) = container.privileges.as_mut() {
            privileges.seccomp = None;
            privileges.apparmor = None;
            privileges.no_new_privileges = false;
        }
        if let Some(healthcheck) = container.healthcheck.as_mut() {
            healthcheck.start_interval = 0;
        }
    }
    if version.before(41) {
        container.capability_add.clear();
        container.capability_drop.clear();
        container.ulimits.clear();
    }
    if version.before(40) {
        container.sysctls.clear();
        container
            .configs
            .iter_mut()
            .for_each(|config| config.runtime = None);
        if let Some(credential) = container
            .privileges
            .as_mut()
            .and_then(|given| given.credential_spec.as_mut())
        {
            credential.config.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_the_service_count_only_for_old_clients() {
        let network = |target: &str| t::NetworkAttachmentConfig {
            target: target.to_owned(),
            ..Default::default()
        };
        let adjusted = |minor| {
            let mut spec = t::ServiceSpec {
                networks: vec![network("old")],
                ..Default::default()
            };
            adjust(&mut spec, ApiVersion::new(1, minor));
            spec.task_template.networks
        };
        assert_eq!(adjusted(43), [network("old")]);
        assert_eq!(adjusted(44), []);
    }

    #[test]
    fn newer_fields_are_dropped_for_older_clients() {
        let mut spec = t::ServiceSpec {
            mode: t::ServiceMode {
                global_job: Some(t::Empty {}),
                ..Default::default()
            },
            task_template: t::TaskSpec {
                container_spec: Some(t::ContainerSpec {
                    capability_add: vec!["CAP_X".to_owned()],
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        adjust(&mut spec, ApiVersion::new(1, 40));
        assert_eq!(spec.mode, t::ServiceMode::default());
        assert_eq!(
            spec.task_template.container_spec.unwrap().capability_add,
            Vec::<String>::new()
        );
    }
}
