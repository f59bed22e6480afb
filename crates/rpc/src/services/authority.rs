//! CA and NodeCA.

use skep_proto as proto;
use tonic::{Request, Response, Status};

use crate::backend::CertificateAuthority;
use crate::identity::RemoteNode;
use crate::slot::Slot;

#[derive(Clone)]
pub(super) struct AuthorityService(pub(super) Slot<dyn CertificateAuthority>);

#[async_trait::async_trait]
impl proto::ca_server::Ca for AuthorityService {
    async fn get_root_ca_certificate(
        &self,
        _request: Request<proto::GetRootCaCertificateRequest>,
    ) -> Result<Response<proto::GetRootCaCertificateResponse>, Status> {
        let certificate = self.0.need()?.root_certificates()?;
        Ok(Response::new(proto::GetRootCaCertificateResponse {
            certificate,
        }))
    }

    async fn get_unlock_key(
        &self,
        _request: Request<proto::GetUnlockKeyRequest>,
    ) -> Result<Response<proto::GetUnlockKeyResponse>, Status> {
        Ok(Response::new(self.0.need()?.unlock_key()?))
    }
}

#[async_trait::async_trait]
impl proto::node_ca_server::NodeCa for AuthorityService {
    async fn issue_node_certificate(
        &self,
        request: Request<proto::IssueNodeCertificateRequest>,
    ) -> Result<Response<proto::IssueNodeCertificateResponse>, Status> {
        let caller: Option<RemoteNode> = request.extensions().get().cloned();
        let authority = self.0.need()?;
        let answer = authority
            .issue(caller.as_ref(), request.into_inner())
            .await?;
        Ok(Response::new(answer))
    }

    async fn node_certificate_status(
        &self,
        request: Request<proto::NodeCertificateStatusRequest>,
    ) -> Result<Response<proto::NodeCertificateStatusResponse>, Status> {
        let answer = self.0.need()?.status(request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}
