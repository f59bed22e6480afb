//! Docker's JSON for the swarm itself, to and from the cluster object.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models as m;
use skep_model::defaults::{self, duration_from_wire, wire_duration};
use skep_model::ext::{ClusterExt as _, ClusterSpecExt as _, RootCaExt as _};
use skep_model::{Meta, StoreObject as _, Timestamp, proto};

use crate::ClusterError;

/// Puts what the user said over `spec`. What is zero or left out stays as `spec` has it, as in
/// dockerd; so an update over an empty spec sets unnamed things to zero.
pub(crate) fn merge(
    given: m::SwarmSpec,
    mut spec: proto::ClusterSpec,
) -> Result<proto::ClusterSpec, ClusterError> {
    let annotations = spec.annotations.get_or_insert_default();
    match given.name.as_deref() {
        None | Some("" | defaults::CLUSTER_NAME) => {
            defaults::CLUSTER_NAME.clone_into(&mut annotations.name);
        }
        Some(_) => {
            return Err(ClusterError::invalid(
                "swarm spec must be named \"default\"",
            ));
        }
    }
    if let Some(labels) = given.labels.filter(|labels| !labels.is_empty()) {
        annotations.labels = labels.into_iter().collect();
    }
    if let Some(limit) = given
        .orchestration
        .and_then(|o| o.task_history_retention_limit)
    {
        spec.orchestration
            .get_or_insert_default()
            .task_history_retention_limit = limit;
    }
    merge_raft(
        given.raft.unwrap_or_default(),
        spec.raft.get_or_insert_default(),
    );
    let dispatcher = spec.dispatcher.get_or_insert_default();
    if let Some(period) = given.dispatcher.and_then(|d| nonzero(d.heartbeat_period)) {
        dispatcher.heartbeat_period = Some(wire_nanos(period));
    }
    merge_ca(
        given.ca_config.unwrap_or_default(),
        spec.ca_config.get_or_insert_default(),
    );
    let lock = given
        .encryption_config
        .and_then(|e| e.auto_lock_managers)
        .unwrap_or_default();
    spec.encryption_config
        .get_or_insert_default()
        .auto_lock_managers = lock;
    Ok(spec)
}

fn merge_raft(given: m::SwarmSpecRaft, raft: &mut proto::RaftConfig) {
    if let Some(interval) = nonzero(given.snapshot_interval) {
        raft.snapshot_interval = interval;
    }
    if let Some(keep) = given.keep_old_snapshots {
        raft.keep_old_snapshots = keep;
    }
    if let Some(entries) = nonzero(given.log_entries_for_slow_followers) {
        raft.log_entries_for_slow_followers = entries;
    }
    if let Some(tick) = nonzero(given.heartbeat_tick) {
        raft.heartbeat_tick = tick as u32;
    }
    if let Some(tick) = nonzero(given.election_tick) {
        raft.election_tick = tick as u32;
    }
}

fn merge_ca(given: m::SwarmSpecCaConfig, ca: &mut proto::CaConfig) {
    if let Some(expiry) = nonzero(given.node_cert_expiry) {
        ca.node_cert_expiry = Some(wire_nanos(expiry));
    }
    if let Some(certificate) = nonzero(given.signing_ca_cert) {
        ca.signing_ca_cert = certificate.into();
    }
    if let Some(key) = nonzero(given.signing_ca_key) {
        ca.signing_ca_key = key.into();
    }
    ca.force_rotate = given.force_rotate.unwrap_or_default();
    let external = given.external_cas.unwrap_or_default().into_iter();
    ca.external_cas
        .extend(external.map(|external| proto::ExternalCa {
            // There is but one.
            protocol: proto::external_ca::CaProtocol::Cfssl.into(),
            url: external.url.unwrap_or_default(),
            options: external.options.unwrap_or_default().into_iter().collect(),
            ca_cert: external.ca_cert.unwrap_or_default().into(),
        }));
}

