//! The variables that a link gives: where each exposed port of the other container is, its name,
//! and its own variables.

use skep_network::Protocol;

use super::{DEFAULT_NETWORK, Linked};
use crate::create::ports::parse_port;

pub(super) fn of(parent: &str, linked: &[Linked]) -> Vec<String> {
    let mut variables = Vec::new();
    for one in linked {
        let Some(address) = one
            .record
            .endpoints
            .get(DEFAULT_NETWORK)
            .and_then(|endpoint| endpoint.ipv4)
        else {
            continue;
        };
        let config = &one.record.config;
        let ports = config.exposed_ports.iter().flatten();
        let own = config.env.iter().flatten().map(String::as_str);
        variables.extend(of_one(
            &format!("/{parent}/{}", one.alias),
            &one.alias.to_uppercase().replace('-', "_"),
            &address.to_string(),
            ports.filter_map(|port| parse_port(port)).collect(),
            own,
        ));
    }
    variables
}

fn of_one<'a>(
    name: &str,
    prefix: &str,
    address: &str,
    mut ports: Vec<(u16, Protocol)>,
    own: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    ports.sort_by_key(|(number, protocol)| {
        let text = protocol.to_string();
        (text != "tcp", text, *number)
    });
    let mut variables = Vec::new();
    if let Some((number, protocol)) = ports.first() {
        variables.push(format!("{prefix}_PORT={protocol}://{address}:{number}"));
    }
    for (number, protocol) in &ports {
        let upper = protocol.to_string().to_uppercase();
        let port = format!("{prefix}_PORT_{number}_{upper}");
        variables.push(format!("{port}={protocol}://{address}:{number}"));
        variables.push(format!("{port}_ADDR={address}"));
        variables.push(format!("{port}_PORT={number}"));
        variables.push(format!("{port}_PROTO={protocol}"));
    }
    for (first, last, protocol) in ranges(&ports) {
        let upper = protocol.to_string().to_uppercase();
        let range = format!("{prefix}_PORT_{first}_{upper}");
        variables.push(format!("{range}_START={protocol}://{address}:{first}"));
        variables.push(format!("{range}_PORT_START={first}"));
        variables.push(format!("{range}_END={protocol}://{address}:{last}"));
        variables.push(format!("{range}_PORT_END={last}"));
    }
    variables.push(format!("{prefix}_NAME={name}"));
    // These two are of the other container's image and mean nothing here.
    let theirs = own
        .filter(|variable| variable.contains('='))
        .filter(|variable| !variable.starts_with("HOME=") && !variable.starts_with("PATH="));
    variables.extend(theirs.map(|variable| format!("{prefix}_ENV_{variable}")));
    variables
}

/// Runs of two or more consecutive ports of one protocol, of a sorted list.
fn ranges(ports: &[(u16, Protocol)]) -> Vec<(u16, u16, Protocol)> {
    let mut runs: Vec<(u16, u16, Protocol)> = Vec::new();
    for &(number, protocol) in ports {
        match runs.last_mut() {
            Some((_, last, of)) if *of == protocol && last.checked_add(1) == Some(number) => {
                *last = number;
            }
            _ => runs.push((number, number, protocol)),
        }
    }
    runs.retain(|(first, last, _)| first != last);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_told_and_runs_of_them_again() {
        let ports = ["53/udp", "6380/tcp", "6379"];
        let ports = ports.iter().filter_map(|port| parse_port(port)).collect();
        let own = ["PATH=/bin", "MODE=fast", "BARE"].into_iter();
        assert_eq!(
            of_one("/web/my-db", "MY_DB", "10.0.0.2", ports, own),
            [
                "MY_DB_PORT=tcp://10.0.0.2:6379",
                "MY_DB_PORT_6379_TCP=tcp://10.0.0.2:6379",
                "MY_DB_PORT_6379_TCP_ADDR=10.0.0.2",
                "MY_DB_PORT_6379_TCP_PORT=6379",
                "MY_DB_PORT_6379_TCP_PROTO=tcp",
                "MY_DB_PORT_6380_TCP=tcp://10.0.0.2:6380",
                "MY_DB_PORT_6380_TCP_ADDR=10.0.0.2",
                "MY_DB_PORT_6380_TCP_PORT=6380",
                "MY_DB_PORT_6380_TCP_PROTO=tcp",
                "MY_DB_PORT_53_UDP=udp://10.0.0.2:53",
                "MY_DB_PORT_53_UDP_ADDR=10.0.0.2",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_PORT_6379_TCP_START=tcp://10.0.0.2:6379",
                "MY_DB_PORT_6379_TCP_PORT_START=6379",
                "MY_DB_PORT_6379_TCP_END=tcp://10.0.0.2:6380",
                "MY_DB_PORT_6379_TCP_PORT_END=6380",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_MODE=fast",
            ]
        );
    }
}
