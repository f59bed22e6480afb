//! Ports of the host: who has which, and the sockets that hold them.
//!
//! A published port is held by a listening socket although NAT takes the packets before they get
//! there: so `netstat` shows it, no other program can take it, and one that has it already is
//! noticed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, bind,
    listen, setsockopt, socket, sockopt,
};
use skep_netlink::sysctl;

use crate::host::Host;
use crate::{NetworkError, PortRequest, Protocol, PublishedPort};

/// How often another port is tried when a program outside holds the first choice.
const ATTEMPTS: usize = 10;
/// Docker's fallback, should the kernel not tell.
const EPHEMERAL: (u16, u16) = (49153, 65535);

/// Which ports this daemon's containers have.
#[derive(Debug, Default)]
pub(crate) struct PortTable {
    taken: BTreeSet<(Protocol, u16, IpAddr)>,
    /// The last ephemeral port given out: the search goes on behind it, so that a freed port is
    /// not reused at once for another container.
    last_ephemeral: Option<u16>,
}

/// A socket that holds a port; closing it frees the port.
#[derive(Debug)]
pub(crate) struct HeldPort {
    pub(crate) port: PublishedPort,
    /// `None` where the kernel has no sockets of this protocol (SCTP).
    pub(crate) socket: Option<OwnedFd>,
}

impl PortTable {
    /// Marks a port that a running container has already.
    pub(crate) fn take(&mut self, port: &PublishedPort) {
        self.taken
            .insert((port.protocol, port.host_port, port.host_ip));
    }

    pub(crate) fn release(&mut self, port: &PublishedPort) {
        self.taken
            .remove(&(port.protocol, port.host_port, port.host_ip));
    }

    fn conflict(&self, protocol: Protocol, port: u16, addresses: &[IpAddr]) -> Option<IpAddr> {
        let lowest = (protocol, port, IpAddr::from([0, 0, 0, 0]));
        let highest = (protocol, port, IpAddr::from(Ipv6Addr::from(u128::MAX)));
        let held: Vec<IpAddr> = self
            .taken
            .range(lowest..=highest)
            .map(|(_, _, address)| *address)
            .collect();
        addresses.iter().copied().find(|wanted| {
            held.iter().any(|held| {
                let same_family = held.is_ipv4() == wanted.is_ipv4();
                same_family && (held.is_unspecified() || wanted.is_unspecified() || held == wanted)
            })
        })
    }

    /// Takes one port, the same on all `addresses`, and binds it.
    pub(crate) fn reserve(
        &mut self,
        host: &Host,
        request: &PortRequest,
        addresses: &[IpAddr],
    ) -> Result<Vec<HeldPort>, NetworkError> {
        let candidates = self.candidates(host, request)?;
        let (protocol, fixed) = (request.protocol, candidates.len() == 1);
        let mut outcome = Err(NetworkError::AllPortsAllocated);
        let mut attempts = 0;
        for port in candidates {
            if let Some(ip) = self.conflict(protocol, port, addresses) {
                if fixed {
                    return Err(NetworkError::PortAllocated { ip, port });
                }
                continue;
            }
            outcome = bind_all(host, request, port, addresses);
            attempts += 1;
            if outcome.is_ok() || attempts == ATTEMPTS {
                break;
            }
        }
        let held = outcome?;
        for HeldPort { port, .. } in &held {
            self.take(port);
            if request.host_ports == (0, 0) {
                self.last_ephemeral = Some(port.host_port);
            }
        }
        Ok(held)
    }

    fn candidates(&self, host: &Host, request: &PortRequest) -> Result<Vec<u16>, NetworkError> {
        let (first, last) = request.host_ports;
        if (first, last) != (0, 0) {
            return Ok((first..=last).collect());
        }
        let (first, last) = host.call(ephemeral_range)?;
        let next = self
            .last_ephemeral
            .map_or(first, |port| port.saturating_add(1));
        let next = if (first..=last).contains(&next) {
            next
        } else {
            first
        };
        Ok((next..=last).chain(first..next).collect())
    }
}

/// Runs in the host's namespace.
fn ephemeral_range() -> (u16, u16) {
    let text = sysctl::get("net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => (first, last),
        _ => EPHEMERAL,
    }
}

