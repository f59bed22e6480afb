//! The resolver of a container: answers at 127.0.0.11 inside its namespace for the names of its
//! user-defined networks, and asks the upstream servers for everything else.
//!
//! ```text
//!   container ── 127.0.0.11:53 ──nft──▶ 127.0.0.11:<any> ── tasks of the daemon
//!                                                              │ known name: answered from the state
//!                                                              └ other: upstream, from inside the
//!                                                                container's namespace
//! ```
//!
//! The sockets are opened inside the namespace and served by the daemon: there is no process per
//! container, and a restarted daemon opens them again. The port is any free one, since a container
//! may run a name server of its own.

mod forward;
mod message;
mod names;
mod server;

pub(crate) use message::Zone;
pub(crate) use names::Names;
pub(crate) use server::Resolver;

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// Where every container finds its resolver.
pub const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// A name server that is asked for what is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub address: IpAddr,
    /// Asked from the host's namespace: its own loopback servers are not the container's.
    pub from_host: bool,
}

/// What the engine says about a container's resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverSettings {
    pub upstream: Vec<Upstream>,
    /// The `ndots` option the user gave: with more than 0, a name without a dot is not asked
    /// upstream; the client comes again with its search domains.
    pub ndots: u32,
}
