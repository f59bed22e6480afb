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
//! Containers of user-defined networks know each other by name: `dns` serves 127.0.0.11 in each.
//!
//! `overlay` is this node's part in the swarm's networks and in its routing mesh.
//!
//! Deliberately not here: who gets which address in the swarm (the managers), anything about what
//! a container is.

mod attach;
mod bridge;
mod cleaner;
mod config;
mod create;
mod defaults;
mod definition;
mod detach;
mod dns;
mod endpoint;
mod error;
mod files;
mod firewall;
mod host;
mod inner;
mod inspect;
mod local;
mod options;
mod overlay;
mod plan;
mod ports;
mod proxy;
mod publish;
mod publishing;
mod resolver;
mod sandbox;
mod state;
mod store;

pub use config::NetworkConfig;
pub use dns::{RESOLVER_ADDRESS, ResolverSettings, Upstream};
pub use endpoint::{
    Endpoint, EndpointRequest, MacAddress, PortRequest, Protocol, PublishedPort, port_map,
};
pub use error::{NetworkError, NetworkErrorKind};
pub use files::{
    DnsSettings, ExtraHostError, HostsRequest, ResolverPlace, hostname_file, hosts,
    internal_resolv_conf, parse_extra_host, resolv_conf,
};
pub use local::{LocalNetworks, NetworkSummary, RestoreReport};
pub use overlay::{GATEWAY_BRIDGE, OverlayNetwork, SwarmNode};
pub use skep_allocator::{AddressPool, InvalidPrefix, Prefix};
