//! What a node's certificate says, and when it is due for renewal.

use crate::CaError;
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate, X509Name};

/// SwarmKit's default: 90 days.
pub const DEFAULT_NODE_CERTIFICATE_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Shorter settings are refused.
pub const MIN_NODE_CERTIFICATE_VALIDITY: Duration = Duration::from_secs(3600);
/// Certificates start in the past, so that a node whose clock runs behind accepts them.
pub(crate) const BACKDATE: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeRole {
    Manager,
    Worker,
}

impl NodeRole {
    /// The organizational unit that says this role.
    pub fn organizational_unit(self) -> &'static str {
        match self {
            Self::Manager => "swarm-manager",
            Self::Worker => "swarm-worker",
        }
    }

    pub fn from_organizational_unit(unit: &str) -> Option<Self> {
        match unit {
            "swarm-manager" => Some(Self::Manager),
            "swarm-worker" => Some(Self::Worker),
            _ => None,
        }
    }
}

/// Who a node is: the subject of its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The cluster's id (O).
    pub organization: String,
    pub role: NodeRole,
    /// The node's id (CN).
    pub node_id: String,
}

/// The parts of a certificate that decisions are made on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    pub organization: Option<String>,
    pub organizational_unit: Option<String>,
    pub common_name: Option<String>,
    pub dns_names: Vec<String>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// DER of the issuer's name, as `NodeTLSInfo.cert_issuer_subject` carries it.
    pub issuer_subject: Vec<u8>,
}

impl CertificateInfo {
    /// Reads the first certificate of a PEM bundle: the leaf comes first.
    pub fn from_pem(bundle: &str) -> Result<Self, CaError> {
        let block =
            pem::parse(bundle).map_err(|source| CaError::parse("the certificate's PEM", source))?;
        if block.tag() != "CERTIFICATE" {
            let reason = format!("it is a {}", block.tag());
            return Err(CaError::Rejected {
                what: "the certificate's PEM",
                reason,
            });
        }
        Self::from_der(block.contents())
    }

    pub fn from_der(der: &[u8]) -> Result<Self, CaError> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|source| CaError::parse("the certificate", source.to_string()))?;
        let subject = certificate.subject();
        Ok(Self {
            organization: first(subject, X509Name::iter_organization),
            organizational_unit: first(subject, X509Name::iter_organizational_unit),
            common_name: first(subject, X509Name::iter_common_name),
            dns_names: dns_names(&certificate),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            issuer_subject: certificate.issuer().as_raw().to_vec(),
        })
    }

    /// The swarm identity in the subject; `None` for certificates that are not a node's.
    pub fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity {
            organization: self.organization.clone()?,
            role: NodeRole::from_organizational_unit(self.organizational_unit.as_deref()?)?,
            node_id: self.common_name.clone()?,
        })
    }

    /// When to renew: somewhere between half and four fifths of the lifetime, so that nodes that
    /// joined together do not all ask at once. `random` is in `0.0..1.0`. In the past: renew now.
    pub fn renew_at(&self, random: f64) -> OffsetDateTime {
        let lifetime = self.not_after - self.not_before;
        self.not_before + lifetime * (0.5 + 0.3 * random.clamp(0.0, 1.0))
    }
}

fn first<'a, I>(
    name: &'a X509Name<'a>,
    attributes: impl Fn(&'a X509Name<'a>) -> I,
) -> Option<String>
where
    I: Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
{
    attributes(name).find_map(|value| value.as_str().ok().map(str::to_owned))
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.extensions().iter().filter_map(|extension| {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        }
    });
    names
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_between_half_and_four_fifths_of_the_lifetime() {
        let start = OffsetDateTime::UNIX_EPOCH;
        let info = CertificateInfo {
            organization: None,
            organizational_unit: None,
            common_name: None,
            dns_names: Vec::new(),
            not_before: start,
            not_after: start + time::Duration::hours(100),
            issuer_subject: Vec::new(),
        };
        assert_eq!(info.renew_at(0.0), start + time::Duration::hours(50));
        assert_eq!(info.renew_at(1.0), start + time::Duration::hours(80));
        assert_eq!(info.identity(), None);
    }

    #[test]
    fn knows_no_third_role() {
        assert_eq!(NodeRole::from_organizational_unit("swarm-ca"), None);
        for role in [NodeRole::Manager, NodeRole::Worker] {
            let unit = role.organizational_unit();
            assert_eq!(NodeRole::from_organizational_unit(unit), Some(role));
        }
    }
}
