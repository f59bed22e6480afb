//! The local driver's options: what `mount` would be told, checked and carried out.

use std::collections::HashMap;
use std::ffi::CString;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::error::{EngineError, Result};

const KNOWN: &[&str] = &["type", "o", "device", "size"];
/// What needs which others.
const NEEDS: &[(&str, &[&str])] = &[
    ("device", &["type"]),
    ("type", &["device"]),
    ("o", &["device", "type"]),
];

/// Refuses what dockerd's local driver refuses.
pub(crate) fn check(options: &HashMap<String, String>) -> Result<()> {
    let mut unknown: Vec<_> = options
        .keys()
        .filter(|option| !KNOWN.contains(&option.as_str()))
        .collect();
    unknown.sort();
    if let Some(option) = unknown.first() {
        return Err(EngineError::invalid(format!("invalid option: {option:?}")));
    }
    let given = |name: &str| options.get(name).map_or("", String::as_str);
    if given("type") == "cifs" && host_of(given("device")).is_some_and(|host| host.contains(':')) {
        return Err(EngineError::invalid(
            "port not allowed in CIFS device URL, include 'port' in 'o='",
        ));
    }
    if let Some(size) = options.get("size") {
        // Quotas of projects, which only some file systems have and this daemon does not set.
        if crate::logs::options::memory(size)? > 0 {
            return Err(EngineError::invalid(
                "quota size requested but no quota support",
            ));
        }
    }
    for (option, others) in NEEDS {
        let missing = others.iter().find(|other| !options.contains_key(**other));
        if let (true, Some(missing)) = (options.contains_key(*option), missing) {
            return Err(EngineError::invalid(format!(
                "missing required option: {missing:?}"
            )));
        }
    }
    Ok(())
}

/// Whether a volume with these options is something to be mounted rather than a directory.
pub(crate) fn is_mount(options: &HashMap<String, String>) -> bool {
    ["device", "type"]
        .iter()
        .any(|name| options.get(*name).is_some_and(|value| !value.is_empty()))
}

/// Mounts what the options say at `target`.
pub(crate) fn mount(options: &HashMap<String, String>, target: &Path) -> Result<()> {
    let given = |name: &str| options.get(name).map_or("", String::as_str);
    let (device, kind) = (given("device"), given("type"));
    if device.is_empty() {
        return Err(EngineError::system("missing device in volume options"));
    }
    let (device, text) = with_address(kind, device, given("o"), resolve)?;
    let parsed = parse(&text);
    let failed = |error: rustix::io::Errno| {
        let data = if parsed.data.is_empty() {
            String::new()
        } else {
            format!(", data: {}", without_password(&parsed.data))
        };
        EngineError::system(format!(
            "failed to mount local volume: mount {device}:{}{}{data}: {}",
            target.display(),
            if parsed.flags.is_empty() {
                String::new()
            } else {
                format!(", flags: 0x{:x}", parsed.flags.bits())
            },
            kernel_text(error)
        ))
    };
    let data = CString::new(parsed.data.as_str())
        .map_err(|error| EngineError::from_source("volume options", &error))?;
    rustix::mount::mount(device.as_str(), target, kind, parsed.flags, data.as_c_str())
        .map_err(failed)?;
    let rest = || {
        if !parsed.propagation.is_empty() {
            rustix::mount::mount_change(target, parsed.propagation)?;
        }
        // The kernel takes a bind mount's other flags only the second time.
        if parsed.flags.contains(MountFlags::BIND) && parsed.flags.contains(MountFlags::RDONLY) {
            rustix::mount::mount_remount(target, parsed.flags, "")?;
        }
        Ok(())
    };
    rest().map_err(|error| {
        let _ = unmount(target);
        failed(error)
    })
}

/// Unmounts; nothing mounted is fine.
pub(crate) fn unmount(target: &Path) -> Result<()> {
    use rustix::mount::UnmountFlags;
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(EngineError::from_source(
            format!("unmount {}", target.display()),
            &std::io::Error::from(error),
        )),
    }
}

fn kernel_text(error: rustix::io::Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().to_string() + letters.as_str()
    })
}

#[derive(Debug, PartialEq)]
struct Parsed {
    flags: MountFlags,
    propagation: MountPropagationFlags,
    data: String,
}

/// As mount(8) splits its `-o`: flags, and what the file system itself is to read.
fn parse(text: &str) -> Parsed {
    let mut flags = MountFlags::empty();
    let mut propagation = MountPropagationFlags::empty();
    let mut data = Vec::new();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        if let Some(change) = propagation_of(option) {
            propagation |= change;
        } else if let Some((flag, set)) = flag_of(option) {
            flags.set(flag, set);
        } else if option != "defaults" {
            data.push(option);
        }
    }
    Parsed {
        flags,
        propagation,
        data: data.join(","),
    }
}

