//! The key that signs certificates, whoever has made it.

use crate::{CaError, der};
use rcgen::{Issuer, KeyPair, PublicKeyData as _, SigningKey as _};
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

/// `ecdsa-with-SHA256`, `ecdsa-with-SHA384` and `sha256WithRSAEncryption`, DER.
const ECDSA_SHA256: &[u8] = &[
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];
const ECDSA_SHA384: &[u8] = &[
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03,
];
const RSA_SHA256: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00,
];
/// SwarmKit's least.
const MIN_RSA_BITS: usize = 2048;

/// A CA certificate with its key.
pub(crate) struct Signer {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    /// As it was given: other managers get it in the same form.
    pub(crate) key_pem: String,
    /// The subject of the certificate, DER.
    subject: Vec<u8>,
    key_id: Option<Vec<u8>>,
}

impl Signer {
    /// `certificate` is the DER of the one that the key belongs to. Errors in SwarmKit's words.
    pub(crate) fn new(certificate: &[u8], key_pem: &str) -> Result<Self, CaError> {
        let key = read_key(key_pem)?;
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| CaError::InvalidRoot(format!("invalid signing CA cert: {error}")))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CaError::InvalidRoot("certificate key mismatch".into()));
        }
        let subject = parsed.subject().as_raw().to_vec();
        let key_id = key_id(&parsed);
        let issuer = Issuer::from_ca_cert_der(&certificate.into(), key)
            .map_err(|source| CaError::parse("the root certificate", source))?;
        Ok(Self {
            issuer,
            key_pem: key_pem.to_owned(),
            subject,
            key_id,
        })
    }

    /// The certificate that was issued with this key, under exactly the name that the root has: a name
    /// with several values of a kind does not pass through rcgen unchanged.
    pub(crate) fn under_its_name(&self, certificate: &[u8]) -> Result<Vec<u8>, CaError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| CaError::parse("the node certificate", error.to_string()))?;
        if parsed.issuer().as_raw() == self.subject {
            return Ok(certificate.to_vec());
        }
        self.cross_sign(certificate)
    }

    /// Certifies what another CA's own certificate says, under this one's name.
    pub(crate) fn cross_sign(&self, other: &[u8]) -> Result<Vec<u8>, CaError> {
        let malformed = || CaError::Rejected {
            what: "the certificate to sign",
            reason: "it is not of version 3".into(),
        };
        let algorithm = algorithm_of(self.issuer.key()).ok_or_else(unsupported)?;
        let authority = der::Authority {
            subject: &self.subject,
            algorithm,
            key_id: self.key_id.as_deref(),
        };
        let body = der::reissued(other, authority).ok_or_else(malformed)?;
        self.sign(&body)
    }

    /// A request for a certificate of this authority's name and key, DER.
    pub(crate) fn request(&self) -> Result<Vec<u8>, CaError> {
        let public_key = self.issuer.key().subject_public_key_info();
        self.sign(&der::request(&self.subject, &public_key))
    }

    fn sign(&self, body: &[u8]) -> Result<Vec<u8>, CaError> {
        let key = self.issuer.key();
        let algorithm = algorithm_of(key).ok_or_else(unsupported)?;
        let signature = key.sign(body).map_err(CaError::create("a signature"))?;
        Ok(der::signed(body, algorithm, &signature))
    }
}

/// Reads a private key in any of the forms that openssl, cfssl and SwarmKit write.
fn read_key(pem: &str) -> Result<KeyPair, CaError> {
    let malformed =
        |reason: String| CaError::InvalidRoot(format!("malformed private key: {reason}"));
    let blocks = pem::parse_many(pem).map_err(|error| malformed(error.to_string()))?;
    // openssl writes the parameters of the curve before the key.
    let block = blocks
        .iter()
        .find(|block| block.tag().ends_with("PRIVATE KEY"))
        .ok_or_else(|| malformed("no private key found".into()))?;
    let key = match block.tag() {
        "PRIVATE KEY" => block.contents().to_vec(),
        "EC PRIVATE KEY" => der::pkcs8_of_ec(block.contents())
            .ok_or_else(|| malformed("the curve is not named".into()))?,
        "RSA PRIVATE KEY" => der::pkcs8_of_rsa(block.contents()),
        other => return Err(malformed(format!("cannot read a {other}"))),
    };
    let key = KeyPair::try_from(key).map_err(|error| malformed(error.to_string()))?;
    algorithm_of(&key).ok_or_else(unsupported)?;
    if *key.algorithm() == rcgen::PKCS_RSA_SHA256 && key.der_bytes().len() * 8 < MIN_RSA_BITS {
        return Err(CaError::InvalidRoot(
            "unsupported RSA key parameters".into(),
        ));
    }
    Ok(key)
}

fn key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let mut extensions = certificate.extensions().iter();
    extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn algorithm_of(key: &KeyPair) -> Option<&'static [u8]> {
    let algorithm = key.algorithm();
    if *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 {
        Some(ECDSA_SHA256)
    } else if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 {
        Some(ECDSA_SHA384)
    } else if *algorithm == rcgen::PKCS_RSA_SHA256 {
        Some(RSA_SHA256)
    } else {
        None
    }
}

fn unsupported() -> CaError {
    CaError::InvalidRoot("unknown or unsupported certificate public key algorithm".into())
}
