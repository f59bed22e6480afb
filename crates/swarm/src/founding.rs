//! The objects a swarm begins with.

use skep_ca::{JoinToken, RootCa, UnlockKey};
use skep_model::defaults;
use skep_model::ext::ClusterSpecExt as _;
use skep_model::proto;
use skep_model::{ClusterId, NetworkId, NodeId};
use skep_store::{StoreError, Transaction};

/// The subsystem whose unlock key seals the managers' keys.
pub(crate) const MANAGER_SUBSYSTEM: &str = "swarm-manager";

/// What a new swarm is made of.
pub(crate) struct Founding {
    pub(crate) cluster_id: ClusterId,
    pub(crate) node_id: NodeId,
    pub(crate) spec: proto::ClusterSpec,
    pub(crate) availability: proto::node_spec::Availability,
    pub(crate) default_address_pool: Vec<String>,
    pub(crate) subnet_size: u32,
    pub(crate) data_path_port: u32,
}

/// SwarmKit's defaults for everything that can be set about a swarm.
pub(crate) fn default_spec() -> proto::ClusterSpec {
    proto::ClusterSpec {
        annotations: Some(proto::Annotations {
            name: defaults::CLUSTER_NAME.to_owned(),
            ..Default::default()
        }),
        acceptance_policy: Some(proto::AcceptancePolicy::default()),
        orchestration: Some(proto::OrchestrationConfig {
            task_history_retention_limit: defaults::TASK_HISTORY_RETENTION_LIMIT,
        }),
        raft: Some(proto::RaftConfig {
            snapshot_interval: defaults::RAFT_SNAPSHOT_INTERVAL,
            keep_old_snapshots: 0,
            log_entries_for_slow_followers: defaults::RAFT_LOG_ENTRIES_FOR_SLOW_FOLLOWERS,
            heartbeat_tick: defaults::RAFT_HEARTBEAT_TICK,
            election_tick: defaults::RAFT_ELECTION_TICK,
        }),
        dispatcher: Some(proto::DispatcherConfig {
            heartbeat_period: Some(defaults::wire_duration(defaults::HEARTBEAT_PERIOD)),
        }),
        ca_config: Some(proto::CaConfig {
            node_cert_expiry: Some(defaults::wire_duration(defaults::NODE_CERT_EXPIRY)),
            ..Default::default()
        }),
        task_defaults: Some(proto::TaskDefaults::default()),
        encryption_config: Some(proto::EncryptionConfig::default()),
    }
}

/// The routing mesh's network, and those that are every node's own.
fn networks() -> Vec<proto::NetworkSpec> {
    let predefined = |name: &str| proto::NetworkSpec {
        annotations: Some(proto::Annotations {
            name: name.to_owned(),
            labels: [("com.docker.swarm.predefined".to_owned(), "true".to_owned())].into(),
            ..Default::default()
        }),
        driver_config: Some(proto::Driver {
            name: name.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut networks = vec![skep_allocator::ingress_spec()];
    networks.extend(["bridge", "host"].map(predefined));
    networks
}

impl Founding {
    /// Writes the cluster and this node.
    pub(crate) fn write(
        &self,
        root: &RootCa,
        unlock: Option<&UnlockKey>,
        transaction: &mut Transaction,
    ) -> Result<(), StoreError> {
        transaction.create(self.cluster(root, unlock))?;
        transaction.create(self.node())?;
        for spec in networks() {
            transaction.create(proto::Network {
                id: NetworkId::random().to_string(),
                spec: Some(spec),
                ..Default::default()
            })?;
        }
        Ok(())
    }

    fn cluster(&self, root: &RootCa, unlock: Option<&UnlockKey>) -> proto::Cluster {
        let unlock_keys = unlock.map(|unlock| proto::EncryptionKey {
            subsystem: MANAGER_SUBSYSTEM.to_owned(),
            key: unlock.key().as_bytes().to_vec(),
            ..Default::default()
        });
        proto::Cluster {
            id: self.cluster_id.to_string(),
            spec: Some(self.spec.clone()),
            root_ca: Some(proto::RootCa {
                ca_key: root.key_pem().unwrap_or_default().into_bytes(),
                ca_cert: root.certificate_pem().as_bytes().to_vec(),
                ca_cert_hash: root.digest_text(),
                join_tokens: Some(proto::JoinTokens {
                    worker: JoinToken::generate(root).to_string(),
                    manager: JoinToken::generate(root).to_string(),
                }),
                // Whatever count of rotations the user begins with, none is due.
                last_forced_rotation: self.spec.ca_config().force_rotate,
                ..Default::default()
            }),
            unlock_keys: unlock_keys.into_iter().collect(),
            default_address_pool: self.default_address_pool.clone(),
            subnet_size: self.subnet_size,
            vxlan_udp_port: self.data_path_port,
            ..Default::default()
        }
    }

    fn node(&self) -> proto::Node {
        let role = proto::NodeRole::Manager.into();
        proto::Node {
            id: self.node_id.to_string(),
            spec: Some(proto::NodeSpec {
                annotations: Some(proto::Annotations::default()),
                desired_role: role,
                membership: proto::node_spec::Membership::Accepted.into(),
                availability: self.availability.into(),
            }),
            role,
            certificate: Some(proto::Certificate {
                role,
                status: Some(proto::IssuanceStatus {
                    state: proto::issuance_status::State::Issued.into(),
                    ..Default::default()
                }),
                cn: self.node_id.to_string(),
                ..Default::default()
            }),
            vxlan_udp_port: self.data_path_port,
            ..Default::default()
        }
    }
}

/// The key that seals the managers' keys, if the swarm is set to lock them.
pub(crate) fn unlock_key(cluster: &proto::Cluster) -> Option<UnlockKey> {
    cluster
        .unlock_keys
        .iter()
        .find(|key| key.subsystem == MANAGER_SUBSYSTEM)
        .and_then(|key| UnlockKey::from_slice(&key.key))
}
