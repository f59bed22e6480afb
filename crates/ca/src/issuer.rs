//! Who has issued a certificate. During a rotation two roots have the same name, so a name says
//! nothing: only the signature does.

use crate::CaError;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A certificate authority as nodes report it: DER of its subject and of its public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerInfo {
    pub subject: Vec<u8>,
    pub public_key: Vec<u8>,
}

impl IssuerInfo {
    /// The authority that the first of these certificates is of.
    pub fn of_root(certificates_pem: &str) -> Result<Self, CaError> {
        let block = pem::parse(certificates_pem)
            .map_err(|source| CaError::parse("the root certificate", source))?;
        let (_, certificate) = X509Certificate::from_der(block.contents())
            .map_err(|source| CaError::parse("the root certificate", source.to_string()))?;
        Ok(Self::new(&certificate))
    }

    /// The authority that has signed the first certificate of the chain: the second one of the chain,
    /// or one of the roots. `None` if it is none of these.
    pub fn of_node(chain_pem: &str, roots_pem: &str) -> Result<Option<Self>, CaError> {
        const WHAT: &str = "the node certificate";
        let chain = pem::parse_many(chain_pem).map_err(|source| CaError::parse(WHAT, source))?;
        let roots = pem::parse_many(roots_pem)
            .map_err(|source| CaError::parse("the root certificate", source))?;
        let Some((leaf, rest)) = chain.split_first() else {
            return Ok(None);
        };
        let (_, leaf) = X509Certificate::from_der(leaf.contents())
            .map_err(|source| CaError::parse(WHAT, source.to_string()))?;
        let issuer = rest.iter().chain(&roots).find_map(|candidate| {
            let (_, candidate) = X509Certificate::from_der(candidate.contents()).ok()?;
            let has_signed = candidate.subject().as_raw() == leaf.issuer().as_raw()
                && leaf.verify_signature(Some(candidate.public_key())).is_ok();
            has_signed.then(|| Self::new(&candidate))
        });
        Ok(issuer)
    }

    fn new(certificate: &X509Certificate<'_>) -> Self {
        Self {
            subject: certificate.subject().as_raw().to_vec(),
            public_key: certificate.public_key().raw.to_vec(),
        }
    }
}
