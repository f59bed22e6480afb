//! What users ask for, as Docker's API has it.

use std::net::IpAddr;

use bollard_stubs::models as m;
use serde::Deserialize;
use skep_model::{defaults, proto};

use crate::{ClusterError, ErrorKind};

/// The body of `POST /swarm/init`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InitRequest {
    pub listen_addr: Option<String>,
    pub advertise_addr: Option<String>,
    pub data_path_addr: Option<String>,
    pub data_path_port: Option<u32>,
    pub force_new_cluster: bool,
    pub spec: Option<m::SwarmSpec>,
    pub auto_lock_managers: bool,
    /// `active`, `pause` or `drain`; empty is active.
    pub availability: Option<String>,
    pub default_addr_pool: Option<Vec<String>>,
    pub subnet_size: Option<u32>,
}

/// The body of `POST /swarm/join`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinRequest {
    pub listen_addr: Option<String>,
    pub advertise_addr: Option<String>,
    pub data_path_addr: Option<String>,
    pub remote_addrs: Option<Vec<String>>,
    pub join_token: Option<String>,
    pub availability: Option<String>,
}

/// What `POST /swarm/update` is to make anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpdateFlags {
    pub rotate_worker_token: bool,
    pub rotate_manager_token: bool,
    pub rotate_manager_unlock_key: bool,
}

const LARGEST_SUBNET_SIZE: u32 = 29;

pub(crate) fn availability(
    given: Option<&str>,
) -> Result<proto::node_spec::Availability, ClusterError> {
    use proto::node_spec::Availability;
    match given.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => {
            let given = given.unwrap_or_default();
            Err(ClusterError::new(
                ErrorKind::System,
                format!("invalid Availability: {given:?}"),
            ))
        }
    }
}

/// The pools as they are stored and the size of the networks cut from them; nothing if the user does
/// not choose any.
pub(crate) fn address_pools(
    pools: Option<Vec<String>>,
    size: Option<u32>,
) -> Result<(Vec<String>, u32), ClusterError> {
    let pools = pools.unwrap_or_default();
    if pools.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let size = size
        .filter(|size| *size != 0)
        .unwrap_or(defaults::SUBNET_SIZE);
    if size > LARGEST_SUBNET_SIZE {
        return Err(ClusterError::new(
            ErrorKind::System,
            format!("subnet size is out of range: {size}"),
        ));
    }
    for pool in &pools {
        let prefix = prefix_length(pool)
            .ok_or_else(|| ClusterError::invalid(format!("invalid CIDR address: {pool}")))?;
        if size < prefix {
            return Err(ClusterError::new(
                ErrorKind::System,
                format!("invalid CIDR: {pool:?}. Subnet size is too small for pool: {size}"),
            ));
        }
    }
    Ok((pools, size))
}

fn prefix_length(cidr: &str) -> Option<u32> {
    let (address, length) = cidr.split_once('/')?;
    let widest = match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    length.parse().ok().filter(|length| *length <= widest)
}

pub(crate) fn data_path_port(given: Option<u32>) -> Result<u32, ClusterError> {
    match given.unwrap_or_default() {
        0 => Ok(defaults::DATA_PATH_PORT),
        port @ 1024..=49151 => Ok(port),
        port => Err(ClusterError::new(
            ErrorKind::System,
            format!("Datapath port number is not in valid range (1024-49151) : {port}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(pools: &[&str], size: u32) -> Result<(Vec<String>, u32), String> {
        let pools = pools.iter().map(|pool| (*pool).to_owned()).collect();
        address_pools(Some(pools), Some(size)).map_err(|error| error.message)
    }

    #[test]
    fn a_pool_must_be_larger_than_the_networks_cut_from_it() {
        assert_eq!(
            pools(&["10.0.0.0/8"], 0),
            Ok((vec!["10.0.0.0/8".into()], 24))
        );
        assert_eq!(
            pools(&["10.0.0.0/25"], 24).unwrap_err(),
            "invalid CIDR: \"10.0.0.0/25\". Subnet size is too small for pool: 24"
        );
        assert_eq!(
            pools(&["10.0.0.0/8"], 30).unwrap_err(),
            "subnet size is out of range: 30"
        );
        assert!(pools(&["10.0.0.0"], 24).is_err());
        assert_eq!(address_pools(None, Some(30)), Ok((vec![], 0)));
    }

    #[test]
    fn the_data_path_port_is_a_registered_one() {
        assert_eq!(data_path_port(None), Ok(4789));
        assert_eq!(data_path_port(Some(9999)), Ok(9999));
        assert_eq!(
            data_path_port(Some(80)).unwrap_err().message,
            "Datapath port number is not in valid range (1024-49151) : 80"
        );
    }

    #[test]
    fn the_body_the_docker_cli_sends_is_read() {
        let body = r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"","DataPathAddr":"","DataPathPort":0,
            "ForceNewCluster":false,"Spec":{"Labels":null,"Orchestration":{},"Raft":{"ElectionTick":0,"HeartbeatTick":0},
            "Dispatcher":{},"CAConfig":{},"TaskDefaults":{},"EncryptionConfig":{"AutoLockManagers":false}},
            "AutoLockManagers":false,"Availability":"active","DefaultAddrPool":null,"SubnetSize":0}"#;
        let request: InitRequest = serde_json::from_str(body).unwrap();
        assert_eq!(request.listen_addr.as_deref(), Some("0.0.0.0:2377"));
        assert!(request.spec.is_some());
    }
}
