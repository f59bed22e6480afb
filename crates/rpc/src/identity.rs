//! Who is at the other end of a connection, and whom a request is from.

use std::net::{IpAddr, SocketAddr};

use rustls::pki_types::CertificateDer;
use skep_ca::{CaError, CertificateInfo};
use skep_manager::Caller;
use time::OffsetDateTime;

/// The other end of a TLS connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub addr: SocketAddr,
    /// Nodes that join have none yet.
    pub subject: Option<Subject>,
}

/// The subject of a certificate that the cluster's root has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub organization: String,
    pub unit: String,
    pub node_id: String,
    pub not_after: OffsetDateTime,
}

impl Peer {
    pub(crate) fn new(
        addr: SocketAddr,
        certificates: Option<&[CertificateDer<'_>]>,
    ) -> Result<Self, CaError> {
        let subject = match certificates.and_then(<[_]>::first) {
            None => None,
            Some(leaf) => Some(Subject::from(CertificateInfo::from_der(leaf)?)),
        };
        Ok(Self { addr, subject })
    }
}

impl From<CertificateInfo> for Subject {
    fn from(info: CertificateInfo) -> Self {
        Self {
            organization: info.organization.unwrap_or_default(),
            unit: info.organizational_unit.unwrap_or_default(),
            node_id: info.common_name.unwrap_or_default(),
            not_after: info.not_after,
        }
    }
}

/// The node that a request comes from: the peer itself, or whom the peer, a manager, forwards for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteNode {
    pub node_id: String,
    /// The organizational units of its certificate.
    pub roles: Vec<String>,
    pub organization: String,
    /// Where it connected from, `ip:port`.
    pub addr: String,
    /// The manager that forwarded the request.
    pub forwarded_by: Option<String>,
}

impl RemoteNode {
    pub fn ip(&self) -> Option<IpAddr> {
        self.addr.parse::<SocketAddr>().ok().map(|addr| addr.ip())
    }

    /// As the manager's services name it.
    pub fn caller(&self) -> Caller {
        Caller {
            node_id: self.node_id.as_str().into(),
            addr: self.ip(),
        }
    }
}
