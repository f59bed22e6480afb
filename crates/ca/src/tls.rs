//! TLS between nodes: mutual where both have certificates, one-sided while a node joins.

mod verifier;

use crate::{CaError, NodeCertificate, RootCa};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use std::sync::Arc;
use time::OffsetDateTime;
use verifier::NodeVerifier;

const ALPN_H2: &[u8] = b"h2";

/// For a manager's port. Clients without a certificate are let in, because a joining node has none
/// yet, and those whose certificate has expired: what either is good for is decided for each call.
/// Clients that offer no ALPN are served, as old grpc-go's do not.
pub fn server_config(
    root: &RootCa,
    certificate: &NodeCertificate,
) -> Result<ServerConfig, CaError> {
    let verifier = NodeVerifier::new(root_store(root.certificate_pem())?)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(CaError::tls)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(
            chain(&certificate.certificate_pem)?,
            key(&certificate.key_pem)?,
        )
        .map_err(CaError::tls)?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

/// For calls to managers (server name `swarm-manager`).
pub fn client_config(
    root: &RootCa,
    certificate: &NodeCertificate,
) -> Result<ClientConfig, CaError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(CaError::tls)?
        .with_root_certificates(root_store(root.certificate_pem())?)
        .with_client_auth_cert(
            chain(&certificate.certificate_pem)?,
            key(&certificate.key_pem)?,
        )
        .map_err(CaError::tls)?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

/// For a node that has no certificate yet (server name `swarm-ca`). Without a root the peer is not
/// verified at all: only for fetching the root certificate, which the join token then verifies.
pub fn bootstrap_client_config(root: Option<&RootCa>) -> Result<ClientConfig, CaError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(CaError::tls)?;
    let mut config = match root {
        Some(root) => builder
            .with_root_certificates(root_store(root.certificate_pem())?)
            .with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAnyServer(
                provider().signature_verification_algorithms,
            )))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

/// For calls to servers of others that this node's root, or a given one, has certified: external
/// certificate authorities, which speak HTTP/1.
pub fn external_client_config(
    roots_pem: &str,
    certificate: &NodeCertificate,
) -> Result<ClientConfig, CaError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(CaError::tls)?
        .with_root_certificates(root_store(roots_pem)?)
        .with_client_auth_cert(
            chain(&certificate.certificate_pem)?,
            key(&certificate.key_pem)?,
        )
        .map_err(CaError::tls)
}

pub(crate) fn verify_chain(
    roots_pem: &str,
    chain_pem: &str,
    now: OffsetDateTime,
) -> Result<(), CaError> {
    let roots = Arc::new(root_store(roots_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(CaError::tls)?;
    let certificates = chain(chain_pem)?;
    let rejected = |reason: String| CaError::Rejected {
        what: "the node certificate",
        reason,
    };
    let (leaf, rest) = certificates
        .split_first()
        .ok_or_else(|| rejected("no certificate found".to_owned()))?;
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    verifier
        .verify_client_cert(leaf, rest, at)
        .map(|_| ())
        .map_err(|error| rejected(error.to_string()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn root_store(certificates_pem: &str) -> Result<RootCertStore, CaError> {
    let mut store = RootCertStore::empty();
    for certificate in chain(certificates_pem)? {
        store.add(certificate).map_err(CaError::tls)?;
    }
    Ok(store)
}

fn chain(certificates_pem: &str) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let blocks = pem::parse_many(certificates_pem)
        .map_err(|source| CaError::parse("the certificate's PEM", source))?;
    Ok(blocks
        .into_iter()
        .map(|block| CertificateDer::from(block.into_contents()))
        .collect())
}

fn key(key_pem: &str) -> Result<PrivateKeyDer<'static>, CaError> {
    let block = pem::parse(key_pem).map_err(|source| CaError::parse("the node key", source))?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
        block.into_contents(),
    )))
}

/// See [`bootstrap_client_config`]: the digest in the join token stands in for this check.
#[derive(Debug)]
struct AcceptAnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
