//! How a node gets into a swarm: the root certificate by the token's digest, a certificate by the
//! token, a place among the managers by the certificate.

use std::time::Duration;

use skep_ca::{CaError, CertificateInfo, JoinToken, NodeCertificate, NodeKey, RootCa};
use skep_proto as proto;
use skep_proto::ca_client::CaClient;
use skep_proto::issuance_status::State;
use skep_proto::node_ca_client::NodeCaClient;
use skep_proto::raft_membership_client::RaftMembershipClient;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::authorize::go;
use crate::connect::{ConnectError, Connector};
use crate::remotes::Remotes;

/// SwarmKit's limit for a call to the certificate authority.
const CALL: Duration = Duration::from_secs(5);
/// SwarmKit's number of attempts, and the time between two.
const ATTEMPTS: usize = 5;
const RETRY: Duration = Duration::from_secs(2);
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(transparent)]
    Certificate(#[from] CaError),
    /// As Go prints a gRPC error: users of Docker know it.
    #[error("{}", go(.0))]
    Refused(Status),
    #[error("no remote hosts provided")]
    NoManagers,
    /// The managers could not sign the request.
    #[error("the managers could not issue a certificate: {0}")]
    Failed(String),
}

impl From<Status> for BootstrapError {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl From<ConnectError> for BootstrapError {
    fn from(error: ConnectError) -> Self {
        Self::Refused(error.into())
    }
}

impl BootstrapError {
    /// Whether another manager, or the same one later, may answer otherwise.
    fn is_passing(&self) -> bool {
        match self {
            Self::Refused(status) => !matches!(
                status.code(),
                Code::InvalidArgument | Code::PermissionDenied | Code::NotFound
            ),
            _ => false,
        }
    }
}

/// What a node has once it was let in.
pub struct Admission {
    pub root: RootCa,
    pub certificate: NodeCertificate,
    /// Says which node this is, of which cluster, in which role.
    pub info: CertificateInfo,
}

/// Joins the swarm of the managers at `remotes`: nothing is kept anywhere here, so that a failure
/// leaves a node as it was.
pub async fn admission(
    remotes: &Remotes,
    token: &JoinToken,
    availability: proto::node_spec::Availability,
) -> Result<Admission, BootstrapError> {
    let root = fetch_root(remotes, Some(token)).await?;
    let key = NodeKey::generate()?;
    let request = Request::new(proto::IssueNodeCertificateRequest {
        csr: key.request_pem()?.into_bytes(),
        token: token.to_string(),
        availability: availability.into(),
        ..Default::default()
    });
    let connector = Connector::bootstrap(skep_ca::bootstrap_client_config(Some(&root))?);
    let answer = try_all(remotes, |addr| {
        let (connector, request) = (connector.clone(), &request);
        async move { request.make(connector.connect(&addr).await?).await }
    });
    let certificate = accept(&root, &key, answer.await?)?;
    let info = CertificateInfo::from_pem(&certificate.certificate_pem)?;
    Ok(Admission {
        root,
        certificate,
        info,
    })
}

/// The root certificates of the swarm. They come from a manager that cannot be verified yet: the
/// token's digest does that.
pub async fn fetch_root(
    remotes: &Remotes,
    token: Option<&JoinToken>,
) -> Result<RootCa, BootstrapError> {
    let connector = Connector::bootstrap(skep_ca::bootstrap_client_config(None)?);
    try_all(remotes, |addr| {
        let connector = connector.clone();
        async move {
            let channel = connector.connect(&addr).await?;
            let request = proto::GetRootCaCertificateRequest {};
            let mut client = CaClient::new(channel);
            let answer = within(CALL, client.get_root_ca_certificate(request)).await?;
            let certificate = answer.certificate;
            if let Some(token) = token {
                token.verify(&certificate)?;
            }
            let pem = String::from_utf8(certificate).map_err(|error| CaError::Parse {
                what: "the root certificate",
                source: error.into(),
            })?;
            Ok(RootCa::from_pem(&pem, None)?)
        }
    })
    .await
}

/// Calls one manager after the other until one answers.
async fn try_all<T, F>(
    remotes: &Remotes,
    mut call: impl FnMut(String) -> F,
) -> Result<T, BootstrapError>
where
    F: Future<Output = Result<T, BootstrapError>>,
{
    let mut tried: Option<String> = None;
    let mut attempts = 0;
    loop {
        let remote = remotes
            .select(tried.as_deref())
            .ok_or(BootstrapError::NoManagers)?;
        attempts += 1;
        let answer = call(remote.addr.clone()).await;
        remotes.observe(&remote, answer.is_ok());
        match answer {
            Err(error) if error.is_passing() && attempts < ATTEMPTS => {
                tracing::warn!(manager = remote.addr, %error, "a manager does not let this node in");
                sleep(RETRY).await;
            }
            answer => return answer,
        }
        tried = Some(remote.addr);
    }
}

/// A request for a certificate: made once, then asked after until it is decided.
pub(crate) struct Request(proto::IssueNodeCertificateRequest);

impl Request {
    pub(crate) fn new(request: proto::IssueNodeCertificateRequest) -> Self {
        Self(request)
    }

