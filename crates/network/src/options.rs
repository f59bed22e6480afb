//! Driver options of a single endpoint: `docker run --network name=…,driver-opt=…`.

use std::collections::BTreeMap;

use crate::NetworkError;

/// The interface's name in the container.
pub(crate) const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";
/// Settings of the interface, comma-separated, with `IFNAME` in place of its name.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const LONGEST_NAME: usize = 15;

/// An option that nobody knows is refused rather than ignored.
pub(crate) fn check(options: &BTreeMap<String, String>) -> Result<(), NetworkError> {
    for (option, value) in options {
        match option.as_str() {
            INTERFACE_NAME => check_name(value)?,
            SYSCTLS => value.split(',').try_for_each(check_sysctl)?,
            _ => {
                let text = format!("endpoint driver option {option} is not supported by skep yet");
                return Err(NetworkError::Unsupported(text));
            }
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), NetworkError> {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty()
        || name.len() > LONGEST_NAME
        || name == "."
        || name == ".."
        || name.contains(odd)
    {
        return Err(NetworkError::Invalid(format!(
            "invalid interface name {name:?}"
        )));
    }
    Ok(())
}

fn check_sysctl(text: &str) -> Result<(), NetworkError> {
    if parse_sysctl(text).is_some() {
        return Ok(());
    }
    let text = format!(
        "invalid endpoint settings:\nunrecognised network interface sysctl '{text}'; represent \
         'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
    );
    Err(NetworkError::Invalid(text))
}

/// `net.ipv4.conf.IFNAME.log_martians=1`: family, section, setting and value.
fn parse_sysctl(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (name, value) = text.split_once('=')?;
    let parts: Vec<&str> = name.splitn(5, '.').collect();
    let [net, family, section, interface, setting] = parts[..] else {
        return None;
    };
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let known = net == "net"
        && matches!(family, "ipv4" | "ipv6" | "mpls")
        && matches!(interface, "IFNAME" | "ifname")
        && plain(section)
        && plain(setting);
    known.then_some((family, section, setting, value))
}

/// The settings to make, as paths under `/proc/sys`.
pub(crate) fn sysctls(
    options: &BTreeMap<String, String>,
    interface: &str,
) -> Vec<(String, String)> {
    let all = options.get(SYSCTLS).map(String::as_str).unwrap_or_default();
    let settings = all.split(',').filter_map(parse_sysctl);
    settings
        .map(|(family, section, setting, value)| {
            (
                format!("net/{family}/{section}/{interface}/{setting}"),
                value.to_owned(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(name: &str, value: &str) -> BTreeMap<String, String> {
        [(name.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn sysctls_name_only_settings_of_the_interface() {
        let good = options(
            SYSCTLS,
            "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.ifname.ucast_solicit=2",
        );
        assert!(check(&good).is_ok());
        assert_eq!(
            sysctls(&good, "eth0")[0].0,
            "net/ipv4/conf/eth0/log_martians"
        );
        for bad in [
            "net.ipv4.conf.eth0.x=1",
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.IFNAME.../x=1",
            "net.ipv4.conf.IFNAME.x",
        ] {
            assert!(check(&options(SYSCTLS, bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_options_and_impossible_names_are_refused() {
        assert!(check(&options("made.up", "1")).is_err());
        assert!(check(&options(INTERFACE_NAME, "a/b")).is_err());
        assert!(check(&options(INTERFACE_NAME, "sixteen-letters!")).is_err());
        assert!(check(&options(INTERFACE_NAME, "web0")).is_ok());
    }
}
