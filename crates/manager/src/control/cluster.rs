//! The cluster's own object.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_ca::{JoinToken, MIN_NODE_CERTIFICATE_VALIDITY, RootCa, UnlockKey};
use skep_model::defaults::{self, duration_from_wire};
use skep_model::ext::{ClusterExt as _, ClusterSpecExt as _};
use skep_model::{StoreObject as _, Timestamp};
use skep_proto as proto;

use super::Control;
use super::filter::common;
use super::root::RootDecision;
use crate::error::{Code, ControlError, Result};

/// How long a removed node's certificate is refused past its end.
const EXPIRED_CERTIFICATE_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Whose unlock key the managers' is.
const MANAGERS: &str = "swarm-manager";

impl Control {
    pub fn get_cluster(
        &self,
        request: &proto::GetClusterRequest,
    ) -> Result<proto::GetClusterResponse> {
        let id = &request.cluster_id;
        if id.is_empty() {
            return Err(ControlError::incomplete());
        }
        let snapshot = self.store.snapshot();
        let cluster = snapshot
            .get::<proto::Cluster>(id)
            .ok_or_else(|| not_found(id))?;
        Ok(proto::GetClusterResponse {
            cluster: Some(redacted(cluster)),
        })
    }

    pub fn list_clusters(
        &self,
        request: &proto::ListClustersRequest,
    ) -> proto::ListClustersResponse {
        let filters = request.filters.clone().unwrap_or_default();
        let common = common!(filters);
        let matches = |cluster: &&Arc<proto::Cluster>| {
            common.holds(
                &cluster.id,
                cluster.name(),
                &cluster.spec().annotations().labels,
            )
        };
        let snapshot = self.store.snapshot();
        let clusters = snapshot
            .all()
            .filter(matches)
            .map(|c| redacted(c))
            .collect();
        proto::ListClustersResponse { clusters }
    }

    pub async fn update_cluster(
        &self,
        request: proto::UpdateClusterRequest,
    ) -> Result<proto::UpdateClusterResponse> {
        let id = request.cluster_id;
        let version = request.cluster_version.filter(|_| !id.is_empty());
        let version = version.ok_or_else(ControlError::incomplete)?;
        let spec = request.spec.ok_or_else(ControlError::incomplete)?;
        validate(&spec)?;
        let rotation = request.rotation.unwrap_or_default();
        let updated = loop {
            let known = self.store.snapshot().get::<proto::Cluster>(&id).cloned();
            let known = known.ok_or_else(|| not_found(&id))?;
            let root = self.next_root(&known, &spec).await?;
            let updated = self.store.update(|tx| {
                let cluster = tx
                    .get::<proto::Cluster>(&id)
                    .ok_or_else(|| not_found(&id))?;
                if cluster.root_ca != known.root_ca {
                    return Ok(None);
                }
                let mut cluster = (**cluster).clone();
                cluster.meta.get_or_insert_default().version = Some(version);
                cluster.spec = Some(spec.clone());
                forget_expired_certificates(&mut cluster);
                cluster.root_ca = Some(root);
                rotate_tokens(&mut cluster, rotation)?;
                rotate_unlock_key(&mut cluster, rotation);
                tx.update(cluster).map(Some).map_err(ControlError::from)
            });
            // Deciding may have taken seconds. Another root than the one decided upon is another
            // question.
            if let Some(updated) = updated.await? {
                break updated;
            }
        };
        Ok(proto::UpdateClusterResponse {
            cluster: Some(redacted(&updated)),
        })
    }

    async fn next_root(
        &self,
        cluster: &proto::Cluster,
        spec: &proto::ClusterSpec,
    ) -> Result<proto::RootCa> {
        let decision = RootDecision {
            current: cluster.root_ca(),
            wanted: spec.ca_config(),
            external: self.external.as_ref(),
        };
        decision.decide().await
    }
}

fn not_found(id: &str) -> ControlError {
    ControlError::not_found(format!("cluster {id} not found"))
}

