//! Docker's JSON for the swarm itself, to and from the cluster object.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models as m;
use skep_model::defaults::{self, duration_from_wire, wire_duration};
use skep_model::ext::{ClusterExt as _, ClusterSpecExt as _, RootCaExt as _};
use skep_model::{Meta, StoreObject as _, Timestamp, proto};

use crate::{ClusterError, founding};

/// Puts what the user said over `spec`. What is zero or left out stays as `spec` has it, as in
/// dockerd; so an update over an empty spec sets unnamed things to zero.
pub(crate) fn merge(
    given: m::SwarmSpec,
    mut spec: proto::ClusterSpec,
) -> Result<proto::ClusterSpec, ClusterError> {
    refuse_what_is_not_built(&given)?;
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
    let ca = given.ca_config.unwrap_or_default();
    let ca_config = spec.ca_config.get_or_insert_default();
    if let Some(expiry) = nonzero(ca.node_cert_expiry) {
        ca_config.node_cert_expiry = Some(wire_nanos(expiry));
    }
    ca_config.force_rotate = ca.force_rotate.unwrap_or_default();
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

/// Better an error than a swarm that quietly signs with another key than the one it was given.
fn refuse_what_is_not_built(given: &m::SwarmSpec) -> Result<(), ClusterError> {
    let Some(ca) = &given.ca_config else {
        return Ok(());
    };
    let text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let what = if ca.external_cas.as_ref().is_some_and(|cas| !cas.is_empty()) {
        "external certificate authorities are"
    } else if text(&ca.signing_ca_cert) || text(&ca.signing_ca_key) {
        "bringing your own root certificate is"
    } else if ca.force_rotate.unwrap_or_default() != 0 {
        "rotating the root certificate is"
    } else {
        return Ok(());
    };
    Err(ClusterError::new(
        crate::ErrorKind::NotImplemented,
        format!("skep: {what} not implemented yet"),
    ))
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
            ..Default::default()
        }),
        encryption_config: Some(m::SwarmSpecEncryptionConfig {
            auto_lock_managers: Some(spec.encryption_config().auto_lock_managers),
        }),
        task_defaults: Some(m::SwarmSpecTaskDefaults::default()),
    }
}

fn tls_info(cluster: &proto::Cluster) -> m::TlsInfo {
    let issuer = founding::root(cluster).and_then(|root| root.issuer_info().ok());
    let (subject, key) = issuer.unzip();
    m::TlsInfo {
        trust_root: Some(String::from_utf8_lossy(&cluster.root_ca().ca_cert).into_owned()),
        cert_issuer_subject: subject.map(|bytes| STANDARD.encode(bytes)),
        cert_issuer_public_key: key.map(|bytes| STANDARD.encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_is_not_built_is_refused_by_name() {
        let given = m::SwarmSpec {
            ca_config: Some(m::SwarmSpecCaConfig {
                signing_ca_cert: Some("PEM".into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let error = merge(given, founding::default_spec()).unwrap_err();
        assert_eq!(error.kind, crate::ErrorKind::NotImplemented);
    }
}
