//! The cluster's certificate authority over the store: who gets a certificate, for which role.

mod rotation;
mod signing;

use std::sync::Arc;
use std::time::Duration;

use skep_model::ext::{ClusterExt as _, ClusterSpecExt as _, NodeExt as _, RootCaExt as _};
use skep_model::{NodeId, ObjectKind};
use skep_proto as proto;
use skep_proto::issuance_status::State;
use skep_proto::node_spec::Membership;
use skep_store::{Snapshot, Store, StoreError, UpdateError, WatchError, WatchFilter};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::NodeSecurity;
use crate::backend::CertificateAuthority;
use crate::identity::RemoteNode;
use signing::{Signing, Unsigned};

/// The subsystem whose key locks the managers.
const MANAGER_SUBSYSTEM: &str = "swarm-manager";
/// What nobody could sign is tried again after so long, as in SwarmKit.
const RETRY: Duration = Duration::from_secs(10);
/// Draws of a node id that is not taken.
const ATTEMPTS: usize = 3;

/// SwarmKit's CA server. Its writes work on the leader only.
///
/// Unlike SwarmKit's it signs within the request instead of in a loop behind it: a join is one write
/// instead of two, and the status call that follows need not wait. The loop, [`Self::run`], is for
/// requests that another manager took and did not come to sign, and for those that nobody could sign
/// when they came.
pub struct StoreAuthority {
    store: Store,
    signing: Signing,
}

