//! Who signs: the root in the cluster object, or an authority outside of the swarm.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skep_ca::{CaError, MIN_NODE_CERTIFICATE_VALIDITY, NodeIdentity, NodeRole, RootCa};
use skep_manager::{external_cas, issuing_root, root_ca};
use skep_model::defaults;
use skep_model::ext::{ClusterExt as _, ClusterSpecExt as _};
use skep_proto as proto;
use time::OffsetDateTime;
use tonic::Status;

use crate::NodeSecurity;
use crate::connect::chain;
use crate::external::{ExternalAuthority, ExternalError};

/// Why a request is not signed.
#[derive(Debug)]
pub(super) enum Unsigned {
    /// Nobody can sign at this moment: the request waits.
    Yet(String),
    /// The request is refused.
    Ever(String),
}

impl From<Unsigned> for Status {
    fn from(unsigned: Unsigned) -> Self {
        match unsigned {
            Unsigned::Yet(reason) => Self::unavailable(reason),
            Unsigned::Ever(reason) => Self::invalid_argument(reason),
        }
    }
}

pub(super) struct Signing {
    /// This node, as a client of external authorities.
    security: Option<Arc<NodeSecurity>>,
    /// The root read from the PEM that is kept with it.
    root: Mutex<Option<(proto::RootCa, Arc<RootCa>)>>,
}

impl Signing {
    pub(super) fn new(security: Option<Arc<NodeSecurity>>) -> Self {
        Self {
            security,
            root: Mutex::new(None),
        }
    }

    /// The certificate, PEM.
    pub(super) async fn sign(
        &self,
        cluster: &proto::Cluster,
        node_id: &str,
        role: proto::NodeRole,
        csr: &[u8],
    ) -> Result<Vec<u8>, Unsigned> {
        let csr = std::str::from_utf8(csr)
            .map_err(|_| Unsigned::Ever("the certificate request is not PEM".into()))?;
        let identity = NodeIdentity {
            organization: cluster.id.clone(),
            role: role_of(role),
            node_id: node_id.to_owned(),
        };
        let root = self.root(cluster)?;
        let (all, present) = (&cluster.spec().ca_config().external_cas, cluster.root_ca());
        let external = external_cas(all, &present.ca_cert, issuing_root(present));
        let urls: Vec<String> = external.map(|external| external.url.clone()).collect();
        let signed = if urls.is_empty() {
            let now = OffsetDateTime::now_utc();
            root.sign(csr, &identity, validity(cluster), now)
                .map_err(|error| match error {
                    CaError::NoSigner => Unsigned::Yet(error.to_string()),
                    error => Unsigned::Ever(chain(&error)),
                })?
        } else {
            self.sign_elsewhere(cluster, &root, &urls, csr, &identity)
                .await?
        };
        Ok(signed.into_bytes())
    }

    async fn sign_elsewhere(
        &self,
        cluster: &proto::Cluster,
        root: &RootCa,
        urls: &[String],
        csr: &str,
        identity: &NodeIdentity,
    ) -> Result<String, Unsigned> {
        let security = self
            .security
            .as_ref()
            .ok_or_else(|| Unsigned::Yet("this manager has no certificate yet".into()))?
            .current();
        let authority = ExternalAuthority {
            urls,
            // During a rotation, its server may have a certificate of either root.
            roots_pem: &both_roots(cluster.root_ca()),
            client: security.certificate(),
        };
        let signed = authority.sign(csr, identity).await;
        let signed = signed.map_err(|error| match error {
            ExternalError::Unreachable(reason) => Unsigned::Yet(reason),
            ExternalError::Refused(reason) => Unsigned::Ever(reason),
            ExternalError::Certificate(error) => Unsigned::Yet(chain(&error)),
        })?;
        Ok(signed + root.intermediate_pem())
    }

    fn root(&self, cluster: &proto::Cluster) -> Result<Arc<RootCa>, Unsigned> {
        let wanted = cluster.root_ca();
        let mut known = self.root.lock();
        if let Some((_, root)) = known.as_ref().filter(|(known, _)| known == wanted) {
            return Ok(Arc::clone(root));
        }
        let root = root_ca(wanted).map_err(|error| {
            Unsigned::Yet(format!(
                "invalid Root CA object in cluster: {}",
                chain(&error)
            ))
        })?;
        let root = Arc::new(root);
        *known = Some((wanted.clone(), Arc::clone(&root)));
        Ok(root)
    }
}

fn both_roots(root: &proto::RootCa) -> String {
    let mut roots = String::from_utf8_lossy(&root.ca_cert).into_owned();
    if let Some(rotation) = &root.root_rotation {
        roots.push('\n');
        roots.push_str(&String::from_utf8_lossy(&rotation.ca_cert));
    }
    roots
}

fn role_of(role: proto::NodeRole) -> NodeRole {
    match role {
        proto::NodeRole::Manager => NodeRole::Manager,
        proto::NodeRole::Worker => NodeRole::Worker,
    }
}

/// SwarmKit takes its default where the setting is shorter than it allows.
fn validity(cluster: &proto::Cluster) -> Duration {
    let expiry = cluster.spec().ca_config().node_cert_expiry;
    expiry
        .as_ref()
        .and_then(defaults::duration_from_wire)
        .filter(|expiry| *expiry >= MIN_NODE_CERTIFICATE_VALIDITY)
        .unwrap_or(defaults::NODE_CERT_EXPIRY)
}
