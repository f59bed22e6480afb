//! What can go wrong, in the words Docker's users know.

use std::net::IpAddr;

use skep_netlink::NetlinkError;

/// A refused or failed network operation. `Display` is the text the API returns;
/// [`NetworkError::kind`] says which status code goes with it.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("network {0} not found")]
    NotFound(String),
    #[error("network {0} is ambiguous ({1} matches found on name)")]
    AmbiguousName(String, usize),
    #[error("network {0} is ambiguous ({1} matches found based on ID prefix)")]
    AmbiguousId(String, usize),
    #[error("network with name {0} already exists")]
    NameInUse(String),
    /// The blank at the end is Docker's.
    #[error("operation is not permitted on predefined {0} network ")]
    Predefined(String),
    #[error("{0} is a pre-defined network and cannot be removed")]
    PredefinedRemoval(String),
    #[error("error while removing network: network {name} has active endpoints ({endpoints})")]
    ActiveEndpoints {
        name: String,
        id: String,
        endpoints: String,
    },
    /// Something other than a network is not there, in its own words.
    #[error("{0}")]
    NotFoundText(String),
    #[error("container {container} is not connected to network {network}")]
    NotConnected { container: String, network: String },
    #[error("endpoint with name {container} already exists in network {network}")]
    EndpointExists { container: String, network: String },
    #[error("Address already in use")]
    AddressInUse(IpAddr),
    #[error("no available IPv{version} addresses on this network's address pools: {network}")]
    PoolExhausted { network: String, version: u8 },
    #[error("all predefined address pools have been fully subnetted")]
    NoFreePool,
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    PoolOverlaps,
    #[error("Bind for {ip}:{port} failed: port is already allocated")]
    PortAllocated { ip: IpAddr, port: u16 },
    #[error("all ports are allocated")]
    AllPortsAllocated,
    #[error("failed to bind host port {address}/{protocol}: {reason}")]
    PortBind {
        address: String,
        protocol: &'static str,
        reason: String,
    },
    #[error(
        "driver failed programming external connectivity on endpoint {container} ({endpoint}): {source}"
    )]
    ExternalConnectivity {
        container: String,
        endpoint: String,
        source: Box<NetworkError>,
    },
    /// What the request asks for makes no sense (HTTP 400).
    #[error("{0}")]
    Invalid(String),
    /// Understood, and not allowed here (HTTP 403).
    #[error("{0}")]
    Forbidden(String),
    /// Known to Docker and not offered by skep yet (HTTP 501).
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Kernel(#[from] NetlinkError),
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    /// Several parts of a teardown failed; all were tried.
    #[error("{}", .0.join("; "))]
    Teardown(Vec<String>),
}

/// Which of Docker's error classes a [`NetworkError`] belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkErrorKind {
    /// 400
    InvalidParameter,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 500
    System,
    /// 501
    NotImplemented,
}

impl NetworkError {
    pub fn kind(&self) -> NetworkErrorKind {
        match self {
            Self::NotFound(_) | Self::NotFoundText(_) => NetworkErrorKind::NotFound,
            Self::NameInUse(_) => NetworkErrorKind::Conflict,
            Self::AmbiguousName(..) | Self::AmbiguousId(..) | Self::Invalid(_) => {
                NetworkErrorKind::InvalidParameter
            }
            Self::Predefined(_)
            | Self::PredefinedRemoval(_)
            | Self::ActiveEndpoints { .. }
            | Self::NotConnected { .. }
            | Self::EndpointExists { .. }
            | Self::AddressInUse(_)
            | Self::PoolOverlaps
            | Self::Forbidden(_) => NetworkErrorKind::Forbidden,
            Self::Unsupported(_) => NetworkErrorKind::NotImplemented,
            Self::PoolExhausted { .. }
            | Self::NoFreePool
            | Self::PortAllocated { .. }
            | Self::AllPortsAllocated
            | Self::PortBind { .. }
            | Self::ExternalConnectivity { .. }
            | Self::Kernel(_)
            | Self::Io { .. }
            | Self::Teardown(_) => NetworkErrorKind::System,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
