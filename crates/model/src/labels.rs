//! skep's own labels on services: what Docker's service flags cannot say.

use std::collections::BTreeMap;

/// Devices of the node, separated by commas: `/dev/fuse`, `/dev/a:/dev/b:rw`.
pub const DEVICE: &str = "skep.device";
/// `true`: all of the node's devices and capabilities.
pub const PRIVILEGED: &str = "skep.privileged";
/// Size of `/dev/shm`: `256m`.
pub const SHM_SIZE: &str = "skep.shm-size";
/// `host`.
pub const PID: &str = "skep.pid";
/// `host`, `private`, `shareable` or `none`.
pub const IPC: &str = "skep.ipc";
/// `spread`, `binpack` or `random`; on the swarm itself for all services that do not say.
pub const STRATEGY: &str = "skep.placement.strategy";
/// `true`: moves surplus tasks to nodes that joined or returned.
pub const REBALANCE: &str = "skep.rebalance";

/// The labels that change the container itself.
pub const OF_CONTAINER: [&str; 5] = [DEVICE, PRIVILEGED, SHM_SIZE, PID, IPC];

/// How nodes are chosen among those that fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The fewest tasks of the service, then the fewest tasks.
    #[default]
    Spread,
    /// The fullest.
    Binpack,
    Random,
}

impl Strategy {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "spread" => Some(Self::Spread),
            "binpack" => Some(Self::Binpack),
            "random" => Some(Self::Random),
            _ => None,
        }
    }

    /// Of a service or a swarm; `None` if it does not say.
    pub fn of(labels: &BTreeMap<String, String>) -> Option<Self> {
        Self::parse(labels.get(STRATEGY)?)
    }
}

/// `true` and `false`, and nothing else.
pub fn flag(labels: &BTreeMap<String, String>, name: &str) -> bool {
    labels.get(name).is_some_and(|value| value == "true")
}

/// One entry of [`DEVICE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub on_host: String,
    pub inside: String,
    /// Some of `r`, `w` and `m`.
    pub permissions: String,
}

/// Reads [`DEVICE`].
pub fn devices(text: &str) -> Result<Vec<Device>, LabelError> {
    let invalid = || LabelError::new(DEVICE, text);
    text.split(',')
        .map(|entry| {
            let parts: Vec<&str> = entry.trim().split(':').collect();
            let permissions =
                |text: &str| !text.is_empty() && text.chars().all(|c| matches!(c, 'r' | 'w' | 'm'));
            let (on_host, inside, permissions) = match parts.as_slice() {
                [device] => (*device, *device, "rwm"),
                [device, last] if permissions(last) => (*device, *device, *last),
                [device, inside] => (*device, *inside, "rwm"),
                [device, inside, last] if permissions(last) => (*device, *inside, *last),
                _ => return Err(invalid()),
            };
            if !on_host.starts_with("/dev/") || !inside.starts_with('/') || on_host.contains("..") {
                return Err(invalid());
            }
            Ok(Device {
                on_host: on_host.to_owned(),
                inside: inside.to_owned(),
                permissions: permissions.to_owned(),
            })
        })
        .collect()
}

/// Reads [`SHM_SIZE`]: a number of bytes, or with one of the letters of Docker's sizes.
pub fn shm_size(text: &str) -> Result<i64, LabelError> {
    let invalid = || LabelError::new(SHM_SIZE, text);
    let lower = text.to_ascii_lowercase();
    let lower = lower
        .strip_suffix("ib")
        .or(lower.strip_suffix('b'))
        .unwrap_or(&lower);
    let digits = lower.trim_end_matches(['k', 'm', 'g', 't']);
    let shift = match &lower[digits.len()..] {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(invalid()),
    };
    let number: i64 = digits.parse().map_err(|_| invalid())?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(invalid)
}

/// A value that the label cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {value:?} of service label {label}")]
pub struct LabelError {
    label: &'static str,
    value: String,
}

impl LabelError {
    fn new(label: &'static str, value: &str) -> Self {
        Self {
            label,
            value: value.to_owned(),
        }
    }
}

/// Refuses labels of ours whose values mean nothing: they would be ignored silently.
pub fn check(labels: &BTreeMap<String, String>) -> Result<(), LabelError> {
    for (name, value) in labels {
        let one_of = |label, words: &[&str]| {
            let known = words.contains(&value.as_str());
            known
                .then_some(())
                .ok_or_else(|| LabelError::new(label, value))
        };
        match name.as_str() {
            DEVICE => drop(devices(value)?),
            SHM_SIZE => drop(shm_size(value)?),
            PRIVILEGED => one_of(PRIVILEGED, &["true", "false"])?,
            REBALANCE => one_of(REBALANCE, &["true", "false"])?,
            PID => one_of(PID, &["host"])?,
            IPC => one_of(IPC, &["host", "private", "shareable", "none"])?,
            STRATEGY => one_of(STRATEGY, &["spread", "binpack", "random"])?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn devices_are_read_as_dockers() {
        let device = |on_host: &str, inside: &str, permissions: &str| Device {
            on_host: on_host.into(),
            inside: inside.into(),
            permissions: permissions.into(),
        };
        assert_eq!(
            devices("/dev/fuse,/dev/a:r, /dev/b:/dev/c:rw").unwrap(),
            [
                device("/dev/fuse", "/dev/fuse", "rwm"),
                device("/dev/a", "/dev/a", "r"),
                device("/dev/b", "/dev/c", "rw"),
            ]
        );
        for bad in [
            "",
            "fuse",
            "/etc/passwd",
            "/dev/../etc",
            "/dev/a:b",
            "/dev/a:/b:x",
            "/dev/a:/b:r:w",
        ] {
            assert!(devices(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_dockers_letters() {
        assert_eq!(shm_size("1024").unwrap(), 1024);
        assert_eq!(shm_size("64m").unwrap(), 64 << 20);
        assert_eq!(shm_size("1GiB").unwrap(), 1 << 30);
        for bad in ["", "m", "-1", "0", "1x", "99999999999999t", "1mm"] {
            assert!(shm_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_of_ours_must_mean_something_and_others_are_free() {
        assert!(check(&labels(&[(PID, "host"), (STRATEGY, "binpack"), ("a", "")])).is_ok());
        assert_eq!(
            check(&labels(&[(PRIVILEGED, "yes")]))
                .unwrap_err()
                .to_string(),
            "invalid value \"yes\" of service label skep.privileged"
        );
        assert!(check(&labels(&[(STRATEGY, "best")])).is_err());
    }
}
