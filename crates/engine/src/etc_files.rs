//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: which settings go into them.
//! What they look like is skep-network's to know.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use skep_network::{
    DnsSettings, Endpoint, GATEWAY_BRIDGE, HostsRequest, ResolverPlace, ResolverSettings,
};

use crate::config::NetworkOptions;
use crate::container::Record;
use crate::error::{EngineError, Result};

/// Writes the three files into the container's directory. `linked` are the addresses of the
/// containers it is linked to, each with its names.
pub(crate) fn write(
    record: &Record,
    endpoints: &[Endpoint],
    linked: &[(IpAddr, String)],
    dir: &Path,
    network: &NetworkOptions,
) -> Result<()> {
    let hostname = record.config.hostname.as_deref().unwrap_or_default();
    let domain = record.config.domainname.as_deref().unwrap_or_default();
    let full = if domain.is_empty() {
        hostname.to_owned()
    } else {
        format!("{hostname}.{domain}")
    };
    std::fs::write(dir.join("hostname"), skep_network::hostname_file(&full))?;
    let mut hosts = hosts(record, endpoints, network)?;
    for (address, names) in linked {
        let _ = writeln!(hosts, "{address}\t{names}");
    }
    std::fs::write(dir.join("hosts"), hosts)?;
    let resolv_conf = if endpoints.iter().any(has_names) {
        resolver(record, network)?.0
    } else {
        let host = host_resolver(network, record.network_mode() == "host");
        resolv_conf(record, endpoints, network, &host)?
    };
    std::fs::write(dir.join("resolv.conf"), resolv_conf)?;
    Ok(())
}

/// The host's resolver as a container can use it. systemd-resolved shows the host nothing but itself
/// on the loopback interface, and keeps the servers behind it in a file of its own.
fn host_resolver(network: &NetworkOptions, on_host: bool) -> String {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    if on_host {
        return read(Path::new("/etc/resolv.conf"));
    }
    if let Some(path) = &network.resolv_conf {
        return read(path);
    }
    let text = read(Path::new("/etc/resolv.conf"));
    if is_systemd_resolved(&text) {
        let behind = read(Path::new("/run/systemd/resolve/resolv.conf"));
        if !behind.is_empty() {
            return behind;
        }
    }
    text
}

fn is_systemd_resolved(text: &str) -> bool {
    let mut servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())
            .flatten()
    });
    servers.next() == Some("127.0.0.53") && servers.next().is_none()
}

fn hosts(record: &Record, endpoints: &[Endpoint], network: &NetworkOptions) -> Result<String> {
    let extra = extra_hosts(record, endpoints, network);
    let on_host = record.network_mode() == "host";
    if on_host && extra.is_empty() {
        return Ok(std::fs::read_to_string("/etc/hosts").unwrap_or_default());
    }
    let addresses: Vec<IpAddr> = endpoints
        .iter()
        .filter(|_| !on_host)
        .flat_map(|endpoint| {
            let ipv4 = endpoint.ipv4.map(IpAddr::V4);
            ipv4.into_iter().chain(endpoint.ipv6.map(IpAddr::V6))
        })
        .collect();
    skep_network::hosts(&HostsRequest {
        hostname: record.config.hostname.as_deref().unwrap_or_default(),
        domainname: record.config.domainname.as_deref().unwrap_or_default(),
        addresses: &addresses,
        extra: &extra,
        host_gateway: None,
        // The loopback interface has it in every container.
        ipv6: true,
    })
    .map_err(|error| EngineError::invalid(error.to_string()))
}

/// `--add-host` with `host-gateway` replaced by what it stands for, which may be several addresses.
fn extra_hosts(record: &Record, endpoints: &[Endpoint], network: &NetworkOptions) -> Vec<String> {
    let gateways = host_gateways(record, endpoints, network);
    let mut extra = Vec::new();
    for given in record.host_config.extra_hosts.iter().flatten() {
        match given.split_once(['=', ':']) {
            Some((name, "host-gateway")) if !gateways.is_empty() => {
                extra.extend(gateways.iter().map(|gateway| format!("{name}:{gateway}")));
            }
            Some((name, address)) => extra.push(format!("{name}:{address}")),
            None => extra.push(given.clone()),
        }
    }
    extra
}

fn host_gateways(record: &Record, endpoints: &[Endpoint], network: &NetworkOptions) -> Vec<IpAddr> {
    if !network.host_gateway_ips.is_empty() {
        return network.host_gateway_ips.clone();
    }
    let gateway = endpoints.iter().find_map(|endpoint| endpoint.gateway);
    let on_host = (record.network_mode() == "host").then_some(Ipv4Addr::LOCALHOST);
    gateway.or(on_host).map(IpAddr::V4).into_iter().collect()
}

