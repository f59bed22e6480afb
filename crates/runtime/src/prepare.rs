//! From what the engine asks to what the shim reads: files in the bundle and a call.

mod cgroup_mounts;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::cgroup::{CgroupVersion, devices, host_version};
use crate::error::RuntimeError;
use crate::handle::ShimInner;
use crate::protocol::{CapabilityMasks, CreateCall, ExecCall, Security};
use crate::request::{AttachRequest, CreateRequest, ExecRequest, RuntimeKind};
use crate::seccomp::ProgramCache;
use crate::spec::capability_mask;

const EXEC_DEFAULTS_FILE: &str = "exec-defaults.json";

/// What every exec inherits from its container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ExecDefaults {
    /// The container's compiled filter.
    pub seccomp: Option<PathBuf>,
}

/// Writes `config.json` and what belongs to it, and makes the call.
pub(crate) fn container(
    programs: &ProgramCache,
    directory: &Path,
    request: CreateRequest,
) -> Result<(CreateCall, ExecDefaults), RuntimeError> {
    let CreateRequest {
        id,
        bundle,
        mut spec,
        stdio,
        log,
        runtime,
        seccomp,
        systemd_cgroup,
    } = request;
    complete(&mut spec, &id, stdio.tty);
    let process = spec
        .process()
        .clone()
        .ok_or_else(|| RuntimeError::Refused("the spec has no process".to_owned()))?;
    let cgroup_name = cgroup_name(&spec, systemd_cgroup);
    let bounding = capability_mask(
        process
            .capabilities()
            .as_ref()
            .and_then(|c| c.bounding().as_ref()),
    );
    let mut security = Security::default();
    match &runtime {
        RuntimeKind::Builtin => {
            refuse_unsupported(&spec)?;
            security.seccomp = programs.program(&seccomp, bounding)?;
            if host_version() == CgroupVersion::V1 {
                cgroup_mounts::replace(&mut spec, systemd_cgroup)?;
            }
            let mut adapted = process.clone();
            if security.seccomp.is_some() && process.no_new_privileges() != Some(true) {
                security.capabilities = lend_sys_admin(&mut adapted);
            }
            spec.set_process(Some(adapted));
            if let Some(linux) = spec.linux_mut() {
                linux.set_seccomp(None);
            }
        }
        RuntimeKind::Oci { .. } => {
            let resolved = seccomp.to_oci(bounding)?;
            if let Some(linux) = spec.linux_mut() {
                linux.set_seccomp(resolved);
            }
        }
    }
    let device_rules = write_device_rules(directory, &spec, &runtime)?;
    write_json(&bundle.join("config.json"), &spec)?;
    let defaults = ExecDefaults {
        seccomp: security.seccomp.clone(),
    };
    write_json(&directory.join(EXEC_DEFAULTS_FILE), &defaults)?;
    let call = CreateCall {
        id,
        bundle,
        stdio,
        log,
        runtime,
        systemd_cgroup,
        uid: process.user().uid(),
        gid: process.user().gid(),
        console_size: console_size(&process),
        security,
        cgroup_name,
        device_rules,
    };
    Ok((call, defaults))
}

/// The values that libcontainer and runc understand differently when they are left out or given.
fn complete(spec: &mut Spec, id: &str, tty: bool) {
    if let Some(process) = spec.process_mut() {
        process.set_terminal(Some(tty));
        settle_oom_score(process);
        if process.no_new_privileges() == Some(false) {
            // libcontainer takes the mere presence for a yes.
            process.set_no_new_privileges(None);
        }
    }
    if let Some(linux) = spec.linux_mut()
        && linux.cgroups_path().is_none()
    {
        linux.set_cgroups_path(Some(PathBuf::from("/docker").join(id)));
    }
}

/// The shim's own score is as low as it may be; a process that says nothing must not inherit it. Zero,
/// or the daemon's own if that is higher: not everybody may lower it.
fn settle_oom_score(process: &mut Process) {
    if process.oom_score_adj().is_none() {
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        process.set_oom_score_adj(Some(own.trim().parse().unwrap_or(0).max(0)));
    }
}

fn refuse_unsupported(spec: &Spec) -> Result<(), RuntimeError> {
    let refuse = |what: &str| {
        Err(RuntimeError::Refused(format!(
            "{what} needs an OCI runtime: see --add-runtime"
        )))
    };
    if spec
        .hooks()
        .as_ref()
        .is_some_and(|hooks| hooks.poststart().is_some() || hooks.poststop().is_some())
    {
        return refuse("a poststart or poststop hook");
    }
    let process = spec.process().as_ref();
    if process.is_some_and(|process| {
        process
            .selinux_label()
            .as_ref()
            .is_some_and(|l| !l.is_empty())
    }) {
        return refuse("an SELinux label");
    }
    Ok(())
}

