//! Kernel settings under `/proc/sys/net`. They are those of the *calling thread's* namespace: use
//! inside [`crate::Namespace::run`].

use std::fs;
use std::path::PathBuf;

use crate::error::NetlinkError;

/// Writes `value` to a setting such as `net/ipv4/ip_forward` unless it has it already (some
/// settings log or flush on every write).
pub fn set(name: &str, value: &str) -> Result<(), NetlinkError> {
    if get(name).is_ok_and(|now| now == value) {
        return Ok(());
    }
    fs::write(path(name), value).map_err(NetlinkError::io(format!("setting {name} to {value}")))
}

/// The setting's value without the line end.
pub fn get(name: &str) -> Result<String, NetlinkError> {
    let text =
        fs::read_to_string(path(name)).map_err(NetlinkError::io(format!("reading {name}")))?;
    Ok(text.trim_end().to_owned())
}

/// Whether the kernel has the setting.
pub fn exists(name: &str) -> bool {
    path(name).exists()
}

/// Slashes separate the parts, so an interface called `eth0.5` needs no escaping.
fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}
