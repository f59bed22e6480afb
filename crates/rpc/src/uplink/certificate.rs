//! Renewing the node's certificate.

use skep_ca::{NodeCertificate, NodeKey, RootCa};
use skep_proto as proto;
use tonic::Status;

use super::{Route, Uplink};
use crate::bootstrap::{self, BootstrapError, Request};

impl Uplink {
    /// A new certificate for the node that this one is, of the role that the managers say it has.
    /// Tries the manager here first, and others when that does not work: it may just be losing its
    /// role.
    pub async fn renew(&self, root: &RootCa) -> Result<NodeCertificate, BootstrapError> {
        let key = NodeKey::generate()?;
        let request = proto::IssueNodeCertificateRequest {
            csr: key.request_pem()?.into_bytes(),
            ..Default::default()
        };
        let certificate = match self.renew_by(self.choose().await, &request).await {
            Ok(certificate) => certificate,
            Err(error) if self.local.get().is_none() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "the manager here does not renew the certificate");
                self.renew_by(self.choose_remote(None).await, &request)
                    .await?
            }
        };
        bootstrap::accept(root, &key, certificate)
    }

    async fn renew_by(
        &self,
        route: Result<Route, Status>,
        request: &proto::IssueNodeCertificateRequest,
    ) -> Result<Vec<u8>, BootstrapError> {
        match route? {
            Route::Local(local) => {
                let issued = local
                    .authority
                    .issue(Some(&local.caller), request.clone())
                    .await?;
                let wait = proto::NodeCertificateStatusRequest {
                    node_id: issued.node_id,
                };
                let status = local.authority.status(wait).await?;
                bootstrap::certificate_of(status, &request.csr)?
                    .ok_or_else(|| Status::aborted("another request came in between").into())
            }
            Route::Remote { channel, .. } => {
                let request = Request::new(request.clone());
                request.make(channel).await
            }
        }
    }
}