/// The host's file with the container's or else the daemon's settings in place of its own.
fn resolv_conf(
    record: &Record,
    endpoints: &[Endpoint],
    network: &NetworkOptions,
    host: &str,
) -> Result<String> {
    let dns = dns_settings(record, network)?;
    let place = if record.network_mode() == "host" {
        ResolverPlace::HostNetwork
    } else {
        ResolverPlace::OwnNetwork {
            ipv6: endpoints.iter().any(|endpoint| endpoint.ipv6.is_some()),
        }
    };
    Ok(skep_network::resolv_conf(host, &dns, place))
}

/// The container's settings, or else the daemon's.
fn dns_settings(record: &Record, network: &NetworkOptions) -> Result<DnsSettings> {
    let pick = |own: &Option<Vec<String>>, daemon: &[String]| match own {
        Some(own) if !own.is_empty() => own.clone(),
        _ => daemon.to_vec(),
    };
    let own = &record.host_config;
    let servers = pick(&own.dns, &network.dns)
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|_| EngineError::invalid(format!("bad nameserver address: {text}")))
        })
        .collect::<Result<Vec<IpAddr>>>()?;
    Ok(DnsSettings {
        servers,
        search: pick(&own.dns_search, &network.dns_search),
        options: pick(&own.dns_options, &network.dns_opts),
    })
}

/// Whether the network's containers know each other by name.
pub(crate) fn has_names(endpoint: &Endpoint) -> bool {
    !matches!(
        endpoint.network_name.as_str(),
        "bridge" | "host" | "none" | "ingress" | GATEWAY_BRIDGE
    )
}

/// The file of a container that asks its own resolver, and what that is to do.
pub(crate) fn resolver(
    record: &Record,
    network: &NetworkOptions,
) -> Result<(String, ResolverSettings)> {
    // The resolver can ask the host's own loopback servers: nothing has to be left out.
    let path = network.resolv_conf.as_deref();
    let path = path.unwrap_or(Path::new("/etc/resolv.conf"));
    let host = std::fs::read_to_string(path).unwrap_or_default();
    let dns = dns_settings(record, network)?;
    Ok(skep_network::internal_resolv_conf(&host, &dns))
}

/// Leads a container that runs to its resolver, if it was not there yet.
pub(crate) fn use_resolver(record: &Record, dir: &Path, network: &NetworkOptions) -> Result<()> {
    let (text, _) = resolver(record, network)?;
    // In place: the file is mounted into the container.
    Ok(std::fs::write(dir.join("resolv.conf"), text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    const HOST: &str = "nameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch corp\noptions edns0\n";

    fn meaning(file: &str) -> Vec<&str> {
        file.lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect()
    }

    #[test]
    fn the_containers_settings_win_over_the_daemons_and_those_over_the_hosts() {
        let mut record = record();
        record.host_config.dns = Some(vec!["9.9.9.9".to_owned()]);
        record.host_config.dns_search = Some(vec![".".to_owned()]);
        let daemon = NetworkOptions {
            dns: vec!["1.1.1.1".to_owned()],
            dns_opts: vec!["rotate".to_owned()],
            ..Default::default()
        };
        assert_eq!(
            meaning(&resolv_conf(&record, &[], &daemon, HOST).unwrap()),
            ["nameserver 9.9.9.9", "options rotate"]
        );
        record.host_config.dns = None;
        record.host_config.network_mode = Some("host".to_owned());
        assert_eq!(
            meaning(&resolv_conf(&record, &[], &NetworkOptions::default(), HOST).unwrap())[0],
            "nameserver 127.0.0.53"
        );
    }

    #[test]
    fn systemd_resolved_is_known_by_its_only_server() {
        assert!(is_systemd_resolved(
            "# x\nnameserver 127.0.0.53\noptions edns0\n"
        ));
        assert!(!is_systemd_resolved(HOST));
        assert!(!is_systemd_resolved(""));
    }

    #[test]
    fn a_host_gateway_of_two_addresses_gives_two_lines() {
        let mut record = record();
        record.host_config.extra_hosts = Some(vec![
            "db:10.1.2.3".to_owned(),
            "v6=[::5]".to_owned(),
            "gw:host-gateway".to_owned(),
        ]);
        let daemon = NetworkOptions {
            host_gateway_ips: vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
            ..Default::default()
        };
        let text = hosts(&record, &[], &daemon).unwrap();
        assert!(
            text.ends_with("10.1.2.3\tdb\n::5\tv6\n10.0.0.9\tgw\nfd00::9\tgw\n"),
            "{text}"
        );
    }
}