impl StoreAuthority {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            signing: Signing::new(None),
        }
    }

    /// The same, but external authorities can be asked to sign: they want to know who asks.
    pub fn as_node(store: Store, security: Arc<NodeSecurity>) -> Self {
        Self {
            store,
            signing: Signing::new(Some(security)),
        }
    }

    /// Signs what was left unsigned, and rotates the root when the cluster object says so; to be run
    /// while this manager leads.
    pub async fn run(&self, stopped: CancellationToken) {
        tokio::join!(
            self.sign_unsigned(stopped.clone()),
            rotation::run(&self.store, stopped)
        );
    }

    async fn sign_unsigned(&self, stopped: CancellationToken) {
        // Who can sign is said by the cluster object.
        let kinds = WatchFilter::kinds([ObjectKind::Node, ObjectKind::Cluster]);
        let (mut snapshot, mut watch) = self.store.snapshot_and_watch(kinds);
        loop {
            let waiting: Vec<_> = snapshot
                .nodes()
                .filter(|n| awaits_signature(n))
                .cloned()
                .collect();
            let mut is_signed = true;
            for node in waiting {
                is_signed = self.sign_waiting(&snapshot, &node).await;
                // An authority that does not answer one request will hardly answer the others.
                if !is_signed {
                    break;
                }
            }
            tokio::select! {
                () = stopped.cancelled() => return,
                event = watch.next() => if matches!(event, Err(WatchError::Closed)) { return },
                () = tokio::time::sleep(RETRY), if !is_signed => {}
            }
            while let Some(Ok(_)) = watch.try_next() {}
            snapshot = self.store.snapshot();
        }
    }

    /// Whether the request was decided.
    async fn sign_waiting(&self, snapshot: &Snapshot, node: &proto::Node) -> bool {
        let asked = node.certificate();
        let signed = match self
            .sign(snapshot, &asked.cn, asked.role(), &asked.csr)
            .await
        {
            Ok(signed) => Ok(signed),
            Err(Unsigned::Yet(error)) => {
                tracing::warn!(node.id, error, "nobody signs a node's certificate");
                return false;
            }
            Err(Unsigned::Ever(error)) => Err(error),
        };
        let written = self.store.update(|tx| {
            tx.modify::<proto::Node>(&node.id, |node| {
                // Meanwhile the node may have asked again, with another request.
                if let Some(certificate) = &mut node.certificate
                    && certificate.csr == asked.csr
                {
                    fill(certificate, signed);
                }
            })
        });
        if let Err(error) = written.await {
            tracing::warn!(node.id, %error, "cannot write a node's certificate");
        }
        true
    }

    async fn sign(
        &self,
        snapshot: &Snapshot,
        node_id: &str,
        role: proto::NodeRole,
        csr: &[u8],
    ) -> Result<Vec<u8>, Unsigned> {
        let cluster =
            the_cluster(snapshot).map_err(|status| Unsigned::Yet(status.message().to_owned()))?;
        self.signing.sign(cluster, node_id, role, csr).await
    }

    /// The node's certificate, or its request if nobody can sign it at this moment.
    async fn certify(
        &self,
        snapshot: &Snapshot,
        node_id: &str,
        role: proto::NodeRole,
        csr: Vec<u8>,
        unsigned: State,
    ) -> Result<proto::Certificate, Status> {
        let (state, certificate) = match self.sign(snapshot, node_id, role, &csr).await {
            Ok(certificate) => (State::Issued, certificate),
            Err(Unsigned::Yet(error)) => {
                tracing::warn!(
                    node.id = node_id,
                    error,
                    "nobody signs a node's certificate"
                );
                (unsigned, Vec::new())
            }
            Err(unsigned) => return Err(unsigned.into()),
        };
        Ok(proto::Certificate {
            role: role.into(),
            csr,
            status: Some(status(state)),
            certificate,
            cn: node_id.to_owned(),
        })
    }

    async fn renew(
        &self,
        caller: &RemoteNode,
        csr: Vec<u8>,
    ) -> Result<proto::IssueNodeCertificateResponse, Status> {
        let id = &caller.node_id;
        let snapshot = self.store.snapshot();
        let not_found = || {
            let text = format!("node {id} not found when attempting to renew certificate");
            Status::not_found(text)
        };
        let role = snapshot
            .get::<proto::Node>(id)
            .ok_or_else(not_found)?
            .role();
        let certificate = self.certify(&snapshot, id, role, csr, State::Renew).await?;
        let written = self.store.update(|tx| {
            tx.modify::<proto::Node>(id, |node| {
                node.certificate = Some(if node.role() == role {
                    certificate
                } else {
                    // The role changed while this was being signed: the loop signs it anew.
                    unsigned(certificate, node.role())
                });
            })
        });
        let node = match written.await {
            Err(UpdateError::Rejected(StoreError::NotExist)) => return Err(not_found()),
            written => written.map_err(|error| refused(&error))?,
        };
        tracing::debug!(node.id = %id, "renewed a node's certificate");
        Ok(proto::IssueNodeCertificateResponse {
            node_id: id.clone(),
            node_membership: node.spec().membership,
        })
    }

    async fn admit(
        &self,
        role: proto::NodeRole,
        request: proto::IssueNodeCertificateRequest,
    ) -> Result<proto::IssueNodeCertificateResponse, Status> {
        let snapshot = self.store.snapshot();
        let data_path_port = the_cluster(&snapshot)?.vxlan_udp_port;
        for _ in 0..ATTEMPTS {
            let id = NodeId::random().to_string();
            let csr = request.csr.clone();
            let certificate = self.certify(&snapshot, &id, role, csr, State::Pending);
            let certificate = certificate.await?;
            let node = proto::Node {
                id: id.clone(),
                role: role.into(),
                certificate: Some(certificate),
                spec: Some(proto::NodeSpec {
                    annotations: Some(proto::Annotations::default()),
                    desired_role: role.into(),
                    membership: Membership::Accepted.into(),
                    availability: request.availability,
                }),
                vxlan_udp_port: data_path_port,
                ..Default::default()
            };
            match self.store.update(|tx| tx.create(node)).await {
                Ok(_) => {
                    tracing::info!(node.id = %id, ?role, "a node joined");
                    return Ok(proto::IssueNodeCertificateResponse {
                        node_id: id,
                        node_membership: Membership::Accepted.into(),
                    });
                }
                Err(UpdateError::Rejected(StoreError::Exist)) => {}
                Err(error) => return Err(refused(&error)),
            }
        }
        Err(Status::unknown(StoreError::Exist.to_string()))
    }
}

#[async_trait::async_trait]
impl CertificateAuthority for StoreAuthority {
    fn root_certificates(&self) -> Result<Vec<u8>, Status> {
        Ok(the_cluster(&self.store.snapshot())?
            .root_ca()
            .ca_cert
            .clone())
    }

    fn unlock_key(&self) -> Result<proto::GetUnlockKeyResponse, Status> {
        let snapshot = self.store.snapshot();
        let cluster = the_cluster(&snapshot)?;
        let locks = cluster.spec().encryption_config().auto_lock_managers;
        let key = cluster
            .unlock_keys
            .iter()
            .find(|key| locks && key.subsystem == MANAGER_SUBSYSTEM)
            .map(|key| key.key.clone());
        Ok(proto::GetUnlockKeyResponse {
            unlock_key: key.unwrap_or_default(),
            version: cluster.meta.as_ref().and_then(|meta| meta.version),
        })
    }

