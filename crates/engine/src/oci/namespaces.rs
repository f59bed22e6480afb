//! Whose namespaces a container lives in.

use std::path::PathBuf;

use bollard_stubs::models as m;
use skep_runtime::oci_spec::runtime::LinuxNamespaceType;
use skep_runtime::spec::{ContainerSpec, Namespace};

/// The other containers' namespaces that this one joins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Joined {
    pub(crate) network: Option<PathBuf>,
    pub(crate) ipc: Option<PathBuf>,
    pub(crate) pid: Option<PathBuf>,
}

/// Chooses each namespace.
pub(super) fn choose(spec: ContainerSpec, host: &m::HostConfig, joined: &Joined) -> ContainerSpec {
    let pick = |mode: Option<&str>, path: &Option<PathBuf>| match (path, mode) {
        (Some(path), _) => Namespace::Path(path.clone()),
        (None, Some("host")) => Namespace::Host,
        _ => Namespace::Private,
    };
    let cgroup = match host.cgroupns_mode {
        Some(m::HostConfigCgroupnsModeEnum::HOST) => Namespace::Host,
        _ => Namespace::Private,
    };
    spec.namespace(
        LinuxNamespaceType::Network,
        pick(host.network_mode.as_deref(), &joined.network),
    )
    .namespace(
        LinuxNamespaceType::Ipc,
        pick(host.ipc_mode.as_deref(), &joined.ipc),
    )
    .namespace(
        LinuxNamespaceType::Pid,
        pick(host.pid_mode.as_deref(), &joined.pid),
    )
    .namespace(
        LinuxNamespaceType::Uts,
        pick(host.uts_mode.as_deref(), &None),
    )
    .namespace(LinuxNamespaceType::Cgroup, cgroup)
}
