//! `docker update`.

use std::sync::Arc;

use bollard_stubs::models as m;

use crate::create::{resources, validate};
use crate::engine::{Engine, to_its_end};
use crate::error::{EngineError, Result};
use crate::oci;
use crate::restart;

impl Engine {
    /// Changes limits and the restart policy, of a running container too.
    pub async fn update_container(
        self: &Arc<Self>,
        id: &str,
        update: m::ContainerUpdateBody,
    ) -> Result<m::ContainerUpdateResponse> {
        let container = self.containers.get(id)?;
        let policy = update.restart_policy.clone();
        let mut change = as_host_config(update);
        validate::check_restart_policy(&policy.clone().unwrap_or_default())?;
        let warnings = resources::check(&mut change, &self.facts, true)?;
        let engine = self.clone();
        to_its_end(async move {
            let context = |error: EngineError| {
                error.context(format!("Cannot update container {}", container.id))
            };
            let _operation = container.operation.lock().await;
            let before = {
                let mut record = container.record();
                if record.state.removing || record.state.phase == crate::container::Phase::Dead {
                    return Err(context(EngineError::conflict(
                        "container is marked for removal and cannot be \"update\"",
                    )));
                }
                let before = record.host_config.clone();
                apply(&mut record.host_config, &change, policy.as_ref()).map_err(context)?;
                before
            };
            let live = async {
                if let Ok(shim) = container.shim() {
                    let limits = oci::resources::resources(&change)?;
                    shim.update(&limits).await?;
                }
                container.save()
            };
            if let Err(error) = live.await {
                container.record().host_config = before;
                return Err(context(error));
            }
            engine.container_event(&container, "update");
            Ok(())
        })
        .await?;
        Ok(m::ContainerUpdateResponse {
            warnings: Some(warnings),
        })
    }
}

fn as_host_config(update: m::ContainerUpdateBody) -> m::HostConfig {
    m::HostConfig {
        cpu_shares: update.cpu_shares,
        memory: update.memory,
        blkio_weight: update.blkio_weight,
        blkio_weight_device: update.blkio_weight_device,
        blkio_device_read_bps: update.blkio_device_read_bps,
        blkio_device_write_bps: update.blkio_device_write_bps,
        blkio_device_read_iops: update.blkio_device_read_iops,
        blkio_device_write_iops: update.blkio_device_write_iops,
        cpu_period: update.cpu_period,
        cpu_quota: update.cpu_quota,
        cpuset_cpus: update.cpuset_cpus,
        cpuset_mems: update.cpuset_mems,
        memory_reservation: update.memory_reservation,
        memory_swap: update.memory_swap,
        nano_cpus: update.nano_cpus,
        pids_limit: update.pids_limit,
        ..Default::default()
    }
}

fn apply(
    host: &mut m::HostConfig,
    change: &m::HostConfig,
    policy: Option<&m::RestartPolicy>,
) -> Result<()> {
    let set = |value: Option<i64>| value.unwrap_or(0) > 0;
    for (conflict, text) in [
        (
            set(change.nano_cpus) && set(host.cpu_period),
            "Nano CPUs cannot be updated as CPU Period has already been set",
        ),
        (
            set(change.nano_cpus) && set(host.cpu_quota),
            "Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            set(change.cpu_period) && set(host.nano_cpus),
            "CPU Period cannot be updated as NanoCPUs has already been set",
        ),
        (
            set(change.cpu_quota) && set(host.nano_cpus),
            "CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
    ] {
        if conflict {
            return Err(EngineError::conflict(format!(
                "Conflicting options: {text}"
            )));
        }
    }
    let (memory, swap) = (change.memory.unwrap_or(0), change.memory_swap.unwrap_or(0));
    if memory != 0
        && swap == 0
        && host
            .memory_swap
            .is_some_and(|have| have > 0 && memory > have)
    {
        return Err(EngineError::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    let policy = policy
        .filter(|policy| !matches!(policy.name, None | Some(m::RestartPolicyNameEnum::EMPTY)));
    if host.auto_remove == Some(true) && restart::restarts(policy) {
        return Err(EngineError::conflict(
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ));
    }
    fn number(own: &mut Option<i64>, new: Option<i64>) {
        if new.unwrap_or(0) != 0 {
            *own = new;
        }
    }
    number(&mut host.cpu_shares, change.cpu_shares);
    number(&mut host.nano_cpus, change.nano_cpus);
    number(&mut host.cpu_period, change.cpu_period);
    number(&mut host.cpu_quota, change.cpu_quota);
    number(&mut host.memory, change.memory);
    number(&mut host.memory_swap, change.memory_swap);
    number(&mut host.memory_reservation, change.memory_reservation);
    if change.pids_limit.is_some() {
        host.pids_limit = change.pids_limit;
    }
    if change.blkio_weight.unwrap_or(0) != 0 {
        host.blkio_weight = change.blkio_weight;
    }
    for (own, new) in [
        (&mut host.cpuset_cpus, &change.cpuset_cpus),
        (&mut host.cpuset_mems, &change.cpuset_mems),
    ] {
        if new.as_ref().is_some_and(|new| !new.is_empty()) {
            own.clone_from(new);
        }
    }
    macro_rules! take {
        ($($field:ident),*) => {$(
            if change.$field.is_some() {
                host.$field.clone_from(&change.$field);
            }
        )*};
    }
    take!(
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops
    );
    if let Some(policy) = policy {
        host.restart_policy = Some(policy.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_zero_stays() {
        let mut host = m::HostConfig {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            ..Default::default()
        };
        let change = m::HostConfig {
            memory: Some(0),
            cpu_shares: Some(512),
            ..Default::default()
        };
        apply(&mut host, &change, None).unwrap();
        assert_eq!((host.memory, host.cpu_shares), (Some(64 << 20), Some(512)));
    }

    #[test]
    fn conflicts_are_dockers() {
        let mut host = m::HostConfig {
            memory_swap: Some(64 << 20),
            cpu_period: Some(5000),
            ..Default::default()
        };
        let change = m::HostConfig {
            memory: Some(128 << 20),
            ..Default::default()
        };
        assert!(
            apply(&mut host, &change, None)
                .unwrap_err()
                .message
                .starts_with("Memory limit should be smaller")
        );
        let change = m::HostConfig {
            nano_cpus: Some(1),
            ..Default::default()
        };
        assert_eq!(
            apply(&mut host, &change, None).unwrap_err().message,
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"
        );
    }
}
