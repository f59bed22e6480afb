//! The root certificate, and issuing node certificates with it.

use crate::CaError;
use crate::certificate::{BACKDATE, CertificateInfo, MIN_NODE_CERTIFICATE_VALIDITY, NodeIdentity};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use time::OffsetDateTime;

/// The common name of the root, and a name that every manager's certificate answers to.
pub const ROOT_CN: &str = "swarm-ca";
/// 20 years of 365 days, as SwarmKit counts them: 630,720,000 seconds.
const ROOT_VALIDITY: Duration = Duration::from_secs(630_720_000);

/// The cluster's trust root. Holds the key only on nodes that may issue certificates.
pub struct RootCa {
    certificate_pem: String,
    signer: Option<Issuer<'static, KeyPair>>,
}

/// A private key that never leaves its node, and the request made from it.
pub struct NodeKey(KeyPair);

/// A certificate chain and its key, both PEM.
#[derive(Clone)]
pub struct NodeCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl RootCa {
    /// Makes a new cluster's root: ECDSA P-256, self-signed, valid for 20 years.
    pub fn generate(now: OffsetDateTime) -> Result<Self, CaError> {
        const WHAT: &str = "the root certificate";
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, ROOT_CN);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial());
        params.not_before = whole_seconds(now);
        params.not_after = whole_seconds(now) + ROOT_VALIDITY;
        let certificate = params.self_signed(&key).map_err(CaError::create(WHAT))?;
        Ok(Self {
            certificate_pem: unix_lines(&certificate.pem()),
            signer: Some(Issuer::new(params, key)),
        })
    }

    /// Takes the root's certificates (a bundle while it is being rotated) and, on a node that may
    /// issue, the key of the first of them (PKCS#8 PEM).
    pub fn from_pem(certificates_pem: &str, key_pem: Option<&str>) -> Result<Self, CaError> {
        const WHAT: &str = "the root certificate";
        let blocks =
            pem::parse_many(certificates_pem).map_err(|source| CaError::parse(WHAT, source))?;
        if blocks.is_empty() {
            let reason = "no valid root CA certificates found".to_owned();
            return Err(CaError::Rejected { what: WHAT, reason });
        }
        for block in &blocks {
            check_self_signed(block.contents())?;
        }
        let signer = match key_pem {
            None => None,
            Some(key_pem) => Some(signer(certificates_pem, key_pem)?),
        };
        Ok(Self {
            certificate_pem: certificates_pem.to_owned(),
            signer,
        })
    }

    /// The exact bytes that join tokens are the digest of.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 over the PEM bytes.
    pub fn digest(&self) -> [u8; 32] {
        digest(self.certificate_pem.as_bytes())
    }

    /// The signing key as PKCS#8 PEM; `None` where this node does not hold it.
    pub fn key_pem(&self) -> Option<String> {
        self.signer
            .as_ref()
            .map(|signer| unix_lines(&signer.key().serialize_pem()))
    }

    /// DER of the root's subject and of its public key, for `NodeTLSInfo`.
    pub fn issuer_info(&self) -> Result<(Vec<u8>, Vec<u8>), CaError> {
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let block = pem::parse(&self.certificate_pem)
            .map_err(|source| CaError::parse("the root certificate", source))?;
        let (_, certificate) = X509Certificate::from_der(block.contents())
            .map_err(|source| CaError::parse("the root certificate", source.to_string()))?;
        Ok((
            certificate.subject().as_raw().to_vec(),
            certificate.public_key().raw.to_vec(),
        ))
    }

    /// Signs a request. Whatever subject the request asks for is ignored: the identity is what the
    /// manager decided, and only the public key is taken.
    pub fn sign(
        &self,
        request_pem: &str,
        identity: &NodeIdentity,
        validity: Duration,
        now: OffsetDateTime,
    ) -> Result<String, CaError> {
        const WHAT: &str = "the certificate signing request";
        let signer = self.signer.as_ref().ok_or(CaError::NoSigner)?;
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|source| CaError::parse(WHAT, source))?;
        let certificate = node_params(identity, validity, now)?
            .signed_by(&request.public_key, signer)
            .map_err(CaError::create("the node certificate"))?;
        Ok(unix_lines(&certificate.pem()))
    }

    /// A new key and its certificate in one step, for the first manager of a cluster.
    pub fn issue(
        &self,
        identity: &NodeIdentity,
        validity: Duration,
        now: OffsetDateTime,
    ) -> Result<NodeCertificate, CaError> {
        let key = NodeKey::generate()?;
        let certificate_pem = self.sign(&key.request_pem()?, identity, validity, now)?;
        Ok(NodeCertificate {
            certificate_pem,
            key_pem: key.key_pem(),
        })
    }

    /// Checks that a node's certificate was issued by this root and is valid now.
    pub fn verify(&self, chain_pem: &str, now: OffsetDateTime) -> Result<CertificateInfo, CaError> {
        crate::tls::verify_chain(&self.certificate_pem, chain_pem, now)?;
        CertificateInfo::from_pem(chain_pem)
    }
}