/// What the control API would refuse, checked before a swarm is made with it.
pub(crate) fn validate(spec: &proto::ClusterSpec) -> Result<(), ClusterError> {
    let invalid = |text: &str| Err(tonic::Status::invalid_argument(text).into());
    if let Some(expiry) = &spec.ca_config().node_cert_expiry {
        let long_enough = duration_from_wire(expiry)
            .is_some_and(|expiry| expiry >= skep_ca::MIN_NODE_CERTIFICATE_VALIDITY);
        if !long_enough {
            return invalid("minimum certificate expiry time is: 1h0m0s");
        }
    }
    let ca = spec.ca_config();
    if !ca.signing_ca_cert.is_empty() || !ca.signing_ca_key.is_empty() {
        return Err(ClusterError::invalid(
            "a new swarm makes a root certificate of its own; rotate to yours afterwards with \
             \"docker swarm ca --rotate\"",
        ));
    }
    match &spec.dispatcher().heartbeat_period {
        Some(period) if duration_from_wire(period).is_none() => {
            invalid("heartbeat time period cannot be a negative duration")
        }
        _ => Ok(()),
    }
}

/// How long node certificates are to be valid.
pub(crate) fn certificate_validity(spec: &proto::ClusterSpec) -> Duration {
    spec.ca_config()
        .node_cert_expiry
        .as_ref()
        .and_then(duration_from_wire)
        .filter(|expiry| *expiry >= skep_ca::MIN_NODE_CERTIFICATE_VALIDITY)
        .unwrap_or(defaults::NODE_CERT_EXPIRY)
}

fn nonzero<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn wire_nanos(nanos: i64) -> prost_types::Duration {
    match u64::try_from(nanos) {
        Ok(nanos) => wire_duration(Duration::from_nanos(nanos)),
        Err(_) => prost_types::Duration {
            seconds: nanos / 1_000_000_000,
            nanos: (nanos % 1_000_000_000) as i32,
        },
    }
}

fn nanos(duration: Option<&prost_types::Duration>) -> i64 {
    duration.map_or(0, |duration| {
        duration
            .seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(duration.nanos.into())
    })
}

/// `docker swarm inspect` as the API gives it, with the join tokens.
pub(crate) fn swarm(cluster: &proto::Cluster) -> m::Swarm {
    let info = cluster_info(cluster);
    let tokens = cluster.root_ca().join_tokens();
    m::Swarm {
        id: info.id,
        version: info.version,
        created_at: info.created_at,
        updated_at: info.updated_at,
        spec: info.spec,
        tls_info: info.tls_info,
        root_rotation_in_progress: info.root_rotation_in_progress,
        data_path_port: info.data_path_port,
        default_addr_pool: info.default_addr_pool,
        subnet_size: info.subnet_size,
        join_tokens: Some(m::JoinTokens {
            worker: Some(tokens.worker.clone()),
            manager: Some(tokens.manager.clone()),
        }),
    }
}

/// The same without the tokens, as `docker info` shows it.
pub(crate) fn cluster_info(cluster: &proto::Cluster) -> m::ClusterInfo {
    let Meta {
        version,
        created_at,
        updated_at,
    } = cluster.meta();
    let date = |time: Option<Timestamp>| Some(time.unwrap_or(Timestamp::GO_ZERO).to_string());
    // Stored only if the user chose them; shown always.
    let (pool, subnet_size) = if cluster.default_address_pool.is_empty() {
        (
            vec![defaults::ADDRESS_POOL.to_owned()],
            defaults::SUBNET_SIZE,
        )
    } else {
        (cluster.default_address_pool.clone(), cluster.subnet_size)
    };
    let port = match cluster.vxlan_udp_port {
        0 => defaults::DATA_PATH_PORT,
        port => port,
    };
    m::ClusterInfo {
        id: Some(cluster.id.clone()),
        version: Some(m::ObjectVersion {
            index: Some(version.0),
        }),
        created_at: date(created_at),
        updated_at: date(updated_at),
        spec: Some(swarm_spec(cluster.spec())),
        tls_info: Some(tls_info(cluster)),
        root_rotation_in_progress: Some(cluster.root_ca().root_rotation.is_some()),
        data_path_port: Some(port),
        default_addr_pool: Some(pool),
        subnet_size: Some(subnet_size),
    }
}

