//! Capabilities by name, number and availability.

use std::collections::HashSet;
use std::sync::OnceLock;

use oci_spec::runtime::Capability;

use super::SpecError;

/// In the kernel's order: a name's place is its number.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container gets that asks for nothing.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The bit of a capability by its full name.
pub fn capability_bit(name: &str) -> Option<u64> {
    NAMES
        .iter()
        .position(|&known| known == name)
        .map(|number| 1 << number)
}

/// What this process may hand on: its bounding set. A privileged container gets this, not everything
/// there is; some machines keep CAP_SYS_RESOURCE from everybody, for example.
pub fn available_capabilities() -> Vec<&'static str> {
    static MASK: OnceLock<u64> = OnceLock::new();
    let mask = *MASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:"))
            .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
            .unwrap_or(0)
    });
    NAMES
        .iter()
        .enumerate()
        .filter(|&(number, _)| mask >> number & 1 == 1)
        .map(|(_, &name)| name)
        .collect()
}

/// Upper case, with `CAP_`, known and available; `ALL` passes.
pub fn normalize_capabilities<S: AsRef<str>>(names: &[S]) -> Result<Vec<String>, SpecError> {
    let available = available_capabilities();
    names
        .iter()
        .map(|name| {
            let upper = name.as_ref().to_uppercase();
            if upper == "ALL" {
                return Ok(upper);
            }
            let full = if upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            };
            if !NAMES.contains(&full.as_str()) {
                Err(SpecError::UnknownCapability(full))
            } else if available.contains(&full.as_str()) {
                Ok(full)
            } else {
                Err(SpecError::UnavailableCapability(full))
            }
        })
        .collect()
}

/// Docker's arithmetic of `--cap-add` and `--cap-drop` on the default set.
pub fn tweak_capabilities<S: AsRef<str>>(add: &[S], drop: &[S]) -> Result<Vec<String>, SpecError> {
    let add = normalize_capabilities(add)?;
    let drop = normalize_capabilities(drop)?;
    let all = |names: &[String]| names.iter().any(|name| name == "ALL");
    let keep = |names: &[&str]| -> Vec<String> {
        names
            .iter()
            .filter(|&&name| !drop.iter().any(|d| d == name))
            .map(|&n| n.to_owned())
            .collect()
    };
    if all(&add) {
        return Ok(keep(&available_capabilities()));
    }
    let mut result = if all(&drop) {
        Vec::new()
    } else {
        keep(&DEFAULT_CAPABILITIES)
    };
    for name in add {
        if !result.contains(&name) {
            result.push(name);
        }
    }
    Ok(result)
}

/// The kernel's mask of a spec's set.
pub(crate) fn capability_mask(set: Option<&HashSet<Capability>>) -> u64 {
    let bit = |capability: &Capability| capability_bit(&format!("CAP_{capability}")).unwrap_or(0);
    set.map_or(0, |set| set.iter().map(bit).fold(0, |mask, bit| mask | bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_spec_crate_has_a_bit() {
        for name in NAMES {
            let capability: Capability =
                serde_json::from_value(serde_json::Value::String(name.to_owned())).unwrap();
            let set = HashSet::from([capability]);
            assert_eq!(
                capability_mask(Some(&set)),
                capability_bit(name).unwrap(),
                "{name}"
            );
        }
    }

    #[test]
    fn adding_and_dropping_is_dockers() {
        let kept = tweak_capabilities(&[], &["all"]).unwrap();
        assert!(kept.is_empty());
        let only = tweak_capabilities(&["net_admin"], &["ALL"]).unwrap();
        assert_eq!(only, ["CAP_NET_ADMIN"]);
        let fewer = tweak_capabilities(&["ALL"], &["CAP_MKNOD"]).unwrap();
        assert!(!fewer.contains(&"CAP_MKNOD".to_owned()) && fewer.len() > 14);
        let error = tweak_capabilities(&["fly"], &[]).unwrap_err().to_string();
        assert_eq!(error, "unknown capability: \"CAP_FLY\"");
    }
}
