//! What unit tests of several modules need.

use std::collections::BTreeMap;

use bollard_stubs::models as m;

use crate::container::{Record, Security, State};
use crate::time::UnixNanos;

/// A plain container of busybox.
pub(crate) fn record() -> Record {
    Record {
        id: "a".repeat(64),
        name: "web".to_owned(),
        created: UnixNanos(0),
        image_id: "sha256:00".to_owned(),
        config: m::ContainerConfig {
            image: Some("busybox".to_owned()),
            hostname: Some("box".to_owned()),
            cmd: Some(vec!["true".to_owned()]),
            ..Default::default()
        },
        host_config: m::HostConfig {
            network_mode: Some("bridge".to_owned()),
            ipc_mode: Some("private".to_owned()),
            cgroupns_mode: Some(m::HostConfigCgroupnsModeEnum::PRIVATE),
            shm_size: Some(64 << 20),
            ..Default::default()
        },
        networks: BTreeMap::new(),
        links: BTreeMap::new(),
        mounts: BTreeMap::new(),
        security: Security::default(),
        state: State::default(),
        restart_count: 0,
        stopped_by_hand: false,
        ever_started: false,
        task_files: false,
        endpoints: BTreeMap::new(),
    }
}