fn swarm_spec(spec: &proto::ClusterSpec) -> m::SwarmSpec {
    let (raft, ca) = (spec.raft(), spec.ca_config());
    m::SwarmSpec {
        name: Some(spec.annotations().name.clone()),
        labels: Some(spec.annotations().labels.clone().into_iter().collect()),
        orchestration: Some(m::SwarmSpecOrchestration {
            task_history_retention_limit: Some(spec.orchestration().task_history_retention_limit),
        }),
        raft: Some(m::SwarmSpecRaft {
            snapshot_interval: Some(raft.snapshot_interval),
            keep_old_snapshots: Some(raft.keep_old_snapshots),
            log_entries_for_slow_followers: Some(raft.log_entries_for_slow_followers),
            election_tick: Some(raft.election_tick.into()),
            heartbeat_tick: Some(raft.heartbeat_tick.into()),
        }),
        dispatcher: Some(m::SwarmSpecDispatcher {
            heartbeat_period: Some(nanos(spec.dispatcher().heartbeat_period.as_ref())),
        }),
        ca_config: Some(m::SwarmSpecCaConfig {
            node_cert_expiry: Some(nanos(ca.node_cert_expiry.as_ref())),
            force_rotate: Some(ca.force_rotate),
            external_cas: Some(ca.external_cas.iter().map(external_ca).collect()),
            // The certificate without its key would read as a wish to rotate when it is sent back.
            signing_ca_cert: None,
            signing_ca_key: None,
        }),
        encryption_config: Some(m::SwarmSpecEncryptionConfig {
            auto_lock_managers: Some(spec.encryption_config().auto_lock_managers),
        }),
        task_defaults: Some(m::SwarmSpecTaskDefaults::default()),
    }
}

fn external_ca(external: &proto::ExternalCa) -> m::SwarmSpecCaConfigExternalCas {
    m::SwarmSpecCaConfigExternalCas {
        protocol: Some(m::SwarmSpecCaConfigExternalCasProtocolEnum::CFSSL),
        url: Some(external.url.clone()),
        options: Some(external.options.clone().into_iter().collect()),
        ca_cert: Some(String::from_utf8_lossy(&external.ca_cert).into_owned()),
    }
}

