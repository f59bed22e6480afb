//! The node's identity on the network, which is replaced while connections run.

mod verifier;

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use skep_ca::{CaError, CertificateInfo, NodeCertificate, NodeIdentity, RootCa};
use skep_proto as proto;
use tokio::sync::watch;

use verifier::NodeVerifier;

const ALPN_H2: &[u8] = b"h2";

/// What the node shows to others and trusts in them, as of now.
pub struct Credentials {
    identity: NodeIdentity,
    info: CertificateInfo,
    certificate: NodeCertificate,
    root_pem: String,
    tls_info: proto::NodeTlsInfo,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Credentials {
    fn new(root: &RootCa, certificate: NodeCertificate) -> Result<Self, CaError> {
        let info = CertificateInfo::from_pem(&certificate.certificate_pem)?;
        let identity = info.identity().ok_or_else(|| CaError::Rejected {
            what: "the node certificate",
            reason: "its subject is not a swarm node's".to_owned(),
        })?;
        let (cert_issuer_subject, cert_issuer_public_key) = root.issuer_info()?;
        Ok(Self {
            identity,
            info,
            root_pem: root.certificate_pem().to_owned(),
            tls_info: proto::NodeTlsInfo {
                trust_root: root.certificate_pem().as_bytes().to_vec(),
                cert_issuer_subject,
                cert_issuer_public_key,
            },
            server: Arc::new(server_config(root, &certificate)?),
            client: Arc::new(skep_ca::client_config(root, &certificate)?),
            certificate,
        })
    }

    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    pub fn info(&self) -> &CertificateInfo {
        &self.info
    }

    pub fn certificate(&self) -> &NodeCertificate {
        &self.certificate
    }

    /// The cluster's root certificates, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// What the node tells the managers of its certificate.
    pub fn tls_info(&self) -> &proto::NodeTlsInfo {
        &self.tls_info
    }

    pub fn server_config(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    pub fn client_config(&self) -> &Arc<ClientConfig> {
        &self.client
    }
}

/// The node's live identity. Connections made after a renewal use the new certificate; those that
/// exist keep the one they began with.
pub struct NodeSecurity {
    current: watch::Sender<Arc<Credentials>>,
}

impl NodeSecurity {
    pub fn new(root: &RootCa, certificate: NodeCertificate) -> Result<Self, CaError> {
        let credentials = Credentials::new(root, certificate)?;
        Ok(Self {
            current: watch::Sender::new(Arc::new(credentials)),
        })
    }

    pub fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.borrow())
    }

    /// Every change of certificate or root.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Credentials>> {
        self.current.subscribe()
    }

    /// Uses another certificate from now on. It must be one of the present root.
    pub fn renew(&self, certificate: NodeCertificate) -> Result<(), CaError> {
        let root = RootCa::from_pem(self.current().root_pem(), None)?;
        self.replace(&root, certificate)
    }

    /// Trusts other root certificates from now on: managers tell of them in the session.
    pub fn trust(&self, root: &RootCa) -> Result<(), CaError> {
        let certificate = self.current().certificate.clone();
        self.replace(root, certificate)
    }

    fn replace(&self, root: &RootCa, certificate: NodeCertificate) -> Result<(), CaError> {
        let credentials = Credentials::new(root, certificate)?;
        self.current.send_replace(Arc::new(credentials));
        Ok(())
    }
}

impl std::fmt::Debug for NodeSecurity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeSecurity")
            .field("identity", &self.current().identity)
            .finish_non_exhaustive()
    }
}

/// Clients without a certificate are let in, because a node that joins has none yet; one that is
/// shown must be the cluster's. Clients that offer no ALPN are served, as old grpc-go's do not.
fn server_config(root: &RootCa, certificate: &NodeCertificate) -> Result<ServerConfig, CaError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in certificates(root.certificate_pem())? {
        roots.add(root).map_err(tls)?;
    }
    let verifier = NodeVerifier::new(roots, &provider)?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes())
        .map_err(|error| parse("the node key", error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(certificates(&certificate.certificate_pem)?, key)
        .map_err(tls)?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, CaError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| parse("the certificate's PEM", error))
}

fn parse(
    what: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> CaError {
    CaError::Parse {
        what,
        source: error.into(),
    }
}

fn tls(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CaError {
    CaError::Tls(error.into())
}

#[cfg(test)]
mod tests;
