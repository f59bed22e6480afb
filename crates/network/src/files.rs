//! The content of a container's `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`. Pure: the
//! caller reads the host's files and writes the container's.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::{RESOLVER_ADDRESS, ResolverSettings, Upstream};

/// Used when the host's own servers cannot be reached from a container.
const FALLBACK_IPV4: [&str; 2] = ["8.8.8.8", "8.8.4.4"];
const FALLBACK_IPV6: [&str; 2] = ["2001:4860:4860::8888", "2001:4860:4860::8844"];

/// What goes into `/etc/hosts`.
#[derive(Debug, Clone, Default)]
pub struct HostsRequest<'a> {
    pub hostname: &'a str,
    pub domainname: &'a str,
    /// The container's own addresses.
    pub addresses: &'a [IpAddr],
    /// `--add-host`: `name:address`, the address possibly `host-gateway`.
    pub extra: &'a [String],
    /// What `host-gateway` stands for.
    pub host_gateway: Option<IpAddr>,
    /// Whether the container has IPv6; on the loopback interface every container has it.
    pub ipv6: bool,
}

/// An `--add-host` that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtraHostError {
    #[error("bad format for add-host: {0:?}")]
    Format(String),
    #[error("invalid IP address in add-host: {0:?}")]
    Address(String),
    #[error("unable to derive the IP value for host-gateway")]
    NoGateway,
}

/// The file for a container with a network of its own. With `--network host` and no extra hosts
/// Docker copies the host's file instead; with extra hosts it is this one, without addresses.
pub fn hosts(request: &HostsRequest<'_>) -> Result<String, ExtraHostError> {
    let mut lines = vec![("127.0.0.1".to_owned(), "localhost".to_owned())];
    if request.ipv6 {
        let ipv6 = [
            ("::1", "localhost ip6-localhost ip6-loopback"),
            ("fe00::", "ip6-localnet"),
            ("ff00::", "ip6-mcastprefix"),
            ("ff02::1", "ip6-allnodes"),
            ("ff02::2", "ip6-allrouters"),
        ];
        lines.extend(ipv6.map(|(address, names)| (address.to_owned(), names.to_owned())));
    }
    for extra in request.extra {
        let (name, address) = parse_extra_host(extra, request.host_gateway)?;
        if address.is_ipv4() || request.ipv6 {
            lines.push((address.to_string(), name));
        }
    }
    let own = own_names(request.hostname, request.domainname);
    lines.extend(
        request
            .addresses
            .iter()
            .map(|address| (address.to_string(), own.clone())),
    );
    let mut file = String::new();
    for (address, names) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(file, "{address}\t{names}");
    }
    Ok(file)
}

/// `name:address` with `host-gateway` resolved; brackets around IPv6 addresses are allowed.
pub fn parse_extra_host(
    text: &str,
    host_gateway: Option<IpAddr>,
) -> Result<(String, IpAddr), ExtraHostError> {
    let (name, address) = text
        .split_once(':')
        .filter(|(name, _)| !name.is_empty() && !name.contains(char::is_whitespace))
        .ok_or_else(|| ExtraHostError::Format(text.to_owned()))?;
    if address == "host-gateway" {
        return Ok((
            name.to_owned(),
            host_gateway.ok_or(ExtraHostError::NoGateway)?,
        ));
    }
    let inner = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let parsed = inner.unwrap_or(address).parse();
    let address = parsed.map_err(|_| ExtraHostError::Address(address.to_owned()))?;
    Ok((name.to_owned(), address))
}

/// The full name and its first part.
fn own_names(hostname: &str, domainname: &str) -> String {
    let full = if domainname.is_empty() {
        hostname.to_owned()
    } else {
        format!("{hostname}.{domainname}")
    };
    match full.split_once('.') {
        Some((first, _)) => format!("{full} {first}"),
        None => full,
    }
}

/// The content of `/etc/hostname`.
pub fn hostname_file(hostname: &str) -> String {
    format!("{hostname}\n")
}

/// `--dns`, `--dns-search` and `--dns-option`, the container's or else the daemon's. Empty: as on
/// the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsSettings {
    pub servers: Vec<IpAddr>,
    /// A single `.` stands for no search domain at all.
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// Which network the container is on, for [`resolv_conf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolverPlace {
    /// `--network host`: the host's loopback servers can be reached.
    HostNetwork,
    /// Its own namespace, without or with IPv6.
    OwnNetwork { ipv6: bool },
}

/// What a resolv.conf says.
#[derive(Debug, Default)]
struct ResolvConf {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    options: Vec<String>,
    /// Lines that nobody here knows.
    other: Vec<String>,
}