    /// The certificate, PEM, not yet checked.
    pub(crate) async fn make(&self, channel: Channel) -> Result<Vec<u8>, BootstrapError> {
        let mut client = NodeCaClient::new(channel);
        let issued = within(CALL, client.issue_node_certificate(self.0.clone())).await?;
        let mut wait = FIRST_WAIT;
        loop {
            let request = proto::NodeCertificateStatusRequest {
                node_id: issued.node_id.clone(),
            };
            match within(CALL, client.node_certificate_status(request)).await {
                Ok(status) => {
                    if let Some(certificate) = certificate_of(status, &self.0.csr)? {
                        return Ok(certificate);
                    }
                }
                Err(status) if status.code() == Code::DeadlineExceeded => {}
                Err(status) => return Err(status.into()),
            }
            sleep(wait).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
    }
}

/// The certificate if it is there and answers this very request: an earlier one may still be stored.
pub(crate) fn certificate_of(
    answer: proto::NodeCertificateStatusResponse,
    csr: &[u8],
) -> Result<Option<Vec<u8>>, BootstrapError> {
    let status = answer.status.unwrap_or_default();
    let certificate = answer.certificate.unwrap_or_default();
    match status.state() {
        State::Issued | State::Rotate if certificate.csr == csr => {
            Ok(Some(certificate.certificate))
        }
        State::Failed if certificate.csr == csr => Err(BootstrapError::Failed(status.err)),
        _ => Ok(None),
    }
}

/// Takes a certificate only if the swarm's root has issued it, to a node, for this key.
pub(crate) fn accept(
    root: &RootCa,
    key: &NodeKey,
    certificate: Vec<u8>,
) -> Result<NodeCertificate, BootstrapError> {
    const WHAT: &str = "the node certificate";
    let rejected = |reason: String| CaError::Rejected { what: WHAT, reason };
    let certificate_pem =
        String::from_utf8(certificate).map_err(|error| rejected(error.to_string()))?;
    let info = root.verify(&certificate_pem, OffsetDateTime::now_utc())?;
    if info.identity().is_none() {
        return Err(rejected("its subject is not a swarm node's".to_owned()).into());
    }
    let certificate = NodeCertificate {
        certificate_pem,
        key_pem: key.key_pem(),
    };
    // Rustls refuses a key that is not the certificate's.
    skep_ca::client_config(root, &certificate)?;
    Ok(certificate)
}

/// Asks the managers at `addr` to take this node into their group. `advertise` is where it listens
/// already; they dial back.
pub async fn join_raft(
    connector: &Connector,
    addr: &str,
    advertise: &str,
) -> Result<proto::JoinResponse, Status> {
    let channel = connector.connect(addr).await?;
    let request = proto::JoinRequest {
        addr: advertise.to_owned(),
    };
    // Dialling back may take as long as one call, and an election may be under way.
    within(CALL * 3, RaftMembershipClient::new(channel).join(request)).await
}

/// Asks the leader to remove a member of the group: this node, which leaves.
pub async fn leave_raft(channel: Channel, raft_id: u64) -> Result<(), Status> {
    let request = proto::LeaveRequest {
        node: Some(proto::RaftMember {
            raft_id,
            ..Default::default()
        }),
    };
    within(CALL, RaftMembershipClient::new(channel).leave(request))
        .await
        .map(drop)
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")))
        .map(tonic::Response::into_inner)
}
