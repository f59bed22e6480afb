//! What the managers tell this node in its session, beside its tasks: its role, and whom to trust.

use std::sync::Arc;

use skep_agent::{Agent, AgentState};
use skep_ca::{CaError, NodeRole, RootCa};
use skep_model::proto;
use skep_rpc::{NodeSecurity, Renewer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::keys::KeyFiles;

/// What the user is told then. It does not pass by itself: no manager takes the certificate again.
const REMOVED_ADVICE: &str = "This node was removed from the swarm and its certificate is refused. Use \"docker swarm leave --force\" on this node, then join the swarm again with a token.";

/// What there is to do about the end of a session, if it ended for good.
pub(crate) fn advice(state: &AgentState) -> Option<&'static str> {
    let refusal = state.last_error.as_ref()?;
    skep_rpc::says_removed(refusal).then_some(REMOVED_ADVICE)
}

pub(crate) struct SessionFollower {
    pub(crate) messages: watch::Receiver<AgentState>,
    pub(crate) security: Arc<NodeSecurity>,
    pub(crate) renewer: Arc<Renewer>,
    pub(crate) keys: Arc<KeyFiles>,
}

impl SessionFollower {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut last: Option<Arc<proto::SessionMessage>> = None;
        let mut advised = None;
        loop {
            let state = self.messages.borrow_and_update().clone();
            let advice = advice(&state);
            if let Some(advice) = advice
                && advised.is_none()
            {
                tracing::error!("{advice}");
            }
            advised = advice;
            let message = state.message;
            if let Some(message) = message
                && last
                    .as_ref()
                    .is_none_or(|last| !Arc::ptr_eq(last, &message))
            {
                self.take(&message);
                last = Some(message);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.keys.newly_sealed() => self.renewer.renew_now(),
                changed = self.messages.changed() => if changed.is_err() { return },
            }
        }
    }

    fn take(&self, message: &proto::SessionMessage) {
        // The root first: a certificate that is asked for next may be of the new one.
        if let Err(error) = self.trust(&message.root_ca) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "cannot use the managers' root certificate");
        }
        let Some(node) = &message.node else { return };
        self.renewer.expect_role(match node.role() {
            proto::NodeRole::Manager => NodeRole::Manager,
            proto::NodeRole::Worker => NodeRole::Worker,
        });
        let status = node
            .certificate
            .as_ref()
            .and_then(|certificate| certificate.status.as_ref());
        let asked = status.map(proto::IssuanceStatus::state);
        if asked == Some(proto::issuance_status::State::Rotate) {
            self.renewer.renew_now();
        }
    }

    fn trust(&self, root: &[u8]) -> Result<(), CaError> {
        if root.is_empty() || root == self.security.current().root_pem().as_bytes() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(root);
        let root = RootCa::from_pem(&text, None)?;
        self.security.trust(&root)?;
        self.keys.keep_root(root.certificate_pem())
    }
}

/// Tells the managers, through the agent, of each new certificate of this node.
pub(crate) async fn report_certificates(
    security: Arc<NodeSecurity>,
    agent: Arc<Agent>,
    stop: CancellationToken,
) {
    let mut credentials = security.subscribe();
    loop {
        let info = credentials.borrow_and_update().tls_info().clone();
        agent.set_tls_info(info);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = credentials.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_removal_is_for_good() {
        let ended = |error| AgentState {
            last_error: Some(error),
            ..AgentState::default()
        };
        let removed = "Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = Permission denied: node n was removed from swarm";
        assert!(advice(&ended(tonic::Status::permission_denied(removed))).is_some());
        assert!(advice(&ended(tonic::Status::unavailable("no leader"))).is_none());
        assert!(advice(&AgentState::default()).is_none());
    }
}
