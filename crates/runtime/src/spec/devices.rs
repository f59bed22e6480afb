//! Device nodes and the rules that let a container use them.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use serde_json::json;

use super::SpecError;
use crate::shim::go_error;

/// `--device host:container:permissions`: the node and the rule. A directory is for
/// [`host_devices`].
pub fn device_at(
    host: &Path,
    container: &Path,
    permissions: &str,
) -> Result<(LinuxDevice, LinuxDeviceCgroup), SpecError> {
    let failed = |reason: String| SpecError::Device {
        path: host.display().to_string(),
        reason,
    };
    let metadata = std::fs::metadata(host).map_err(|error| failed(go_error(&error)))?;
    let device =
        node(container, &metadata).ok_or_else(|| failed("not a device node".to_owned()))?;
    let rule = rule(
        device.typ(),
        Some(device.major()),
        Some(device.minor()),
        permissions,
    );
    Ok((device, rule))
}

/// All devices of the host below `directory`, as a privileged container gets those of `/dev`.
pub fn host_devices(directory: &Path) -> Vec<LinuxDevice> {
    let mut devices = Vec::new();
    collect(directory, &mut devices);
    devices
}

fn collect(directory: &Path, devices: &mut Vec<LinuxDevice>) {
    // A container has its own of these.
    const SKIPPED: [&str; 8] = [
        "pts",
        "shm",
        "fd",
        "mqueue",
        ".lxc",
        ".lxd-mounts",
        ".udev",
        "console",
    ];
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        if SKIPPED.iter().any(|&name| entry.file_name() == name) {
            continue;
        }
        // Links are not followed, and a node may vanish meanwhile.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() {
            collect(&entry.path(), devices);
        } else if let Some(device) = node(&entry.path(), &metadata) {
            devices.push(device);
        }
    }
}

fn node(path: &Path, metadata: &Metadata) -> Option<LinuxDevice> {
    let kind = metadata.file_type();
    let typ = match () {
        () if kind.is_char_device() => "c",
        () if kind.is_block_device() => "b",
        () => return None,
    };
    serde_json::from_value(json!({
        "path": path,
        "type": typ,
        "major": libc::major(metadata.rdev()),
        "minor": libc::minor(metadata.rdev()),
        "fileMode": metadata.mode() & 0o7777,
        "uid": metadata.uid(),
        "gid": metadata.gid(),
    }))
    .ok()
}

/// `--device-cgroup-rule`, for example `c 1:3 rwm` or `a *:* rwm`.
pub fn device_cgroup_rule(text: &str) -> Result<LinuxDeviceCgroup, SpecError> {
    let invalid = || SpecError::DeviceRule(text.to_owned());
    let mut parts = text.split(' ');
    let (Some(typ), Some(numbers), Some(access), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(invalid());
    };
    let typ = match typ {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Some(-1),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<i64>().ok(),
        _ => None,
    };
    let known =
        (1..=3).contains(&access.len()) && access.bytes().all(|byte| b"rwm".contains(&byte));
    match (number(major), number(minor), known) {
        (Some(major), Some(minor), true) => Ok(rule(typ, Some(major), Some(minor), access)),
        _ => Err(invalid()),
    }
}

pub(super) fn rule(
    typ: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(typ)
        .access(access.to_owned())
        .build()
        .expect("no field of a device rule is required");
    rule.set_major(major);
    rule.set_minor(minor);
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_strictly() {
        let rule = device_cgroup_rule("c 1:* rw").unwrap();
        assert_eq!((rule.major(), rule.minor()), (Some(1), Some(-1)));
        for bad in [
            "c 1:3",
            "x 1:3 r",
            "c 1:3 rwmx",
            "c 1:3 r extra",
            "c +1:3 r",
            "",
        ] {
            assert!(device_cgroup_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_of_the_host_becomes_a_node_and_a_rule() {
        let (device, rule) =
            device_at(Path::new("/dev/null"), Path::new("/dev/nil"), "rw").unwrap();
        assert_eq!((device.major(), device.minor()), (1, 3));
        assert_eq!(rule.access().as_deref(), Some("rw"));
        assert!(device_at(Path::new("/etc"), Path::new("/dev/etc"), "r").is_err());
    }
}
