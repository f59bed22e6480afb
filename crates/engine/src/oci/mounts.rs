//! Mounts as the OCI spec has them.

use std::path::Path;

use skep_runtime::oci_spec::runtime::Mount;
use skep_runtime::spec::{ContainerSpec, mount};

use crate::container::Record;
use crate::mounts::{MountKind, MountPoint};

/// The three files of [`crate::etc_files`].
const ETC_FILES: [(&str, &str); 3] = [
    ("/etc/resolv.conf", "resolv.conf"),
    ("/etc/hostname", "hostname"),
    ("/etc/hosts", "hosts"),
];

/// Adds the container's mounts; what the user mounts replaces what would be there.
pub(super) fn add(
    mut spec: ContainerSpec,
    record: &Record,
    dir: &Path,
    shm: Option<&Path>,
) -> ContainerSpec {
    let host = &record.host_config;
    match (host.ipc_mode.as_deref(), shm) {
        (_, Some(shm)) => {
            spec = spec.mount(mount(
                "/dev/shm",
                "bind",
                &shm.display().to_string(),
                &["rbind", "rprivate"],
            ));
        }
        (Some("none"), None) => {
            spec = spec.with(|spec| {
                let mut mounts = spec.mounts().clone().unwrap_or_default();
                mounts.retain(|mount| mount.destination() != Path::new("/dev/shm"));
                spec.set_mounts(Some(mounts));
            });
        }
        (Some("host"), None) => {
            spec = spec.mount(mount(
                "/dev/shm",
                "bind",
                "/dev/shm",
                &["rbind", "rprivate"],
            ));
        }
        _ => spec = spec.shm_size(host.shm_size.filter(|&size| size > 0).unwrap_or(64 << 20)),
    }
    let access = if host.readonly_rootfs == Some(true) {
        "ro"
    } else {
        "rw"
    };
    for (target, name) in ETC_FILES {
        if !record.mounts.contains_key(target) {
            let source = dir.join(name).display().to_string();
            spec = spec.mount(mount(
                target,
                "bind",
                &source,
                &["rbind", "rprivate", access],
            ));
        }
    }
    let mut tmpfs: Vec<_> = host.tmpfs.iter().flatten().collect();
    tmpfs.sort();
    for (target, options) in tmpfs {
        spec = spec.mount(tmpfs_mount(target, options));
    }
    for point in record.mounts.values() {
        spec = spec.mount(match point.kind {
            MountKind::Tmpfs => tmpfs_mount(&point.destination, &point.data),
            MountKind::Bind | MountKind::Volume => bind_mount(point),
        });
    }
    spec
}

/// The propagation that the root needs so that the mounts' own can work.
pub(super) fn root_propagation(record: &Record) -> Option<&'static str> {
    let has = |wanted: &[&str]| {
        record
            .mounts
            .values()
            .any(|point| wanted.contains(&point.propagation.as_str()))
    };
    if has(&["shared", "rshared"]) {
        Some("shared")
    } else if has(&["slave", "rslave"]) {
        Some("rslave")
    } else {
        None
    }
}

fn bind_mount(point: &MountPoint) -> Mount {
    let mut options = vec![if point.non_recursive { "bind" } else { "rbind" }];
    if !point.rw {
        options.push(if point.read_only_non_recursive || point.non_recursive {
            "ro"
        } else {
            "rro"
        });
    }
    if !point.propagation.is_empty() {
        options.push(&point.propagation);
    }
    mount(&point.destination, "bind", &point.source, &options)
}

fn tmpfs_mount(target: &str, options: &str) -> Mount {
    let mut merged: Vec<&str> = vec!["noexec", "nosuid", "nodev"];
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let key = option.split_once('=').map(|(key, _)| key);
        merged.retain(|have| match key {
            Some(key) => have.split_once('=').map(|(have, _)| have) != Some(key),
            None => *have != option && !opposites(have, option),
        });
        merged.push(option);
    }
    mount(target, "tmpfs", "tmpfs", &merged)
}

fn opposites(a: &str, b: &str) -> bool {
    const PAIRS: [(&str, &str); 6] = [
        ("exec", "noexec"),
        ("suid", "nosuid"),
        ("dev", "nodev"),
        ("ro", "rw"),
        ("sync", "async"),
        ("atime", "noatime"),
    ];
    PAIRS.contains(&(a, b)) || PAIRS.contains(&(b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mount: &Mount) -> Vec<String> {
        mount.options().clone().unwrap_or_default()
    }

    #[test]
    fn tmpfs_options_override_the_defaults() {
        assert_eq!(
            options(&tmpfs_mount("/x", "")),
            ["noexec", "nosuid", "nodev"]
        );
        assert_eq!(
            options(&tmpfs_mount("/x", "exec,size=1m,size=2m,mode=1777")),
            ["nosuid", "nodev", "exec", "size=2m", "mode=1777"]
        );
    }
}
