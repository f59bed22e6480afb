//! Which addresses a manager listens on and tells others: moby's rules, on a list of interfaces.

use std::net::{IpAddr, Ipv6Addr};

use crate::ClusterError;

const BAD_LISTEN: &str =
    "listen address must be an IP address or network interface (with optional port number)";
const BAD_ADVERTISE: &str = "advertise address must be a non-zero IP address or network interface (with optional port number)";
const BAD_DATA_PATH: &str =
    "data path address must be a non-zero IP address or network interface (without a port number)";
const BAD_DEFAULT_ADVERTISE: &str = "default advertise address must be a non-zero IP address or network interface (without a port number)";
const NO_ADDRESS: &str = "could not find the system's IP address";
const MUST_SPECIFY_LISTEN: &str = "must specify a listening address because the address to advertise is not recognized as a system address, and a system's IP address to use could not be uniquely identified";

const DEFAULT_LISTEN_HOST: &str = "0.0.0.0";
const DEFAULT_LISTEN_PORT: &str = "2377";

/// A network interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) up: bool,
    /// A real device, as far as the kernel says; not a bridge, a veth, a tunnel.
    pub(crate) device: bool,
    pub(crate) loopback: bool,
    /// Belongs to one of Docker's own networks.
    pub(crate) managed: bool,
    pub(crate) addresses: Vec<IpAddr>,
}

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressRequest<'a> {
    pub(crate) listen: &'a str,
    pub(crate) advertise: &'a str,
    pub(crate) default_advertise: &'a str,
    pub(crate) data_path: &'a str,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// host:port
    pub(crate) listen: String,
    /// host:port
    pub(crate) advertise: String,
    /// The address of this machine that it is known by; differs from the advertised one behind NAT.
    pub(crate) local: IpAddr,
    pub(crate) data_path: Option<IpAddr>,
}

pub(crate) fn resolve(
    request: &AddressRequest<'_>,
    interfaces: &[Interface],
) -> Result<Addresses, ClusterError> {
    let listen = sanitize_listen(request.listen)?;
    let (listen_host, port) = resolve_listen(&listen, interfaces)?;
    let (advertise_host, advertise_port) = resolve_advertise(request, &port, interfaces)?;
    let data_path = match request.data_path {
        "" => None,
        given => Some(resolve_given(given, false, BAD_DATA_PATH, interfaces)?),
    };
    let is_local = interfaces
        .iter()
        .any(|i| i.addresses.contains(&advertise_host));
    let local = if !listen_host.is_unspecified() {
        listen_host
    } else if is_local {
        advertise_host
    } else {
        system_address(interfaces).map_err(|_| ClusterError::invalid(MUST_SPECIFY_LISTEN))?
    };
    Ok(Addresses {
        listen: join_host_port(&listen_host.to_string(), &port),
        advertise: join_host_port(&advertise_host.to_string(), &advertise_port),
        local,
        data_path,
    })
}

/// For a node that joins: the others can find out its address, so one that is not given is left open,
/// and so, as in dockerd, is one that cannot be resolved. Listen, advertise and data path addresses.
pub(crate) fn resolve_join(
    request: &AddressRequest<'_>,
    interfaces: &[Interface],
) -> Result<(String, String, String), ClusterError> {
    let listen = sanitize_listen(request.listen)?;
    let (host, port) = resolve_listen(&listen, interfaces)?;
    let advertise = match request.advertise {
        "" => String::new(),
        _ => resolve_advertise(request, &port, interfaces)
            .map(|(host, port)| join_host_port(&host.to_string(), &port))
            .unwrap_or_default(),
    };
    let data_path = match request.data_path {
        "" => String::new(),
        given => resolve_given(given, false, BAD_DATA_PATH, interfaces)?.to_string(),
    };
    Ok((
        join_host_port(&host.to_string(), &port),
        advertise,
        data_path,
    ))
}

