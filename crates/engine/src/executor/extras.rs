//! What services ask for by skep's own labels, as far as this node allows it.

use bollard_stubs::models as m;
use skep_model::{Task, labels};

/// A privilege that `"swarm-allow"` in daemon.json can grant to services.
pub const GRANTS: [&str; 5] = ["device", "privileged", "shm-size", "pid", "ipc"];

/// Puts it into the container's settings, or says what of it is not allowed.
pub(super) fn apply(
    task: &Task,
    allowed: &[String],
    host: &mut m::HostConfig,
) -> Result<(), String> {
    let given = &task.service_annotations.labels;
    // An older manager or a dockerd's may have let anything pass.
    labels::check(given).map_err(|error| error.to_string())?;
    for (label, grant) in labels::OF_CONTAINER.into_iter().zip(GRANTS) {
        let Some(value) = given.get(label) else {
            continue;
        };
        if label == labels::PRIVILEGED && value == "false" {
            continue;
        }
        if !allowed.iter().any(|allowed| allowed == grant) {
            return Err(format!(
                "service label {label} is not allowed on this node: \"swarm-allow\" in its \
                 daemon.json does not list \"{grant}\""
            ));
        }
        set(label, value, host).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn set(label: &str, value: &str, host: &mut m::HostConfig) -> Result<(), labels::LabelError> {
    match label {
        labels::DEVICE => {
            let devices = labels::devices(value)?.into_iter();
            let mappings = devices.map(|device| m::DeviceMapping {
                path_on_host: Some(device.on_host),
                path_in_container: Some(device.inside),
                cgroup_permissions: Some(device.permissions),
            });
            host.devices = Some(mappings.collect());
        }
        labels::PRIVILEGED => host.privileged = Some(true),
        labels::SHM_SIZE => host.shm_size = Some(labels::shm_size(value)?),
        labels::PID => host.pid_mode = Some(value.to_owned()),
        labels::IPC => host.ipc_mode = Some(value.to_owned()),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn task(label: &str, value: &str) -> Task {
        Task {
            service_annotations: Arc::new(skep_proto::Annotations {
                labels: [(label.to_owned(), value.to_owned())].into(),
                ..Default::default()
            }),
            ..Task::default()
        }
    }

    #[test]
    fn each_label_needs_its_own_grant() {
        let mut host = m::HostConfig::default();
        let error = apply(&task(labels::PID, "host"), &["ipc".to_owned()], &mut host).unwrap_err();
        assert_eq!(
            error,
            "service label skep.pid is not allowed on this node: \"swarm-allow\" in its \
             daemon.json does not list \"pid\""
        );
        assert_eq!(host, m::HostConfig::default());
        apply(&task(labels::PID, "host"), &["pid".to_owned()], &mut host).unwrap();
        assert_eq!(host.pid_mode.as_deref(), Some("host"));
        apply(
            &task(labels::SHM_SIZE, "1m"),
            &["shm-size".to_owned()],
            &mut host,
        )
        .unwrap();
        assert_eq!(host.shm_size, Some(1 << 20));
    }

    #[test]
    fn not_privileged_needs_no_grant() {
        let mut host = m::HostConfig::default();
        apply(&task(labels::PRIVILEGED, "false"), &[], &mut host).unwrap();
        assert_eq!(host.privileged, None);
    }
}