impl std::fmt::Debug for RootCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootCa")
            .field("digest", &hex::encode(self.digest()))
            .field("can_sign", &self.signer.is_some())
            .finish()
    }
}

impl NodeKey {
    pub fn generate() -> Result<Self, CaError> {
        new_key().map(Self)
    }

    pub fn key_pem(&self) -> String {
        unix_lines(&self.0.serialize_pem())
    }

    /// A signing request with an empty subject, as SwarmKit's nodes send it.
    pub fn request_pem(&self) -> Result<String, CaError> {
        const WHAT: &str = "the certificate signing request";
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(&self.0)
            .map_err(CaError::create(WHAT))?;
        request
            .pem()
            .map(|pem| unix_lines(&pem))
            .map_err(CaError::create(WHAT))
    }
}

pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn signer(certificates_pem: &str, key_pem: &str) -> Result<Issuer<'static, KeyPair>, CaError> {
    let key =
        KeyPair::from_pem(key_pem).map_err(|source| CaError::parse("the root key", source))?;
    let public = key.public_key_raw().to_vec();
    let issuer = Issuer::from_ca_cert_pem(certificates_pem, key)
        .map_err(|source| CaError::parse("the root certificate", source))?;
    let block = pem::parse(certificates_pem)
        .map_err(|source| CaError::parse("the root certificate", source))?;
    let reason = match x509_parser::parse_x509_certificate(block.contents()) {
        Ok((_, certificate)) if certificate.public_key().subject_public_key.data == public => {
            return Ok(issuer);
        }
        Ok(_) => "certificate key mismatch".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(CaError::Rejected {
        what: "the root key",
        reason,
    })
}

fn check_self_signed(der: &[u8]) -> Result<(), CaError> {
    const WHAT: &str = "the root certificate";
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|source| CaError::parse(WHAT, source.to_string()))?;
    let rejected = |reason: String| CaError::Rejected { what: WHAT, reason };
    if !certificate.is_ca() {
        return Err(rejected("certificate not a CA".to_owned()));
    }
    certificate
        .verify_signature(None)
        .map_err(|error| rejected(error.to_string()))
}

fn node_params(
    identity: &NodeIdentity,
    validity: Duration,
    now: OffsetDateTime,
) -> Result<CertificateParams, CaError> {
    let unit = identity.role.organizational_unit();
    let mut names = vec![unit, identity.node_id.as_str()];
    if identity.role == crate::NodeRole::Manager {
        names.push(ROOT_CN);
    }
    let mut params = CertificateParams::default();
    for name in names {
        let name = name
            .try_into()
            .map_err(CaError::create("the node certificate"))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, identity.organization.as_str());
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, unit);
    params
        .distinguished_name
        .push(DnType::CommonName, identity.node_id.as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial());
    params.not_before = whole_seconds(now) - BACKDATE;
    params.not_after = whole_seconds(now) + validity.max(MIN_NODE_CERTIFICATE_VALIDITY);
    Ok(params)
}

fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::create("a key pair"))
}

/// X.509 allows 20 bytes and wants a positive number.
fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 20] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn whole_seconds(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(0).expect("zero is a nanosecond")
}

/// Go writes PEM with plain line feeds; the digest in join tokens is over these bytes.
fn unix_lines(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}

#[cfg(test)]
mod tests;