/// The managers' addresses of a join, with what they leave out.
pub(crate) fn remotes(given: &[String]) -> Result<Vec<String>, ClusterError> {
    if given.is_empty() {
        return Err(ClusterError::invalid(
            "at least 1 RemoteAddr is required to join",
        ));
    }
    let complete = |addr: &String| {
        if addr.is_empty() {
            return Err(ClusterError::invalid(
                "invalid remoteAddr \"\": invalid empty address",
            ));
        }
        sanitize_listen(addr)
    };
    given.iter().map(complete).collect()
}

/// The address of this machine from which packets go to `remote`; empty if there is no way.
pub(crate) fn on_route(listen: &str, remote: &str) -> String {
    let host = host_of(listen);
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => {}
        _ => return host.to_owned(),
    }
    // Connecting a datagram socket sends nothing; it only chooses the route.
    let route = |bind: &str| -> std::io::Result<IpAddr> {
        let socket = std::net::UdpSocket::bind(bind)?;
        socket.connect(remote)?;
        Ok(socket.local_addr()?.ip())
    };
    route("0.0.0.0:0")
        .or_else(|_| route("[::]:0"))
        .map(|ip| ip.to_canonical().to_string())
        .unwrap_or_default()
}

/// Fills in what a listen address leaves out. Text that is no `host:port` stays as it is; resolving
/// it says what is wrong.
fn sanitize_listen(text: &str) -> Result<String, ClusterError> {
    if text.is_empty() {
        return Err(ClusterError::invalid(
            "invalid ListenAddr \"\": invalid empty address",
        ));
    }
    let bare = text.strip_prefix("tcp://").unwrap_or(text);
    if bare.contains('/') {
        return Ok(text.to_owned());
    }
    let (host, port) = match split_host_port(bare) {
        Some(parts) => parts,
        None if !bare.contains(':') => (bare, ""),
        None => match bare
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(host) => (host, ""),
            None => return Ok(bare.to_owned()),
        },
    };
    let host = if host.is_empty() {
        DEFAULT_LISTEN_HOST
    } else {
        host
    };
    let port = if port.is_empty() {
        DEFAULT_LISTEN_PORT
    } else {
        port
    };
    Ok(join_host_port(host, port))
}

fn resolve_listen(
    listen: &str,
    interfaces: &[Interface],
) -> Result<(IpAddr, String), ClusterError> {
    let (host, port) = split_host_port(listen)
        .ok_or_else(|| ClusterError::invalid(format!("could not parse listen address {listen}")))?;
    let address = resolve_given(host, true, BAD_LISTEN, interfaces)?;
    check_port(port)?;
    Ok((address, port.to_owned()))
}

fn resolve_advertise(
    request: &AddressRequest<'_>,
    listen_port: &str,
    interfaces: &[Interface],
) -> Result<(IpAddr, String), ClusterError> {
    if !request.advertise.is_empty() {
        let (host, port) =
            split_host_port(request.advertise).unwrap_or((request.advertise, listen_port));
        let address = resolve_given(host, false, BAD_ADVERTISE, interfaces)?;
        check_port(port)?;
        return Ok((address, port.to_owned()));
    }
    let address = match request.default_advertise {
        "" => system_address(interfaces)?,
        given => resolve_given(given, false, BAD_DEFAULT_ADVERTISE, interfaces)?,
    };
    Ok((address, listen_port.to_owned()))
}

/// An interface's name, or else an address. `otherwise` is said if it is neither.
fn resolve_given(
    given: &str,
    unspecified_is_fine: bool,
    otherwise: &str,
    interfaces: &[Interface],
) -> Result<IpAddr, ClusterError> {
    if let Some(interface) = interfaces.iter().find(|interface| interface.name == given) {
        return interface_address(interface);
    }
    given
        .parse::<IpAddr>()
        .ok()
        .filter(|address| unspecified_is_fine || !address.is_unspecified())
        .ok_or_else(|| ClusterError::invalid(otherwise))
}

