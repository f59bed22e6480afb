//! What every call passes: is the service here, does the leader have to answer, may the caller call.

use std::sync::Arc;

use http::{Request, Response};
use time::OffsetDateTime;
use tonic::Status;
use tonic::body::Body;
use tower::{Service as _, ServiceExt as _};

use crate::NodeSecurity;
use crate::authorize::{self, Rules};
use crate::backend::Backends;
use crate::identity::{Peer, RemoteNode};
use crate::leader::Leader;
use crate::metadata;
use crate::policy::{self, Access, Policy, Service};
use crate::services::Services;

pub(crate) struct Gate {
    security: Arc<NodeSecurity>,
    backends: Backends,
    services: Services,
}

impl Gate {
    pub(crate) fn new(security: Arc<NodeSecurity>, backends: Backends) -> Self {
        Self {
            services: Services::new(&backends),
            security,
            backends,
        }
    }

    pub(crate) async fn call(&self, peer: &Peer, request: Request<Body>) -> Response<Body> {
        match self.pass(peer, request).await {
            Ok(response) => response,
            Err(status) => {
                tracing::debug!(
                    peer.addr = %peer.addr,
                    code = ?status.code(),
                    message = status.message(),
                    "refused a call"
                );
                status.into_http()
            }
        }
    }

    async fn pass(
        &self,
        peer: &Peer,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let path = request.uri().path();
        let Some(policy) = policy::of(path) else {
            // As grpc-go answers; managers of other kinds tell from it what they are talking to.
            return Err(Status::unimplemented(format!("unknown method {path}")));
        };
        if policy.proxied {
            let route = self.backends.leader.need()?;
            let leader = match route.now() {
                Some(leader) => leader,
                None => route.wait().await?,
            };
            if let Leader::There { channel, .. } = leader {
                check_time(peer, policy)?;
                return forward(channel, peer, request).await;
            }
        }
        if let Some(caller) = self.authorize(peer, &request, policy)? {
            request.extensions_mut().insert(caller);
        }
        Ok(self.services.call(policy.service, request).await)
    }

    /// `None` for a caller of a public method that cannot be trusted to be anybody.
    fn authorize(
        &self,
        peer: &Peer,
        request: &Request<Body>,
        policy: Policy,
    ) -> Result<Option<RemoteNode>, Status> {
        let credentials = self.security.current();
        let removed = self.backends.removed.get();
        let is_removed = |node: &str| {
            removed
                .as_ref()
                .is_some_and(|removed| removed.is_removed(node))
        };
        let rules = Rules {
            organization: &credentials.identity().organization,
            is_removed: &is_removed,
            now: OffsetDateTime::now_utc(),
            accept_expired: policy.service == Service::NodeCa,
        };
        let headers = request.headers();
        match policy.access {
            Access::Anyone => {
                let roles = Access::Nodes.roles();
                Ok(authorize::authorize(peer, headers, roles, &rules).ok())
            }
            access => authorize::authorize(peer, headers, access.roles(), &rules).map(Some),
        }
    }
}

/// The leader sees no certificate of a forwarded call, so its time is checked here.
fn check_time(peer: &Peer, policy: Policy) -> Result<(), Status> {
    match &peer.subject {
        Some(subject)
            if policy.service != Service::NodeCa
                && policy.access != Access::Anyone
                && subject.not_after < OffsetDateTime::now_utc() =>
        {
            let node = &subject.node_id;
            Err(Status::permission_denied(format!(
                "Permission denied: the certificate of node {node} has expired"
            )))
        }
        _ => Ok(()),
    }
}

/// Passes a call on as it is, whatever kind of streams it consists of.
async fn forward(
    mut leader: tonic::transport::Channel,
    peer: &Peer,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    if let Some(hops) = metadata::redirects(request.headers()) {
        return Err(Status::resource_exhausted(format!(
            "more than one redirect to leader from: {hops}"
        )));
    }
    metadata::forward(request.headers_mut(), peer);
    let unavailable =
        |error: tonic::transport::Error| Status::unavailable(crate::connect::chain(&error));
    let leader = leader.ready().await.map_err(unavailable)?;
    leader.call(request).await.map_err(unavailable)
}
