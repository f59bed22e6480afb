//! What the wire demands and a change of a `.proto` file could break without anything else noticing.

use skep_proto::{
    Annotations, Cluster, Message as _, NodeDescription, ResourceRequirements, Snapshot, TaskSpec,
    raftpb, task_spec,
};
use tonic::server::NamedService;

#[test]
fn fields_have_swarmkits_numbers_whatever_we_call_them() {
    let cluster = Cluster {
        default_address_pool: vec!["p".into()],
        subnet_size: 24,
        vxlan_udp_port: 5,
        ..Default::default()
    };
    assert_eq!(
        cluster.encode_to_vec(),
        [11 << 3 | 2, 1, b'p', 12 << 3, 24, 13 << 3, 5]
    );
    let runtime = task_spec::Runtime::Container(skep_proto::ContainerSpec {
        hostname: "h".into(),
        ..Default::default()
    });
    let spec = TaskSpec {
        runtime: Some(runtime),
        ..Default::default()
    };
    assert_eq!(spec.encode_to_vec(), [1 << 3 | 2, 3, 14 << 3 | 2, 1, b'h']);
    let description = NodeDescription {
        fips: true,
        ..Default::default()
    };
    assert_eq!(description.encode_to_vec(), [6 << 3, 1]);
}

#[test]
fn a_wrapper_tells_zero_from_nothing() {
    let unset = ResourceRequirements::default();
    let zero = ResourceRequirements {
        swap_bytes: Some(0),
        ..Default::default()
    };
    assert_eq!(unset.encode_to_vec(), []);
    assert_eq!(zero.encode_to_vec(), [3 << 3 | 2, 0]);
    assert_eq!(ResourceRequirements::decode(&[3 << 3 | 2, 0][..]), Ok(zero));
}

#[test]
fn equal_maps_have_equal_encodings() {
    let annotations = |keys: [&str; 3]| Annotations {
        labels: keys.map(|key| (key.to_owned(), key.to_owned())).into(),
        ..Default::default()
    };
    assert_eq!(
        annotations(["b", "a", "c"]).encode_to_vec(),
        annotations(["c", "b", "a"]).encode_to_vec()
    );
}

/// etcd's structs are proto2: repeated numbers are not packed, and decoders must take both.
#[test]
fn raft_states_are_encoded_as_etcd_does() {
    let state = raftpb::ConfState {
        voters: vec![7, 9],
        ..Default::default()
    };
    assert_eq!(state.encode_to_vec(), [1 << 3, 7, 1 << 3, 9]);
    assert_eq!(
        raftpb::ConfState::decode(&[1 << 3 | 2, 2, 7, 9][..]),
        Ok(state)
    );
    let change = raftpb::ConfChange {
        id: 1,
        r#type: raftpb::ConfChangeType::ConfChangeUpdateNode.into(),
        node_id: 3,
        context: vec![4],
    };
    assert_eq!(
        change.encode_to_vec(),
        [1 << 3, 1, 2 << 3, 2, 3 << 3, 3, 4 << 3 | 2, 1, 4]
    );
}

#[test]
fn the_cluster_snapshot_is_two_parts_and_a_version() {
    let snapshot = Snapshot {
        membership: Some(skep_proto::ClusterSnapshot {
            removed: vec![1, 2],
            ..Default::default()
        }),
        store: Some(skep_proto::StoreSnapshot::default()),
        ..Default::default()
    };
    assert_eq!(
        snapshot.encode_to_vec(),
        [2 << 3 | 2, 4, 2 << 3, 1, 2 << 3, 2, 3 << 3 | 2, 0]
    );
}

#[test]
fn services_are_found_under_swarmkits_names() {
    fn name<S: NamedService>() -> &'static str {
        S::NAME
    }
    type Dispatcher = skep_proto::dispatcher_server::DispatcherServer<()>;
    type Raft = skep_proto::raft_server::RaftServer<()>;
    type NodeCa = skep_proto::node_ca_server::NodeCaServer<()>;
    assert_eq!(name::<Dispatcher>(), "docker.swarmkit.v1.Dispatcher");
    assert_eq!(name::<Raft>(), "docker.swarmkit.v1.Raft");
    assert_eq!(name::<NodeCa>(), "docker.swarmkit.v1.NodeCA");
}
