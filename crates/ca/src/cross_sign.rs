//! What an authority outside of the swarm is told of a root that it shall certify.

use crate::CaError;
use crate::root::encode_pem;
use std::collections::BTreeMap;
use x509_parser::oid_registry;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A request for a certificate of the root's name and key, with what cfssl wants besides.
#[derive(Clone, Debug)]
pub struct CrossSignRequest {
    pub csr_pem: String,
    pub common_name: String,
    /// The other parts of the name, by cfssl's keys.
    pub name: BTreeMap<&'static str, String>,
    /// The value of the extension that makes the root an authority.
    pub basic_constraints_hex: String,
}

impl CrossSignRequest {
    pub(crate) fn new(root_pem: &str, csr: Vec<u8>) -> Result<Self, CaError> {
        const WHAT: &str = "the root certificate";
        let block = pem::parse(root_pem).map_err(|source| CaError::parse(WHAT, source))?;
        let (_, root) = X509Certificate::from_der(block.contents())
            .map_err(|error| CaError::parse(WHAT, error.to_string()))?;
        let attribute = |oid: &oid_registry::Oid<'_>| {
            let value = root.subject().iter_by_oid(oid).next()?;
            value.as_str().ok().map(str::to_owned)
        };
        let keys = [
            ("C", oid_registry::OID_X509_COUNTRY_NAME),
            ("ST", oid_registry::OID_X509_STATE_OR_PROVINCE_NAME),
            ("L", oid_registry::OID_X509_LOCALITY_NAME),
            ("O", oid_registry::OID_X509_ORGANIZATION_NAME),
            ("OU", oid_registry::OID_X509_ORGANIZATIONAL_UNIT),
        ];
        let constraints = root
            .extensions()
            .iter()
            .find(|extension| extension.oid == oid_registry::OID_X509_EXT_BASIC_CONSTRAINTS);
        Ok(Self {
            csr_pem: encode_pem("CERTIFICATE REQUEST", csr),
            common_name: attribute(&oid_registry::OID_X509_COMMON_NAME).unwrap_or_default(),
            name: keys
                .iter()
                .filter_map(|(key, oid)| attribute(oid).map(|value| (*key, value)))
                .collect(),
            basic_constraints_hex: constraints
                .map(|constraints| hex::encode(constraints.value))
                .unwrap_or_default(),
        })
    }
}
