//! Docker's local networks: the default bridge, user-defined bridges, `host` and `none`.
//!
//! ```text
//!   container namespace          the host's namespace
//!   eth0 ───── veth ───── docker0 (bridge, gateway address) ── routing ── the outside
//!                                      │
//!                          nftables table `skep-<bridge>`: NAT out, published ports in,
//!                          isolation between bridges
//! ```
//!
//! [`LocalNetworks`] owns definitions (kept in the data root), addresses, namespaces, interfaces
//! and rules. What a container has is also written to the exec root, which lives exactly as long
//! as the kernel state it describes, so a restarted daemon picks everything up as it is and
//! removes what belongs to nobody.
//!
//! Deliberately not here: names (the DNS server), overlays, anything about what a container is.

mod addresses;
mod attach;
mod bridge;
mod cleaner;
mod config;
mod create;
mod defaults;
mod definition;
mod detach;
mod endpoint;
mod error;
mod files;
mod firewall;
mod host;
mod inner;
mod inspect;
mod local;
mod options;
mod plan;
mod pools;
mod ports;
mod prefix;
mod proxy;
mod publish;
mod publishing;
mod sandbox;
mod state;
mod store;

pub use config::{AddressPool, NetworkConfig};
pub use endpoint::{
    Endpoint, EndpointRequest, MacAddress, PortRequest, Protocol, PublishedPort, port_map,
};
pub use error::{NetworkError, NetworkErrorKind};
pub use files::{
    DnsSettings, ExtraHostError, HostsRequest, ResolverPlace, hostname_file, hosts,
    parse_extra_host, resolv_conf,
};
pub use local::{LocalNetworks, NetworkSummary, RestoreReport};
pub use prefix::{InvalidPrefix, Prefix};
