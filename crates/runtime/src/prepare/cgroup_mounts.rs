//! The container's view of its cgroups on v1.
//!
//! libcontainer mounts them writable whatever the spec says, which would let a container change its
//! own limits. So it is given a tmpfs and one bind mount for each hierarchy instead, as runc does it.
//! The hierarchy without controllers (`name=systemd`) is left out: libcontainer makes no cgroup there.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};

use crate::cgroup::v1_hierarchies;
use crate::error::RuntimeError;
use crate::spec::mount;

/// Replaces every mount of type `cgroup`.
pub(super) fn replace(spec: &mut Spec, systemd: bool) -> Result<(), RuntimeError> {
    let cgroup = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().clone())
        .unwrap_or_default();
    let mut mounts = Vec::new();
    for old in spec.mounts().clone().unwrap_or_default() {
        if old.typ().as_deref() != Some("cgroup") {
            mounts.push(old);
            continue;
        }
        if systemd {
            return Err(RuntimeError::Refused(
                "the systemd cgroup driver needs cgroup v2 or an OCI runtime".to_owned(),
            ));
        }
        let is_readonly = old
            .options()
            .as_ref()
            .is_some_and(|options| options.iter().any(|option| option == "ro"));
        views(old.destination(), &cgroup, is_readonly, &mut mounts)?;
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

fn views(
    destination: &Path,
    cgroup: &Path,
    readonly: bool,
    mounts: &mut Vec<Mount>,
) -> Result<(), RuntimeError> {
    let top = ["nosuid", "noexec", "nodev", "mode=755"];
    mounts.push(mount(destination, "tmpfs", "tmpfs", &top));
    let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
    let hierarchies = v1_hierarchies().map_err(RuntimeError::io(
        "read",
        PathBuf::from("/proc/self/mountinfo"),
    ))?;
    for (target, controllers) in hierarchies {
        let source = target.join(relative);
        let mut options = vec!["bind", "nosuid", "noexec", "nodev"];
        if readonly {
            options.push("ro");
        }
        // One that holds several controllers is also there by the name of each.
        let mut names: Vec<String> = controllers;
        names.extend(
            target
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
        );
        names.sort();
        names.dedup();
        for name in names {
            mounts.push(mount(
                destination.join(name),
                "bind",
                &source.to_string_lossy(),
                &options,
            ));
        }
    }
    Ok(())
}