fn flag_of(option: &str) -> Option<(MountFlags, bool)> {
    Some(match option {
        "ro" => (MountFlags::RDONLY, true),
        "rw" => (MountFlags::RDONLY, false),
        "nosuid" => (MountFlags::NOSUID, true),
        "suid" => (MountFlags::NOSUID, false),
        "nodev" => (MountFlags::NODEV, true),
        "dev" => (MountFlags::NODEV, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "exec" => (MountFlags::NOEXEC, false),
        "sync" => (MountFlags::SYNCHRONOUS, true),
        "async" => (MountFlags::SYNCHRONOUS, false),
        "dirsync" => (MountFlags::DIRSYNC, true),
        "noatime" => (MountFlags::NOATIME, true),
        "atime" => (MountFlags::NOATIME, false),
        "nodiratime" => (MountFlags::NODIRATIME, true),
        "diratime" => (MountFlags::NODIRATIME, false),
        "relatime" => (MountFlags::RELATIME, true),
        "norelatime" => (MountFlags::RELATIME, false),
        "strictatime" => (MountFlags::STRICTATIME, true),
        "nostrictatime" => (MountFlags::STRICTATIME, false),
        "bind" => (MountFlags::BIND, true),
        "rbind" => (MountFlags::BIND | MountFlags::REC, true),
        _ => return None,
    })
}

fn propagation_of(option: &str) -> Option<MountPropagationFlags> {
    let all = MountPropagationFlags::REC;
    Some(match option {
        "private" => MountPropagationFlags::PRIVATE,
        "rprivate" => MountPropagationFlags::PRIVATE | all,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "rslave" => MountPropagationFlags::DOWNSTREAM | all,
        "shared" => MountPropagationFlags::SHARED,
        "rshared" => MountPropagationFlags::SHARED | all,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        "runbindable" => MountPropagationFlags::UNBINDABLE | all,
        _ => return None,
    })
}

/// The kernel knows no names: `addr=` of NFS and the host of a CIFS share are looked up.
fn with_address(
    kind: &str,
    device: &str,
    options: &str,
    resolve: impl Fn(&str) -> Result<IpAddr>,
) -> Result<(String, String)> {
    let unchanged = || (device.to_owned(), options.to_owned());
    if !matches!(kind, "nfs" | "nfs4" | "cifs") {
        return Ok(unchanged());
    }
    let named = options
        .split(',')
        .find_map(|option| option.strip_prefix("addr="))
        .filter(|name| name.parse::<IpAddr>().is_err());
    if let Some(name) = named {
        let address = resolve(name)?;
        let options = options.replacen(&format!("addr={name}"), &format!("addr={address}"), 1);
        return Ok((device.to_owned(), options));
    }
    match host_of(device).filter(|host| kind == "cifs" && host.parse::<IpAddr>().is_err()) {
        Some(host) => {
            let address = resolve(host)?;
            Ok((
                device.replacen(host, &address.to_string(), 1),
                options.to_owned(),
            ))
        }
        None => Ok(unchanged()),
    }
}

/// The host of `//host/share`.
fn host_of(device: &str) -> Option<&str> {
    let rest = device.split_once("//")?.1;
    let host = rest.split('/').next().unwrap_or(rest);
    (!host.is_empty()).then_some(host)
}

fn resolve(name: &str) -> Result<IpAddr> {
    let failed = |error: std::io::Error| {
        EngineError::from_source("error resolving passed in network volume address", &error)
    };
    let found = (name, 0).to_socket_addrs().map_err(failed)?.next();
    found.map(|address| address.ip()).ok_or_else(|| {
        EngineError::system(format!(
            "error resolving passed in network volume address: lookup {name}: no such host"
        ))
    })
}

fn without_password(data: &str) -> String {
    let hide = |option: &str| match option.split_once('=') {
        Some(("password" | "pass", _)) => "password=********".to_owned(),
        _ => option.to_owned(),
    };
    data.split(',').map(hide).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        check(&options(pairs)).unwrap_err().message
    }

    #[test]
    fn options_are_refused_as_dockerd_refuses_them() {
        assert!(
            check(&options(&[
                ("type", "tmpfs"),
                ("device", "tmpfs"),
                ("o", "size=1m")
            ]))
            .is_ok()
        );
        assert_eq!(refusal(&[("colour", "red")]), "invalid option: \"colour\"");
        assert_eq!(
            refusal(&[("type", "nfs")]),
            "missing required option: \"device\""
        );
        assert_eq!(
            refusal(&[("o", "bind"), ("device", "/x")]),
            "missing required option: \"type\""
        );
        assert_eq!(
            refusal(&[("size", "1g")]),
            "quota size requested but no quota support"
        );
        assert_eq!(
            refusal(&[("type", "cifs"), ("device", "//host:445/share")]),
            "port not allowed in CIFS device URL, include 'port' in 'o='"
        );
    }

    #[test]
    fn flags_are_taken_out_of_the_data() {
        let parsed = parse("ro,noexec,size=10m,rslave,uid=1000,exec");
        assert_eq!(parsed.flags, MountFlags::RDONLY);
        assert_eq!(parsed.data, "size=10m,uid=1000");
        assert_eq!(
            parsed.propagation,
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC
        );
    }

    #[test]
    fn names_of_servers_become_addresses() {
        let resolve = |_: &str| Ok("10.0.0.7".parse().unwrap());
        assert_eq!(
            with_address("nfs", ":/export", "addr=nas.lan,rw", resolve).unwrap(),
            (":/export".to_owned(), "addr=10.0.0.7,rw".to_owned())
        );
        assert_eq!(
            with_address("nfs", ":/export", "addr=10.1.1.1", resolve)
                .unwrap()
                .1,
            "addr=10.1.1.1"
        );
        assert_eq!(
            with_address("cifs", "//nas.lan/share", "user=a", resolve)
                .unwrap()
                .0,
            "//10.0.0.7/share"
        );
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_password("user=a,password=secret,vers=3"),
            "user=a,password=********,vers=3"
        );
    }
}
