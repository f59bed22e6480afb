//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use skep_network::Endpoint;

use crate::config::NetworkOptions;
use crate::container::Record;
use crate::error::Result;

/// Writes the three files into the container's directory.
pub(crate) fn write(
    record: &Record,
    endpoints: &[Endpoint],
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
    std::fs::write(dir.join("hostname"), format!("{full}\n"))?;
    let hosts = if record.network_mode() == "host" {
        let mut text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        push_extra_hosts(&mut text, record, endpoints, network);
        text
    } else {
        hosts(record, endpoints, network, &full, hostname)
    };
    std::fs::write(dir.join("hosts"), hosts)?;
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let keep_local = record.network_mode() == "host";
    std::fs::write(
        dir.join("resolv.conf"),
        resolv_conf(record, network, &host, keep_local),
    )?;
    Ok(())
}

fn hosts(
    record: &Record,
    endpoints: &[Endpoint],
    network: &NetworkOptions,
    full: &str,
    hostname: &str,
) -> String {
    let mut text = "127.0.0.1\tlocalhost\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::\tip6-localnet\n\
                    ff00::\tip6-mcastprefix\n\
                    ff02::1\tip6-allnodes\n\
                    ff02::2\tip6-allrouters\n"
        .to_owned();
    push_extra_hosts(&mut text, record, endpoints, network);
    let names = if full == hostname {
        hostname.to_owned()
    } else {
        format!("{full} {hostname}")
    };
    for endpoint in endpoints {
        let addresses = endpoint
            .ipv4
            .map(IpAddr::V4)
            .into_iter()
            .chain(endpoint.ipv6.map(IpAddr::V6));
        for address in addresses {
            let _ = writeln!(text, "{address}\t{names}");
        }
    }
    text
}

fn push_extra_hosts(
    text: &mut String,
    record: &Record,
    endpoints: &[Endpoint],
    network: &NetworkOptions,
) {
    for extra in record.host_config.extra_hosts.iter().flatten() {
        let Some((name, address)) = extra.split_once(['=', ':']) else {
            continue;
        };
        let address = address
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(address);
        if address == "host-gateway" {
            let mut gateways = network.host_gateway_ips.clone();
            if gateways.is_empty() {
                gateways.extend(
                    endpoints
                        .iter()
                        .find_map(|endpoint| endpoint.gateway)
                        .map(IpAddr::V4),
                );
            }
            if gateways.is_empty() && record.network_mode() == "host" {
                gateways.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
            }
            for gateway in gateways {
                let _ = writeln!(text, "{gateway}\t{name}");
            }
        } else {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
}

/// The host's, with the container's or the daemon's settings in place of its own. Name servers on
/// the loopback interface mean another loopback inside, so they are left out, and if none is left
/// there are public ones, as in Docker.
fn resolv_conf(record: &Record, network: &NetworkOptions, host: &str, keep_local: bool) -> String {
    let pick = |own: &Option<Vec<String>>, daemon: &[String]| match own {
        Some(own) if !own.is_empty() => own.clone(),
        _ => daemon.to_vec(),
    };
    let host_config = &record.host_config;
    let mut servers = pick(&host_config.dns, &network.dns);
    let mut search = pick(&host_config.dns_search, &network.dns_search);
    let mut options = pick(&host_config.dns_options, &network.dns_opts);
    let field = |name: &'static str| {
        host.lines().filter_map(move |line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(name)).then(|| words.map(str::to_owned).collect::<Vec<_>>())
        })
    };
    if servers.is_empty() {
        servers = field("nameserver")
            .filter_map(|words| words.into_iter().next())
            .filter(|server| keep_local || !is_loopback(server))
            .collect();
        if servers.is_empty() && !keep_local {
            servers = vec!["8.8.8.8".to_owned(), "8.8.4.4".to_owned()];
        }
    }
    if search.is_empty() {
        search = field("search").next_back().unwrap_or_default();
    }
    if options.is_empty() {
        options = field("options").flatten().collect();
    }
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    // "." alone means: no search list at all.
    if !search.is_empty() && search != ["."] {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

fn is_loopback(server: &str) -> bool {
    server
        .split('%')
        .next()
        .and_then(|ip| ip.parse::<IpAddr>().ok())
        .is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    const HOST: &str = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch corp example\noptions edns0\n";

    #[test]
    fn local_name_servers_of_the_host_are_left_out() {
        let text = resolv_conf(&record(), &NetworkOptions::default(), HOST, false);
        assert_eq!(
            text,
            "nameserver 10.0.0.1\nsearch corp example\noptions edns0\n"
        );
        let text = resolv_conf(
            &record(),
            &NetworkOptions::default(),
            "nameserver 127.0.0.53\n",
            false,
        );
        assert_eq!(text, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }

    #[test]
    fn the_containers_settings_win_over_the_daemons() {
        let mut record = record();
        record.host_config.dns = Some(vec!["9.9.9.9".to_owned()]);
        record.host_config.dns_search = Some(vec![".".to_owned()]);
        let daemon = NetworkOptions {
            dns: vec!["1.1.1.1".to_owned()],
            dns_opts: vec!["rotate".to_owned()],
            ..Default::default()
        };
        assert_eq!(
            resolv_conf(&record, &daemon, HOST, false),
            "nameserver 9.9.9.9\noptions rotate\n"
        );
    }

    #[test]
    fn extra_hosts_come_before_the_containers_own_address() {
        let mut record = record();
        record.host_config.extra_hosts =
            Some(vec!["db:10.1.2.3".to_owned(), "v6=[::5]".to_owned()]);
        let text = hosts(&record, &[], &NetworkOptions::default(), "box.corp", "box");
        assert!(text.ends_with("10.1.2.3\tdb\n::5\tv6\n"), "{text}");
    }
}