/// The container's `/etc/resolv.conf`, made from the host's (empty if it has none).
pub fn resolv_conf(host_file: &str, dns: &DnsSettings, place: ResolverPlace) -> String {
    let mut conf = ResolvConf::parse(host_file);
    let mut notes = Vec::new();
    if dns.servers.is_empty() {
        if let ResolverPlace::OwnNetwork { ipv6 } = place {
            conf.servers
                .retain(|server| !server.is_loopback() && (server.is_ipv4() || ipv6));
            if conf.servers.is_empty() {
                let more = FALLBACK_IPV6.iter().filter(|_| ipv6);
                let servers = FALLBACK_IPV4.iter().chain(more);
                conf.servers = servers.filter_map(|text| text.parse().ok()).collect();
                notes.push("# Used default nameservers.".to_owned());
            }
        }
    } else {
        conf.servers.clone_from(&dns.servers);
    }
    if !dns.search.is_empty() {
        conf.search = dns
            .search
            .iter()
            .filter(|domain| *domain != ".")
            .cloned()
            .collect();
    }
    if !dns.options.is_empty() {
        conf.options.clone_from(&dns.options);
    }
    notes.push(format!("# Overrides: [{}]", overrides(dns).join(" ")));
    conf.write(&notes)
}

/// The file of a container with a resolver of its own, as dockerd writes it, comments included:
/// people and scripts read them. Also what that resolver is to do.
pub fn internal_resolv_conf(host_file: &str, dns: &DnsSettings) -> (String, ResolverSettings) {
    let mut conf = ResolvConf::parse(host_file);
    let upstream = |servers: &[IpAddr], from_host: bool| -> Vec<Upstream> {
        let servers = servers.iter().map(|&address| Upstream {
            address,
            // The host's own loopback servers can only be asked from there.
            from_host: from_host && address.is_loopback(),
        });
        servers.collect()
    };
    let mut upstream = if dns.servers.is_empty() {
        upstream(&conf.servers, true)
    } else {
        upstream(&dns.servers, false)
    };
    if upstream.is_empty() {
        let public = FALLBACK_IPV4.iter().filter_map(|text| text.parse().ok());
        upstream.extend(public.map(|address| Upstream {
            address,
            from_host: false,
        }));
    }
    if !dns.search.is_empty() {
        conf.search.clone_from(&dns.search);
        conf.search.retain(|domain| domain != ".");
    }
    let is_ndots = |option: &String| option.starts_with("ndots:");
    let ndots = dns
        .options
        .iter()
        .find_map(|option| option.strip_prefix("ndots:")?.parse().ok());
    if dns.options.is_empty() {
        conf.options.retain(|option| !is_ndots(option));
    } else {
        conf.options.clone_from(&dns.options);
    }
    if !conf.options.iter().any(is_ndots) {
        conf.options.push("ndots:0".to_owned());
    }
    conf.servers = vec![RESOLVER_ADDRESS.into()];
    let shown = upstream.iter().map(|server| {
        if server.from_host {
            format!("host({})", server.address)
        } else {
            server.address.to_string()
        }
    });
    let notes = [
        "# Based on host file: '/etc/resolv.conf' (internal resolver)".to_owned(),
        format!("# ExtServers: [{}]", shown.collect::<Vec<_>>().join(" ")),
        format!("# Overrides: [{}]", overrides(dns).join(" ")),
        format!(
            "# Option ndots from: {}",
            if ndots.is_some() {
                "override"
            } else {
                "internal"
            }
        ),
    ];
    let settings = ResolverSettings {
        upstream,
        ndots: ndots.unwrap_or(0),
    };
    (conf.write(&notes), settings)
}

fn overrides(dns: &DnsSettings) -> Vec<&'static str> {
    let all = [
        (dns.servers.is_empty(), "nameservers"),
        (dns.search.is_empty(), "search"),
        (dns.options.is_empty(), "options"),
    ];
    all.into_iter()
        .filter(|(empty, _)| !empty)
        .map(|(_, name)| name)
        .collect()
}

impl ResolvConf {
    fn parse(file: &str) -> Self {
        let mut conf = Self::default();
        for line in file.lines() {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace();
            let Some(directive) = words.next() else {
                continue;
            };
            let rest: Vec<String> = words.map(str::to_owned).collect();
            match directive {
                "nameserver" => conf
                    .servers
                    .extend(rest.first().and_then(|text| text.parse::<IpAddr>().ok())),
                // `domain` is the old name; the last of them counts.
                "search" | "domain" if !rest.is_empty() => conf.search = rest,
                "options" => conf.options.extend(rest),
                "search" | "domain" => {}
                _ => conf.other.push(line.to_owned()),
            }
        }
        conf
    }

