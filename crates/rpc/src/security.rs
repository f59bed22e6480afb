//! The node's identity on the network, which is replaced while connections run.

use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};
use skep_ca::{CaError, CertificateInfo, IssuerInfo, NodeCertificate, NodeIdentity, RootCa};
use skep_proto as proto;
use time::OffsetDateTime;
use tokio::sync::watch;

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
        Ok(Self {
            identity,
            info,
            root_pem: root.certificate_pem().to_owned(),
            tls_info: tls_info(root, &certificate)?,
            server: Arc::new(skep_ca::server_config(root, &certificate)?),
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

    /// Trusts other root certificates from now on: managers tell of them in the session. Refused
    /// unless this node's own certificate is one of theirs: nobody would talk to it any more.
    pub fn trust(&self, root: &RootCa) -> Result<(), CaError> {
        let current = self.current();
        let certificate = current.certificate.clone();
        // One that has expired meanwhile is renewed later, by the new root.
        let at = OffsetDateTime::now_utc().min(current.info.not_after);
        root.verify(&certificate.certificate_pem, at)
            .map_err(|error| CaError::Rejected {
                what: "the new root certificate",
                reason: format!("new root CA does not match existing TLS credentials: {error}"),
            })?;
        self.replace(root, certificate)
    }

    fn replace(&self, root: &RootCa, certificate: NodeCertificate) -> Result<(), CaError> {
        let credentials = Credentials::new(root, certificate)?;
        self.current.send_replace(Arc::new(credentials));
        Ok(())
    }
}

/// What this node says of itself to the managers. Its certificate need not be of the root that it
/// trusts: while the root is rotated, it is of the next one.
fn tls_info(root: &RootCa, certificate: &NodeCertificate) -> Result<proto::NodeTlsInfo, CaError> {
    let issuer = IssuerInfo::of_node(&certificate.certificate_pem, root.certificate_pem())?;
    let issuer = match issuer {
        Some(issuer) => issuer,
        None => root.issuer_info()?,
    };
    Ok(proto::NodeTlsInfo {
        trust_root: root.certificate_pem().as_bytes().to_vec(),
        cert_issuer_subject: issuer.subject,
        cert_issuer_public_key: issuer.public_key,
    })
}

impl std::fmt::Debug for NodeSecurity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeSecurity")
            .field("identity", &self.current().identity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
