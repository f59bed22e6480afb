//! The root certificate, and issuing node certificates with it.

use crate::certificate::{BACKDATE, CertificateInfo, MIN_NODE_CERTIFICATE_VALIDITY, NodeIdentity};
use crate::cross_sign::CrossSignRequest;
use crate::issuer::IssuerInfo;
use crate::signer::Signer;
use crate::{CaError, tls};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType, SerialNumber,
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
    signer: Option<Signer>,
    /// Goes with each certificate issued: by it, the new root's certificates lead to the old root.
    intermediate_pem: String,
}

/// A root that a cluster is being moved to.
#[derive(Clone, Copy, Debug)]
pub struct NextRoot<'a> {
    pub certificate_pem: &'a str,
    /// `None`: an external authority has it.
    pub key_pem: Option<&'a str>,
    /// The same, signed by the present root.
    pub cross_signed_pem: &'a str,
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
        let certificate_pem = unix_lines(&certificate.pem());
        let key_pem = unix_lines(&key.serialize_pem());
        Self::from_pem(&certificate_pem, Some(&key_pem))
    }

    /// Takes the root's certificates (possibly several) and, on a node that may issue, the key of the
    /// first of them, PEM. Refuses in SwarmKit's words: both may come from a user.
    pub fn from_pem(certificates_pem: &str, key_pem: Option<&str>) -> Result<Self, CaError> {
        let blocks = pem::parse_many(certificates_pem)
            .map_err(|error| CaError::InvalidRoot(format!("invalid root certificates: {error}")))?;
        let Some(first) = blocks.first() else {
            let reason = "no valid root CA certificates found".to_owned();
            return Err(CaError::InvalidRoot(reason));
        };
        for block in &blocks {
            check_self_signed(block.contents())?;
        }
        let signer = match key_pem {
            None => None,
            Some(key_pem) => Some(Signer::new(first.contents(), key_pem)?),
        };
        Ok(Self {
            certificate_pem: certificates_pem.to_owned(),
            signer,
            intermediate_pem: String::new(),
        })
    }

    /// While the root is being rotated the present one is still trusted, but the next one signs.
    pub fn rotating(certificates_pem: &str, next: NextRoot<'_>) -> Result<Self, CaError> {
        let mut root = Self::from_pem(certificates_pem, None)?;
        root.signer = Self::from_pem(next.certificate_pem, next.key_pem)?.signer;
        next.cross_signed_pem.clone_into(&mut root.intermediate_pem);
        Ok(root)
    }

    /// The exact bytes that join tokens are the digest of.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 over the PEM bytes.
    pub fn digest(&self) -> [u8; 32] {
        digest(self.certificate_pem.as_bytes())
    }

    /// The digest as the cluster object has it.
    pub fn digest_text(&self) -> String {
        format!("sha256:{}", hex::encode(self.digest()))
    }

    /// The signing key, PEM; `None` where this node does not hold it.
    pub fn key_pem(&self) -> Option<String> {
        self.signer.as_ref().map(|signer| signer.key_pem.clone())
    }

    /// What goes with each certificate issued, PEM; empty but during a rotation.
    pub fn intermediate_pem(&self) -> &str {
        &self.intermediate_pem
    }

    /// Who this root is, for `NodeTLSInfo`.
    pub fn issuer_info(&self) -> Result<IssuerInfo, CaError> {
        IssuerInfo::of_root(&self.certificate_pem)
    }

    /// Certifies another root's key: a chain through the result leads from the other root's
    /// certificates to this root. PEM.
    pub fn cross_sign(&self, other_pem: &str) -> Result<String, CaError> {
        let signer = self.signer.as_ref().ok_or(CaError::NoSigner)?;
        let block = pem::parse(other_pem)
            .map_err(|source| CaError::parse("the new root certificate", source))?;
        let certificate = signer.cross_sign(block.contents())?;
        Ok(encode_pem("CERTIFICATE", certificate))
    }

    /// Asks an authority outside of the swarm for what [`Self::cross_sign`] does.
    pub fn cross_sign_request(&self) -> Result<CrossSignRequest, CaError> {
        let signer = self.signer.as_ref().ok_or(CaError::NoSigner)?;
        CrossSignRequest::new(&self.certificate_pem, signer.request()?)
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
            .signed_by(&request.public_key, &signer.issuer)
            .map_err(CaError::create("the node certificate"))?;
        let certificate = signer.under_its_name(certificate.der())?;
        Ok(encode_pem("CERTIFICATE", certificate) + &self.intermediate_pem)
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
        tls::verify_chain(&self.certificate_pem, chain_pem, now)?;
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

/// Certificates of a bundle written as everybody writes them, so that equal ones are equal to the
/// byte; what is no PEM is left out, as SwarmKit does.
pub fn normalize_pem(bundle: &str) -> String {
    let blocks = pem::parse_many(bundle).unwrap_or_default();
    let encode = |block: pem::Pem| encode_pem(block.tag(), block.contents());
    blocks.into_iter().map(encode).collect()
}

pub(crate) fn encode_pem(tag: &str, contents: impl Into<Vec<u8>>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, contents), config)
}

fn check_self_signed(der: &[u8]) -> Result<(), CaError> {
    let rejected = |reason: &str| {
        CaError::InvalidRoot(format!(
            "error while validating Root CA Certificate: {reason}"
        ))
    };
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| CaError::InvalidRoot(format!("invalid root certificates: {error}")))?;
    if !certificate.is_ca() {
        return Err(rejected("certificate not a CA"));
    }
    certificate
        .verify_signature(None)
        .map_err(|_| rejected("x509: certificate signed by unknown authority"))
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
mod rotation_tests;
#[cfg(test)]
mod tests;