fn check_port(port: &str) -> Result<(), ClusterError> {
    match port.parse::<u16>() {
        Ok(_) => Ok(()),
        Err(_) => Err(ClusterError::invalid(format!(
            "invalid port {port:?} in address"
        ))),
    }
}

/// The interface's only IPv4 address, or else its only IPv6 address.
fn interface_address(interface: &Interface) -> Result<IpAddr, ClusterError> {
    let name = &interface.name;
    let only = |family: &str, matches: fn(&IpAddr) -> bool| {
        let mut addresses = interface
            .addresses
            .iter()
            .filter(|address| matches(address));
        match (addresses.next(), addresses.next()) {
            (Some(a), Some(b)) => Err(ClusterError::invalid(format!(
                "interface {name} has more than one {family} address ({a} and {b})"
            ))),
            (first, _) => Ok(first.copied()),
        }
    };
    let (v4, v6) = (
        only("IPv4", IpAddr::is_ipv4)?,
        only("IPv6", IpAddr::is_ipv6)?,
    );
    v4.or(v6).ok_or_else(|| {
        ClusterError::invalid(format!(
            "interface {name} has no usable IPv4 or IPv6 address"
        ))
    })
}

/// This machine's only address, if it has only one: first among real devices; where there is none
/// (in a container or a lab, whose devices are veths), among all that are not Docker's own.
fn system_address(interfaces: &[Interface]) -> Result<IpAddr, ClusterError> {
    let devices = || {
        interfaces
            .iter()
            .filter(|interface| interface.up && interface.device)
    };
    let device_found = devices().any(|interface| interface.addresses.iter().any(is_global_unicast));
    if device_found {
        return only_address(devices());
    }
    only_address(
        interfaces
            .iter()
            .filter(|i| i.up && !i.loopback && !i.managed),
    )
}

fn only_address<'a>(
    interfaces: impl Iterator<Item = &'a Interface>,
) -> Result<IpAddr, ClusterError> {
    let mut chosen: Option<(IpAddr, &str)> = None;
    for interface in interfaces {
        let name = interface.name.as_str();
        let (mut v4, mut v6): (Option<IpAddr>, Option<IpAddr>) = (None, None);
        for &address in interface
            .addresses
            .iter()
            .filter(|address| is_global_unicast(address))
        {
            let seen = if address.is_ipv4() { &mut v4 } else { &mut v6 };
            if let Some(other) = seen.replace(address) {
                return Err(several((other, name), (address, name)));
            }
        }
        let Some(address) = v4.or(v6) else { continue };
        if let Some(other) = chosen.replace((address, name)) {
            return Err(several(other, (address, name)));
        }
    }
    chosen
        .map(|(address, _)| address)
        .ok_or_else(|| ClusterError::invalid(NO_ADDRESS))
}

fn several((a, on_a): (IpAddr, &str), (b, on_b): (IpAddr, &str)) -> ClusterError {
    const WHAT: &str =
        "could not choose an IP address to advertise since this system has multiple addresses on";
    ClusterError::invalid(if on_a == on_b {
        format!("{WHAT} interface {on_a} ({a} and {b})")
    } else {
        format!("{WHAT} different interfaces ({a} on {on_a} and {b} on {on_b})")
    })
}

/// As Go's `IP.IsGlobalUnicast`: private addresses count.
fn is_global_unicast(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => is_v6_link_local(*address),
    };
    !link_local && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

fn is_v6_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// As Go's `net.SplitHostPort`, for the forms that occur: `host:port`, `[v6]:port`, `:port`.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:")?;
        return (!port.contains(':')).then_some((host, port));
    }
    let (host, port) = text.rsplit_once(':')?;
    (!host.contains(':')).then_some((host, port))
}

pub(crate) fn join_host_port(host: &str, port: &str) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The host of a `host:port` that [`join_host_port`] made.
pub(crate) fn host_of(address: &str) -> &str {
    split_host_port(address).map_or(address, |(host, _)| host)
}

#[cfg(test)]
mod tests;