/// What all nodes trust, and who issues their certificates: the next root already, while the root is
/// rotated.
fn tls_info(cluster: &proto::Cluster) -> m::TlsInfo {
    let root = cluster.root_ca();
    let issuing = String::from_utf8_lossy(skep_manager::issuing_root(root));
    let issuer = skep_ca::IssuerInfo::of_root(&issuing).ok();
    let (subject, key) = issuer
        .map(|issuer| (issuer.subject, issuer.public_key))
        .unzip();
    m::TlsInfo {
        trust_root: Some(String::from_utf8_lossy(&root.ca_cert).into_owned()),
        cert_issuer_subject: subject.map(|bytes| STANDARD.encode(bytes)),
        cert_issuer_public_key: key.map(|bytes| STANDARD.encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::founding;

    #[test]
    fn what_is_left_out_keeps_its_default() {
        let spec = merge(m::SwarmSpec::default(), founding::default_spec()).unwrap();
        assert_eq!(spec, founding::default_spec());
        assert!(validate(&spec).is_ok());
    }

    #[test]
    fn what_is_given_comes_back() {
        let given = m::SwarmSpec {
            name: Some(String::new()),
            labels: Some([("a".to_owned(), "b".to_owned())].into()),
            orchestration: Some(m::SwarmSpecOrchestration {
                task_history_retention_limit: Some(0),
            }),
            dispatcher: Some(m::SwarmSpecDispatcher {
                heartbeat_period: Some(7_000_000_000),
            }),
            ..Default::default()
        };
        let shown = swarm_spec(&merge(given, founding::default_spec()).unwrap());
        assert_eq!(shown.name.as_deref(), Some("default"));
        assert_eq!(shown.labels.unwrap()["a"], "b");
        assert_eq!(
            shown.orchestration.unwrap().task_history_retention_limit,
            Some(0)
        );
        assert_eq!(
            shown.dispatcher.unwrap().heartbeat_period,
            Some(7_000_000_000)
        );
        assert_eq!(
            shown.ca_config.unwrap().node_cert_expiry,
            Some(7_776_000_000_000_000)
        );
        assert_eq!(shown.raft.unwrap().snapshot_interval, Some(10_000));
    }

    #[test]
    fn bad_settings_are_refused_in_swarmkits_words() {
        let with = |expiry, heartbeat| {
            let given = m::SwarmSpec {
                ca_config: Some(m::SwarmSpecCaConfig {
                    node_cert_expiry: Some(expiry),
                    ..Default::default()
                }),
                dispatcher: Some(m::SwarmSpecDispatcher {
                    heartbeat_period: Some(heartbeat),
                }),
                ..Default::default()
            };
            validate(&merge(given, founding::default_spec()).unwrap())
                .unwrap_err()
                .message
        };
        assert_eq!(
            with(60_000_000_000, 1),
            "rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s"
        );
        assert_eq!(
            with(0, -1),
            "rpc error: code = InvalidArgument desc = heartbeat time period cannot be a negative duration"
        );
        let named = m::SwarmSpec {
            name: Some("mine".into()),
            ..Default::default()
        };
        assert_eq!(
            merge(named, founding::default_spec()).unwrap_err().message,
            "swarm spec must be named \"default\""
        );
    }

    #[test]
    fn a_root_that_is_brought_along_is_not_shown_but_its_authorities_are() {
        let given = m::SwarmSpec {
            ca_config: Some(m::SwarmSpecCaConfig {
                signing_ca_cert: Some("certificate".into()),
                signing_ca_key: Some("key".into()),
                force_rotate: Some(3),
                external_cas: Some(vec![m::SwarmSpecCaConfigExternalCas {
                    url: Some("https://ca.example/sign".into()),
                    ca_cert: Some("certificate".into()),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let spec = merge(given, founding::default_spec()).unwrap();
        assert_eq!(spec.ca_config().signing_ca_cert, b"certificate");
        assert_eq!(spec.ca_config().signing_ca_key, b"key");
        let shown = swarm_spec(&spec).ca_config.unwrap();
        assert_eq!((shown.signing_ca_cert, shown.signing_ca_key), (None, None));
        assert_eq!(shown.force_rotate, Some(3));
        let external = &shown.external_cas.unwrap()[0];
        assert_eq!(external.url.as_deref(), Some("https://ca.example/sign"));
        assert_eq!(external.ca_cert.as_deref(), Some("certificate"));
    }

    #[test]
    fn while_the_root_is_rotated_the_next_one_is_said_to_issue() {
        let [old, new] =
            [(); 2].map(|()| skep_ca::RootCa::generate(crate::identity::now()).unwrap());
        let mut cluster = proto::Cluster {
            root_ca: Some(proto::RootCa {
                ca_cert: old.certificate_pem().into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let key = |root: &skep_ca::RootCa| STANDARD.encode(root.issuer_info().unwrap().public_key);
        assert_eq!(tls_info(&cluster).cert_issuer_public_key, Some(key(&old)));
        cluster.root_ca.as_mut().unwrap().root_rotation = Some(proto::RootRotation {
            ca_cert: new.certificate_pem().into(),
            ..Default::default()
        });
        let shown = tls_info(&cluster);
        assert_eq!(shown.cert_issuer_public_key, Some(key(&new)));
        assert_eq!(shown.trust_root.as_deref(), Some(old.certificate_pem()));
    }
}
