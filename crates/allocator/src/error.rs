use std::net::IpAddr;

use crate::Prefix;

/// Why something could not be allocated. The texts end up in a task's status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    #[error("network {0} not found")]
    NoNetwork(String),
    #[error("network {0} is not allocated yet")]
    Waiting(String),
    #[error("no available IPv4 addresses on network {name}: all {size} are in use")]
    Exhausted { name: String, size: u128 },
    #[error("address {0} is not free")]
    Taken(IpAddr),
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    Overlaps(Prefix),
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoPool,
    #[error("could not parse {what} {text:?}")]
    Malformed { what: &'static str, text: String },
    #[error("port '{port}' is already in use by service '{name}' ({service}) as an ingress port")]
    PortInUse {
        port: u32,
        name: String,
        service: String,
    },
    #[error("no free port between 30000 and 32767")]
    NoPort,
    #[error("no free VXLAN number")]
    NoVni,
}