/// Binds a port on every address or on none.
fn bind_all(
    host: &Host,
    request: &PortRequest,
    port: u16,
    addresses: &[IpAddr],
) -> Result<Vec<HeldPort>, NetworkError> {
    let (protocol, addresses) = (request.protocol, addresses.to_vec());
    let container_port = request.container_port;
    host.call(move || {
        let mut held = Vec::new();
        for (index, host_ip) in addresses.into_iter().enumerate() {
            let address = SocketAddr::new(host_ip, port);
            let socket = match hold(address, protocol) {
                Ok(socket) => socket,
                // The second address is `[::]` beside 0.0.0.0: without IPv6 there is just one.
                Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
                    if index > 0 && host_ip.is_unspecified() =>
                {
                    continue;
                }
                Err(errno) => return Err(refused(address, protocol, errno)),
            };
            let port = PublishedPort {
                container_port,
                protocol,
                host_ip,
                host_port: port,
            };
            held.push(HeldPort { port, socket });
        }
        Ok(held)
    })?
}

/// Binds ports of a container that runs already.
pub(crate) fn hold_again(host: &Host, port: &PublishedPort) -> Result<HeldPort, NetworkError> {
    let request = PortRequest {
        container_port: port.container_port,
        protocol: port.protocol,
        host_ip: Some(port.host_ip),
        host_ports: (port.host_port, port.host_port),
    };
    let mut held = bind_all(host, &request, port.host_port, &[port.host_ip])?;
    Ok(held.pop().expect("one address was bound"))
}

fn refused(address: SocketAddr, protocol: Protocol, errno: Errno) -> NetworkError {
    // Go writes these texts in lower case, and users search for them.
    let reason = errno.desc();
    let reason = format!("{}{}", reason[..1].to_lowercase(), &reason[1..]);
    NetworkError::PortBind {
        address: address.to_string(),
        protocol: protocol.as_str(),
        reason,
    }
}

/// Binds without listening yet: packets must not be answered here before NAT takes them. Runs in
/// the host's namespace.
fn hold(address: SocketAddr, protocol: Protocol) -> Result<Option<OwnedFd>, Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = match socket(family, kind, flags, number) {
        Err(Errno::EPROTONOSUPPORT) if protocol == Protocol::Sctp => return Ok(None),
        other => other?,
    };
    if protocol != Protocol::Udp {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    match address {
        SocketAddr::V4(v4) => bind(fd.as_raw_fd(), &SockaddrIn::from(v4))?,
        SocketAddr::V6(v6) => {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            bind(fd.as_raw_fd(), &SockaddrIn6::from(v6))?;
        }
    }
    Ok(Some(fd))
}

impl HeldPort {
    /// Makes a bound TCP or SCTP socket listen.
    pub(crate) fn listen(&self) -> Result<(), NetworkError> {
        let (Some(socket), Protocol::Tcp | Protocol::Sctp) = (&self.socket, self.port.protocol)
        else {
            return Ok(());
        };
        listen(socket, Backlog::MAXALLOWABLE).map_err(|errno| {
            let address = SocketAddr::new(self.port.host_ip, self.port.host_port);
            refused(address, self.port.protocol, errno)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(host_ip: &str, host_port: u16) -> PublishedPort {
        PublishedPort {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: host_ip.parse().unwrap(),
            host_port,
        }
    }

    #[test]
    fn everywhere_conflicts_with_any_address_of_the_same_family() {
        let mut table = PortTable::default();
        let addresses = |text: &str| vec![text.parse().unwrap()];
        table.take(&published("10.0.0.1", 80));
        assert!(
            table
                .conflict(Protocol::Tcp, 80, &addresses("0.0.0.0"))
                .is_some()
        );
        assert!(
            table
                .conflict(Protocol::Tcp, 80, &addresses("10.0.0.1"))
                .is_some()
        );
        assert_eq!(
            table.conflict(Protocol::Tcp, 80, &addresses("10.0.0.2")),
            None
        );
        assert_eq!(table.conflict(Protocol::Tcp, 80, &addresses("::")), None);
        assert_eq!(
            table.conflict(Protocol::Udp, 80, &addresses("0.0.0.0")),
            None
        );
        table.take(&published("0.0.0.0", 81));
        assert!(
            table
                .conflict(Protocol::Tcp, 81, &addresses("10.0.0.2"))
                .is_some()
        );
        table.release(&published("0.0.0.0", 81));
        assert_eq!(
            table.conflict(Protocol::Tcp, 81, &addresses("10.0.0.2")),
            None
        );
    }
}