    fn write(&self, notes: &[String]) -> String {
        let mut lines = vec![
            "# Made by skep from the host's file. It can be edited; skep makes no further"
                .to_owned(),
            "# changes once it has been.".to_owned(),
            String::new(),
        ];
        lines.extend(
            self.servers
                .iter()
                .map(|server| format!("nameserver {server}")),
        );
        for (name, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                lines.push(format!("{name} {}", words.join(" ")));
            }
        }
        lines.extend(self.other.iter().cloned());
        lines.push(String::new());
        lines.extend(notes.iter().cloned());
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: ResolverPlace = ResolverPlace::OwnNetwork { ipv6: false };

    fn meaning(file: &str) -> Vec<&str> {
        file.lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect()
    }

    #[test]
    fn loopback_servers_of_the_host_are_no_use_in_a_container() {
        let host = "nameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver fd00::1\nsearch a b\n\
                    options edns0 trust-ad\nsortlist 1.2.3.4\n# note\n";
        let file = resolv_conf(host, &DnsSettings::default(), OWN);
        assert_eq!(
            meaning(&file),
            [
                "nameserver 10.0.0.1",
                "search a b",
                "options edns0 trust-ad",
                "sortlist 1.2.3.4"
            ]
        );
        let both = resolv_conf(
            host,
            &DnsSettings::default(),
            ResolverPlace::OwnNetwork { ipv6: true },
        );
        assert!(both.contains("nameserver fd00::1"));
        let on_host = resolv_conf(host, &DnsSettings::default(), ResolverPlace::HostNetwork);
        assert!(on_host.contains("nameserver 127.0.0.53"));
    }

    #[test]
    fn with_a_resolver_of_its_own_a_container_asks_only_that() {
        let host = "nameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch corp\noptions edns0\n";
        let (file, settings) = internal_resolv_conf(host, &DnsSettings::default());
        assert_eq!(
            meaning(&file),
            [
                "nameserver 127.0.0.11",
                "search corp",
                "options edns0 ndots:0"
            ]
        );
        assert!(file.contains("# ExtServers: [host(127.0.0.53) 10.0.0.1]\n"));
        assert_eq!(settings.ndots, 0);
        let dns = DnsSettings {
            servers: vec!["127.0.0.1".parse().unwrap()],
            options: vec!["ndots:2".to_owned()],
            ..DnsSettings::default()
        };
        let (file, settings) = internal_resolv_conf(host, &dns);
        // A loopback server that was asked for is the container's own.
        assert_eq!((settings.ndots, settings.upstream[0].from_host), (2, false));
        assert!(file.contains("# Option ndots from: override\n"));
        assert!(file.contains("# Overrides: [nameservers options]\n"));
    }

    #[test]
    fn public_servers_stand_in_when_none_is_left() {
        let file = resolv_conf("nameserver 127.0.0.53\n", &DnsSettings::default(), OWN);
        assert_eq!(meaning(&file), ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]);
        let file = resolv_conf(
            "",
            &DnsSettings::default(),
            ResolverPlace::OwnNetwork { ipv6: true },
        );
        assert!(file.contains("nameserver 2001:4860:4860::8888"));
    }

    #[test]
    fn what_the_user_asks_for_replaces_the_hosts() {
        let dns = DnsSettings {
            servers: vec!["127.0.0.1".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["ndots:2".to_owned()],
        };
        let file = resolv_conf("nameserver 10.0.0.1\nsearch a\noptions edns0\n", &dns, OWN);
        assert_eq!(meaning(&file), ["nameserver 127.0.0.1", "options ndots:2"]);
        assert!(file.contains("# Overrides: [nameservers search options]"));
    }

    #[test]
    fn the_hosts_file_names_the_container_and_its_extra_hosts() {
        let extra = [
            "db:10.0.0.9".to_owned(),
            "gate:host-gateway".to_owned(),
            "six:[fd00::1]".to_owned(),
        ];
        let file = hosts(&HostsRequest {
            hostname: "web",
            domainname: "example.org",
            addresses: &["172.17.0.2".parse().unwrap()],
            extra: &extra,
            host_gateway: Some("172.17.0.1".parse().unwrap()),
            ipv6: true,
        })
        .unwrap();
        assert_eq!(
            file,
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
             ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n\
             10.0.0.9\tdb\n172.17.0.1\tgate\nfd00::1\tsix\n172.17.0.2\tweb.example.org web\n"
        );
    }

    #[test]
    fn bad_extra_hosts_are_refused_in_dockers_words() {
        let error = |text: &str| parse_extra_host(text, None).unwrap_err().to_string();
        assert_eq!(error("name"), "bad format for add-host: \"name\"");
        assert_eq!(
            error("name:1.2.3"),
            "invalid IP address in add-host: \"1.2.3\""
        );
        assert_eq!(
            error("name:host-gateway"),
            "unable to derive the IP value for host-gateway"
        );
        assert_eq!(
            parse_extra_host("six:::1", None).unwrap().1.to_string(),
            "::1"
        );
    }
}
