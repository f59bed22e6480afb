//! Published and exposed ports.

use std::net::IpAddr;

use bollard_stubs::models as m;
use skep_network::{PortRequest, Protocol};

use crate::error::{EngineError, Result};

/// Checks `HostConfig.PortBindings`.
pub(crate) fn check_bindings(bindings: Option<&m::PortMap>) -> Result<()> {
    for (port, hosts) in bindings.into_iter().flatten() {
        parse_port(port)
            .ok_or_else(|| EngineError::invalid(format!("invalid port specification: {port:?}")))?;
        for host in hosts.iter().flatten() {
            let text = host.host_port.as_deref().unwrap_or_default();
            parse_range(text).ok_or_else(|| {
                EngineError::invalid(format!("invalid port specification: {text:?}"))
            })?;
            parse_ip(host.host_ip.as_deref()).map_err(|ip| {
                EngineError::invalid(format!("invalid IP address in port binding: {ip:?}"))
            })?;
        }
    }
    Ok(())
}

/// "80/tcp"; the protocol may be left out.
pub(crate) fn parse_port(text: &str) -> Option<(u16, Protocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 = number.parse().ok().filter(|&number| number != 0)?;
    Some((number, protocol.parse().ok()?))
}

/// "", "8080" or "8080-8090".
fn parse_range(text: &str) -> Option<(u16, u16)> {
    if text.is_empty() {
        return Some((0, 0));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

fn parse_ip(text: Option<&str>) -> std::result::Result<Option<IpAddr>, String> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| text.to_owned()),
    }
}

/// What to publish: the bindings, and with `--publish-all` every other exposed port.
pub(crate) fn requests(host: &m::HostConfig, exposed: Option<&Vec<String>>) -> Vec<PortRequest> {
    let mut requests = Vec::new();
    let empty = m::PortMap::new();
    let bindings = host.port_bindings.as_ref().unwrap_or(&empty);
    let mut bound: Vec<_> = bindings.iter().collect();
    bound.sort_by(|a, b| a.0.cmp(b.0));
    for (port, hosts) in bound {
        let Some((container_port, protocol)) = parse_port(port) else {
            continue;
        };
        for host in hosts.iter().flatten() {
            requests.push(PortRequest {
                container_port,
                protocol,
                host_ip: parse_ip(host.host_ip.as_deref()).ok().flatten(),
                host_ports: parse_range(host.host_port.as_deref().unwrap_or_default())
                    .unwrap_or((0, 0)),
            });
        }
    }
    if host.publish_all_ports == Some(true) {
        let mut exposed: Vec<_> = exposed
            .into_iter()
            .flatten()
            .filter_map(|port| parse_port(port))
            .collect();
        exposed.sort_unstable();
        for (container_port, protocol) in exposed {
            let known = |request: &PortRequest| {
                request.container_port == container_port && request.protocol == protocol
            };
            if !requests.iter().any(known) {
                requests.push(PortRequest {
                    container_port,
                    protocol,
                    host_ip: None,
                    host_ports: (0, 0),
                });
            }
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publish_all_adds_what_is_not_bound_already() {
        let host = m::HostConfig {
            publish_all_ports: Some(true),
            port_bindings: Some(
                [(
                    "80/tcp".to_owned(),
                    Some(vec![m::PortBinding {
                        host_ip: None,
                        host_port: Some("8080".to_owned()),
                    }]),
                )]
                .into(),
            ),
            ..Default::default()
        };
        let exposed = vec!["80/tcp".to_owned(), "53/udp".to_owned()];
        let requests = requests(&host, Some(&exposed));
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].host_ports, (8080, 8080));
        assert_eq!(
            (requests[1].container_port, requests[1].host_ports),
            (53, (0, 0))
        );
    }

    #[test]
    fn bad_ports_are_quoted() {
        let bindings = |port: &str, host: &str| -> m::PortMap {
            [(
                port.to_owned(),
                Some(vec![m::PortBinding {
                    host_ip: None,
                    host_port: Some(host.to_owned()),
                }]),
            )]
            .into()
        };
        for (port, host) in [
            ("0/tcp", ""),
            ("80/foo", ""),
            ("80/tcp", "9-8"),
            ("80/tcp", "x"),
        ] {
            assert!(
                check_bindings(Some(&bindings(port, host))).is_err(),
                "{port} {host}"
            );
        }
        assert_eq!(
            check_bindings(Some(&bindings("80/tcp", "x")))
                .unwrap_err()
                .message,
            "invalid port specification: \"x\""
        );
    }
}