fn validate(spec: &proto::ClusterSpec) -> Result<()> {
    let too_short = |expiry: &prost_types::Duration| {
        duration_from_wire(expiry).is_none_or(|expiry| expiry < MIN_NODE_CERTIFICATE_VALIDITY)
    };
    if spec
        .ca_config()
        .node_cert_expiry
        .as_ref()
        .is_some_and(too_short)
    {
        let message = "minimum certificate expiry time is: 1h0m0s";
        return Err(ControlError::invalid(message));
    }
    for policy in &spec.acceptance_policy().policies {
        if let Some(secret) = &policy.secret
            && !secret.alg.eq_ignore_ascii_case("bcrypt")
        {
            let message = format!("hashing algorithm is not supported: {}", secret.alg);
            return Err(ControlError::invalid(message));
        }
    }
    if let Some(period) = &spec.dispatcher().heartbeat_period
        && duration_from_wire(period).is_none()
    {
        let message = "heartbeat time period cannot be a negative duration";
        return Err(ControlError::invalid(message));
    }
    if spec.annotations().name != defaults::CLUSTER_NAME {
        return Err(ControlError::invalid(
            "modification of cluster name is not allowed",
        ));
    }
    Ok(())
}

fn rotate_tokens(cluster: &mut proto::Cluster, rotation: proto::KeyRotation) -> Result<()> {
    if !rotation.worker_join_token && !rotation.manager_join_token {
        return Ok(());
    }
    let root = cluster.root_ca.get_or_insert_default();
    let failed = || ControlError::new(Code::Internal, "error loading cluster rootCA for update");
    let certificate = std::str::from_utf8(&root.ca_cert).map_err(|_| failed())?;
    let ca = RootCa::from_pem(certificate, None).map_err(|_| failed())?;
    let tokens = root.join_tokens.get_or_insert_default();
    if rotation.worker_join_token {
        tokens.worker = JoinToken::generate(&ca).to_string();
    }
    if rotation.manager_join_token {
        tokens.manager = JoinToken::generate(&ca).to_string();
    }
    Ok(())
}

fn rotate_unlock_key(cluster: &mut proto::Cluster, rotation: proto::KeyRotation) {
    let locked = cluster.spec().encryption_config().auto_lock_managers;
    let present = cluster
        .unlock_keys
        .iter()
        .any(|key| key.subsystem == MANAGERS);
    if !locked || rotation.manager_unlock_key {
        cluster.unlock_keys.retain(|key| key.subsystem != MANAGERS);
    }
    if locked && (rotation.manager_unlock_key || !present) {
        cluster.unlock_keys.push(proto::EncryptionKey {
            subsystem: MANAGERS.to_owned(),
            key: UnlockKey::generate().key().as_bytes().to_vec(),
            ..Default::default()
        });
    }
}

/// Without keys. The signing certificate goes too: sent back in an update without its key, it would
/// read as a wish to rotate.
fn redacted(cluster: &proto::Cluster) -> proto::Cluster {
    let mut spec = cluster.spec().clone();
    if let Some(ca) = &mut spec.ca_config {
        ca.signing_ca_key = Vec::new();
        ca.signing_ca_cert = Vec::new();
    }
    let mut root_ca = cluster.root_ca().clone();
    root_ca.ca_key = Vec::new();
    if let Some(rotation) = &mut root_ca.root_rotation {
        rotation.ca_key = Vec::new();
    }
    let default_pool = cluster.default_address_pool.is_empty();
    proto::Cluster {
        id: cluster.id.clone(),
        meta: cluster.meta,
        spec: Some(spec),
        root_ca: Some(root_ca),
        blacklisted_certificates: cluster.blacklisted_certificates.clone(),
        default_address_pool: if default_pool {
            vec![defaults::ADDRESS_POOL.to_owned()]
        } else {
            cluster.default_address_pool.clone()
        },
        subnet_size: if default_pool {
            defaults::SUBNET_SIZE
        } else {
            cluster.subnet_size
        },
        vxlan_udp_port: match cluster.vxlan_udp_port {
            0 => defaults::DATA_PATH_PORT,
            port => port,
        },
        ..proto::Cluster::default()
    }
}

pub(super) fn forget_expired_certificates(cluster: &mut proto::Cluster) {
    let limit = Timestamp::from(SystemTime::now()) - EXPIRED_CERTIFICATE_GRACE;
    let expired = |barred: &proto::BlacklistedCertificate| {
        barred
            .expiry
            .is_some_and(|expiry| Timestamp::from(expiry) < limit)
    };
    cluster
        .blacklisted_certificates
        .retain(|_, barred| !expired(barred));
}
