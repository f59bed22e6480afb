//! The kernel's network configuration, over netlink: links, addresses and routes, network
//! namespaces, sysctls, nf_tables in atomic batches, and raw frames.
//!
//! All calls are synchronous. The kernel answers a netlink request inside the `send` itself, so a
//! request costs some microseconds and never waits for a peer; an async wrapper would cost more
//! than the call. Callers on a tokio worker use `spawn_blocking` where the routing lock may be
//! contended.
//!
//! A socket belongs for good to the network namespace in which it was *opened*, whatever thread
//! uses it later. So [`RouteSocket`] and [`nft::NftSocket`] are opened inside
//! [`Namespace::run`] and then used from anywhere. Sysctl files, by contrast, follow the thread
//! that opens them.
//!
//! Deliberately not here: what networks Docker has, what rules they need, any policy. That is
//! `skep-network`.

mod capability;
mod codec;
mod error;
mod namespace;
mod neighbour;
pub mod nft;
mod packet;
mod route;
mod socket;
pub mod sysctl;

pub use capability::{Capability, missing_capabilities};
pub use error::NetlinkError;
pub use namespace::{Namespace, NamespaceThread};
pub use neighbour::{Forwarding, Neighbour, SourceRoute, Vxlan};
pub use packet::PacketSocket;
pub use route::{Address, BridgePort, Link, NewRoute, Route, RouteSocket, VethPair};