    async fn issue(
        &self,
        caller: Option<&RemoteNode>,
        request: proto::IssueNodeCertificateRequest,
    ) -> Result<proto::IssueNodeCertificateResponse, Status> {
        if request.csr.is_empty() {
            return Err(Status::invalid_argument("InvalidArgument"));
        }
        if let Some(caller) = caller {
            return self.renew(caller, request.csr).await;
        }
        let role = token_role(&self.store.snapshot(), &request.token)?;
        self.admit(role, request).await
    }

    async fn status(
        &self,
        request: proto::NodeCertificateStatusRequest,
    ) -> Result<proto::NodeCertificateStatusResponse, Status> {
        if request.node_id.is_empty() {
            return Err(Status::invalid_argument("InvalidArgument"));
        }
        let filter = WatchFilter::node(&request.node_id.as_str().into());
        let (mut snapshot, mut watch) = self.store.snapshot_and_watch(filter);
        loop {
            let node = snapshot
                .get::<proto::Node>(&request.node_id)
                .ok_or_else(|| Status::not_found("NotFound"))?;
            if is_final(node.certificate()) {
                return Ok(proto::NodeCertificateStatusResponse {
                    status: node.certificate().status.clone(),
                    certificate: node.certificate.clone(),
                });
            }
            if matches!(watch.next().await, Err(WatchError::Closed)) {
                return Err(Status::aborted("CA signer is stopped"));
            }
            snapshot = self.store.snapshot();
        }
    }
}

fn the_cluster(snapshot: &Snapshot) -> Result<&Arc<proto::Cluster>, Status> {
    let starting = || Status::aborted("CA signer is still starting");
    snapshot.the_cluster().ok_or_else(starting)
}

/// The whole token says the role. Compared in a time that does not depend on where it is wrong.
fn token_role(snapshot: &Snapshot, token: &str) -> Result<proto::NodeRole, Status> {
    let tokens = the_cluster(snapshot)?.root_ca().join_tokens();
    if is_same_secret(&tokens.manager, token) {
        Ok(proto::NodeRole::Manager)
    } else if is_same_secret(&tokens.worker, token) {
        Ok(proto::NodeRole::Worker)
    } else {
        let text = "A valid join token is necessary to join this cluster";
        Err(Status::invalid_argument(text))
    }
}

fn is_same_secret(secret: &str, given: &str) -> bool {
    let differing = secret
        .bytes()
        .zip(given.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    !secret.is_empty() && secret.len() == given.len() && std::hint::black_box(differing) == 0
}

fn unsigned(certificate: proto::Certificate, role: proto::NodeRole) -> proto::Certificate {
    proto::Certificate {
        role: role.into(),
        status: Some(status(State::Renew)),
        certificate: Vec::new(),
        ..certificate
    }
}

fn fill(certificate: &mut proto::Certificate, signed: Result<Vec<u8>, String>) {
    match signed {
        Ok(signed) => {
            certificate.certificate = signed;
            certificate.status = Some(status(State::Issued));
        }
        Err(error) => {
            certificate.status = Some(proto::IssuanceStatus {
                state: State::Failed.into(),
                err: error,
            });
        }
    }
}

fn status(state: State) -> proto::IssuanceStatus {
    proto::IssuanceStatus {
        state: state.into(),
        err: String::new(),
    }
}

fn state_of(certificate: &proto::Certificate) -> State {
    certificate
        .status
        .as_ref()
        .map_or(State::Unknown, proto::IssuanceStatus::state)
}

fn is_final(certificate: &proto::Certificate) -> bool {
    matches!(
        state_of(certificate),
        State::Issued | State::Failed | State::Rotate
    )
}

fn awaits_signature(node: &proto::Node) -> bool {
    match state_of(node.certificate()) {
        State::Renew => true,
        State::Pending => node.spec().membership() == Membership::Accepted,
        _ => false,
    }
}

fn refused(error: &UpdateError<StoreError>) -> Status {
    let text = crate::connect::chain(error);
    match error {
        UpdateError::Rejected(_) => Status::unknown(text),
        UpdateError::Propose(_) => Status::unavailable(text),
    }
}