/// The filter is installed by the executor, after libcontainer has dropped capabilities, and without
/// `no_new_privs` the kernel lets only CAP_SYS_ADMIN install one. So the process is lent it until
/// then; the masks say what it ends with.
fn lend_sys_admin(process: &mut Process) -> Option<CapabilityMasks> {
    let wanted = process.capabilities().clone()?;
    let mut lent = wanted.clone();
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.insert(Capability::SysAdmin);
        Some(set)
    };
    lent.set_effective(with(wanted.effective()));
    lent.set_permitted(with(wanted.permitted()));
    process.set_capabilities(Some(lent));
    Some(masks(&wanted))
}

fn masks(wanted: &LinuxCapabilities) -> CapabilityMasks {
    CapabilityMasks {
        effective: capability_mask(wanted.effective().as_ref()),
        permitted: capability_mask(wanted.permitted().as_ref()),
        inheritable: capability_mask(wanted.inheritable().as_ref()),
    }
}

/// cgroupfs: the path's last component; systemd: `slice:prefix:name` becomes `prefix-name.scope`.
fn cgroup_name(spec: &Spec, systemd: bool) -> String {
    let path = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().clone())
        .unwrap_or_default();
    if systemd {
        let text = path.to_string_lossy();
        let mut parts = text.splitn(3, ':').skip(1);
        if let (Some(prefix), Some(name)) = (parts.next(), parts.next()) {
            return if prefix.is_empty() {
                format!("{name}.scope")
            } else {
                format!("{prefix}-{name}.scope")
            };
        }
    }
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn write_device_rules(
    directory: &Path,
    spec: &Spec,
    runtime: &RuntimeKind,
) -> Result<Option<PathBuf>, RuntimeError> {
    if *runtime != RuntimeKind::Builtin || host_version() == CgroupVersion::V1 {
        return Ok(None);
    }
    let rules = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref())
        .and_then(|resources| resources.devices().clone())
        .unwrap_or_default();
    let path = directory.join("devices.bpf");
    std::fs::write(&path, devices::program(&rules)).map_err(RuntimeError::io("write", &path))?;
    Ok(Some(path))
}

fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    Some((size.height() as u16, size.width() as u16))
        .filter(|&(rows, columns)| rows > 0 && columns > 0)
}

/// What execs of a container inherit, after a restart of the daemon.
pub(crate) fn stored_exec_defaults(directory: &Path) -> Result<ExecDefaults, RuntimeError> {
    let path = directory.join(EXEC_DEFAULTS_FILE);
    let bytes = std::fs::read(&path).map_err(RuntimeError::io("read", &path))?;
    serde_json::from_slice(&bytes).map_err(|error| RuntimeError::io("read", path)(error.into()))
}

/// Writes the process for the shim to read and makes the call.
pub(crate) fn exec(shim: &ShimInner, request: ExecRequest) -> Result<ExecCall, RuntimeError> {
    let ExecRequest {
        id,
        mut process,
        tty,
        stdin,
        stdout,
        stderr,
    } = request;
    if id.is_empty() || id.starts_with('.') || id.contains('/') {
        return Err(RuntimeError::InvalidId(id));
    }
    if !shim.directory.exists() {
        return Err(RuntimeError::Gone(shim.id.clone()));
    }
    process.set_terminal(Some(tty));
    settle_oom_score(&mut process);
    if process.no_new_privileges() == Some(false) {
        process.set_no_new_privileges(None);
    }
    let mut security = Security::default();
    if shim.kind == RuntimeKind::Builtin {
        security.seccomp.clone_from(&shim.exec_defaults.seccomp);
        if security.seccomp.is_some() && process.no_new_privileges() != Some(true) {
            security.capabilities = lend_sys_admin(&mut process);
        }
    }
    let path = shim.directory.join(format!("exec-{id}.json"));
    write_json(&path, &process)?;
    Ok(ExecCall {
        uid: process.user().uid(),
        gid: process.user().gid(),
        console_size: console_size(&process),
        id,
        process: path,
        tty,
        streams: AttachRequest {
            stdin,
            stdout,
            stderr,
        },
        security,
    })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RuntimeError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| RuntimeError::io("encode", path)(error.into()))?;
    std::fs::write(path, bytes).map_err(RuntimeError::io("write", path))
}
