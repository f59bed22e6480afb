use proptest::prelude::*;
use serde_json::{Value, json};
use skep_proto as p;

use super::*;
use crate::gojson;

fn read(json: Value) -> t::ServiceSpec {
    gojson::from_value(json).unwrap()
}

/// Everything a service can say, in the form in which Docker gives it back.
fn full_spec() -> Value {
    json!({
        "Name": "web", "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx:1", "Labels": {"c": "d"}, "Command": ["nginx"], "Args": ["-g", "daemon off;"],
                "Hostname": "h", "Env": ["A=1"], "Dir": "/srv", "User": "1:2", "Groups": ["3"],
                "Privileges": {
                    "CredentialSpec": {"Config": "", "File": "f.json", "Registry": ""},
                    "SELinuxContext": {"Disable": true, "User": "u", "Role": "r", "Type": "t", "Level": "l"},
                    "Seccomp": {"Mode": "custom", "Profile": "e30="},
                    "AppArmor": {"Mode": "disabled"}, "NoNewPrivileges": true
                },
                "Init": true, "StopSignal": "SIGINT", "TTY": true, "OpenStdin": true, "ReadOnly": true,
                "Mounts": [
                    {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true,
                     "BindOptions": {"Propagation": "rslave", "NonRecursive": true}},
                    {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"NoCopy": true,
                     "Labels": {"x": "y"}, "Subpath": "s", "DriverConfig": {"Name": "local", "Options": {"o": "p"}}}},
                    {"Type": "tmpfs", "Target": "/t",
                     "TmpfsOptions": {"SizeBytes": 5, "Mode": 448, "Options": [["noexec"]]}}
                ],
                "StopGracePeriod": 10_000_000_000_u64,
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_500_000_000, "Timeout": 2, "StartPeriod": 3,
                                "StartInterval": 4, "Retries": 5},
                "Hosts": ["1.2.3.4 x"], "DNSConfig": {"Nameservers": ["1.1.1.1"], "Search": ["s"], "Options": ["o"]},
                "Secrets": [{"File": {"Name": "n", "UID": "0", "GID": "0", "Mode": 292},
                             "SecretID": "i", "SecretName": "s"}],
                "Configs": [{"File": {"Name": "n", "UID": "0", "GID": "0", "Mode": 292},
                             "ConfigID": "i", "ConfigName": "c"},
                            {"Runtime": {}, "ConfigID": "j", "ConfigName": "k"}],
                "Isolation": "default", "Sysctls": {"net.x": "1"}, "CapabilityAdd": ["CAP_NET_ADMIN"],
                "CapabilityDrop": ["CAP_KILL"], "Ulimits": [{"Name": "nofile", "Hard": 2, "Soft": 1}],
                "OomScoreAdj": -5
            },
            "Resources": {
                "Limits": {"NanoCPUs": 1, "MemoryBytes": 2, "Pids": 3},
                "Reservations": {"NanoCPUs": 4, "MemoryBytes": 5, "GenericResources": [
                    {"NamedResourceSpec": {"Kind": "gpu", "Value": "u1"}},
                    {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}}]},
                "SwapBytes": 6, "MemorySwappiness": 7
            },
            "RestartPolicy": {"Condition": "on-failure", "Delay": 5, "MaxAttempts": 3, "Window": 6},
            "Placement": {"Constraints": ["node.role==worker"], "Preferences": [{"Spread": {"SpreadDescriptor": "z"}}],
                          "MaxReplicas": 2, "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "Networks": [{"Target": "n", "Aliases": ["x"], "DriverOpts": {"o": "p"}}],
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
            "ForceUpdate": 4, "Runtime": "container"
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "UpdateConfig": {"Parallelism": 1, "Delay": 2, "FailureAction": "rollback", "Monitor": 3,
                         "MaxFailureRatio": 0.5, "Order": "start-first"},
        "RollbackConfig": {"Parallelism": 0, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "stop-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [
            {"Name": "http", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 53, "PublishMode": "host"}]}
    })
}

#[test]
fn a_service_with_everything_comes_back_as_it_went_in() {
    let wire = service_spec_to(&read(full_spec())).unwrap();
    let back = serde_json::to_value(service_spec(&wire).unwrap()).unwrap();
    assert_eq!(back, full_spec());
    // And what came back means the same on the wire.
    assert_eq!(service_spec_to(&read(back)).unwrap(), wire);
}

#[test]
fn what_is_left_out_gets_dockers_defaults() {
    let wire = service_spec_to(&read(
        json!({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "b"}}}),
    ))
    .unwrap();
    let back = serde_json::to_value(service_spec(&wire).unwrap()).unwrap();
    assert_eq!(
        back,
        json!({
            "Name": "a", "Labels": {},
            "TaskTemplate": {"ContainerSpec": {"Image": "b", "Isolation": "default"}, "ForceUpdate": 0,
                             "Runtime": "container"},
            "Mode": {"Replicated": {"Replicas": 1}}
        })
    );
}

#[test]
fn each_mode_survives_and_two_are_refused() {
    for mode in [
        json!({"Global": {}}),
        json!({"GlobalJob": {}}),
        json!({"Replicated": {"Replicas": 0}}),
        json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}),
    ] {
        let spec = read(json!({"Mode": mode, "TaskTemplate": {"ContainerSpec": {}}}));
        let back = service_spec(&service_spec_to(&spec).unwrap()).unwrap();
        assert_eq!(serde_json::to_value(back.mode).unwrap(), mode);
    }
    let both = read(
        json!({"Mode": {"Global": {}, "Replicated": {}}, "TaskTemplate": {"ContainerSpec": {}}}),
    );
    assert_eq!(
        service_spec_to(&both).unwrap_err(),
        "must specify only one service mode"
    );
}

#[test]
fn unknown_words_are_refused_in_mobys_words() {
    let fails = |patch: Value, text: &str| {
        let mut spec = json!({"TaskTemplate": {"ContainerSpec": {}}});
        merge(&mut spec, patch);
        assert_eq!(service_spec_to(&read(spec)).unwrap_err(), text);
    };
    fails(
        json!({"EndpointSpec": {"Mode": "x"}}),
        "invalid resolution mode: \"x\"",
    );
    fails(
        json!({"UpdateConfig": {"FailureAction": "x"}}),
        "unrecognized update failure action x",
    );
    fails(
        json!({"UpdateConfig": {"Order": "x"}}),
        "unrecognized update order x",
    );
    fails(
        json!({"TaskTemplate": {"RestartPolicy": {"Condition": "x"}}}),
        "invalid RestartCondition: \"x\"",
    );
    fails(
        json!({"TaskTemplate": {"Runtime": "x"}}),
        "unsupported runtime",
    );
    fails(
        json!({"TaskTemplate": {"ContainerSpec": null}}),
        "mismatched Runtime and *Spec fields",
    );
    fails(
        json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [{"Type": "x"}]}}}),
        "invalid MountType: \"x\"",
    );
    fails(
        json!({"TaskTemplate": {"ContainerSpec": {"Configs": [{"ConfigID": "c"}]}}}),
        "invalid Config: either File or Runtime should be set",
    );
    fails(
        json!({"TaskTemplate": {"ContainerSpec": {"Privileges": {"CredentialSpec": {"File": "a", "Config": "b"}}}}}),
        "invalid CredentialSpec: cannot specify both \"config\" and \"file\" credential specs",
    );
    fails(
        json!({"TaskTemplate": {"Resources": {"SwapBytes": 1}}}),
        "memory swap provided, but no memory-limit was set",
    );
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}

#[test]
fn a_task_is_shown_as_docker_shows_one() {
    let task = p::Task {
        id: "t1".to_owned(),
        meta: Some(p::Meta {
            version: Some(p::Version { index: 7 }),
            ..p::Meta::default()
        }),
        service_id: "s1".to_owned(),
        slot: 2,
        node_id: "n1".to_owned(),
        spec: Some(p::TaskSpec {
            runtime: Some(p::task_spec::Runtime::Container(p::ContainerSpec {
                image: "a".to_owned(),
                ..p::ContainerSpec::default()
            })),
            ..p::TaskSpec::default()
        }),
        status: Some(p::TaskStatus {
            timestamp: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 120_000_000,
            }),
            state: p::TaskState::Failed.into(),
            message: "started".to_owned(),
            err: "task: non-zero exit (137)".to_owned(),
            runtime_status: Some(p::task_status::RuntimeStatus::Container(
                p::ContainerStatus {
                    container_id: "c1".to_owned(),
                    pid: 0,
                    exit_code: 137,
                },
            )),
            ..p::TaskStatus::default()
        }),
        desired_state: p::TaskState::Shutdown.into(),
        ..p::Task::default()
    };
    assert_eq!(
        serde_json::to_value(super::task(&task)).unwrap(),
        json!({
            "ID": "t1", "Version": {"Index": 7}, "CreatedAt": "1970-01-01T00:00:00Z", "UpdatedAt": "1970-01-01T00:00:00Z",
            "Labels": {}, "Spec": {"ContainerSpec": {"Image": "a", "Isolation": "default"}, "ForceUpdate": 0},
            "ServiceID": "s1", "Slot": 2, "NodeID": "n1",
            "Status": {"Timestamp": "2023-11-14T22:13:20.12Z", "State": "failed", "Message": "started",
                       "Err": "task: non-zero exit (137)",
                       "ContainerStatus": {"ContainerID": "c1", "PID": 0, "ExitCode": 137}, "PortStatus": {}},
            "DesiredState": "shutdown", "Volumes": null
        })
    );
}

#[test]
fn a_node_is_shown_as_docker_shows_one() {
    let node = p::Node {
        id: "n1".to_owned(),
        spec: Some(p::NodeSpec {
            desired_role: p::NodeRole::Manager.into(),
            ..p::NodeSpec::default()
        }),
        status: Some(p::NodeStatus {
            state: p::node_status::State::Ready.into(),
            addr: "10.0.0.1".to_owned(),
            ..p::NodeStatus::default()
        }),
        manager_status: Some(p::ManagerStatus {
            leader: true,
            reachability: p::raft_member_status::Reachability::Reachable.into(),
            addr: "10.0.0.1:2377".to_owned(),
            ..p::ManagerStatus::default()
        }),
        ..p::Node::default()
    };
    let shown = serde_json::to_value(super::node(&node)).unwrap();
    assert_eq!(
        shown["Spec"],
        json!({"Labels": {}, "Role": "manager", "Availability": "active"})
    );
    assert_eq!(
        shown["Status"],
        json!({"State": "ready", "Addr": "10.0.0.1"})
    );
    assert_eq!(
        shown["ManagerStatus"],
        json!({"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"})
    );
    assert_eq!(shown["Description"]["Platform"], json!({}));
}

#[test]
fn a_node_needs_a_role_and_an_availability() {
    let spec = |role: &str, availability: &str| t::NodeSpec {
        role: role.to_owned(),
        availability: availability.to_owned(),
        ..t::NodeSpec::default()
    };
    assert!(node_spec_to(&spec("worker", "drain")).is_ok());
    assert_eq!(
        node_spec_to(&spec("", "drain")).unwrap_err(),
        "invalid Role: \"\""
    );
    assert_eq!(
        node_spec_to(&spec("worker", "off")).unwrap_err(),
        "invalid Availability: \"off\""
    );
}

#[test]
fn secrets_are_base64_and_strict() {
    let spec: t::SecretSpec = gojson::from_value(json!({"Name": "s", "Data": "aGVsbG8="})).unwrap();
    assert_eq!(secret_spec_to(&spec).data, b"hello");
    let bad = gojson::from_value::<t::SecretSpec>(json!({"Data": "a b"})).unwrap_err();
    assert_eq!(bad.to_string(), "Data: illegal base64 data at input byte 1");
}

proptest! {
    #[test]
    fn any_plain_service_survives_the_wire(
        name in "[a-z]{1,8}",
        replicas in any::<u64>(),
        args in prop::collection::vec(".{0,6}", 0..4),
        labels in prop::collection::btree_map("[a-z]{1,4}", ".{0,4}", 0..4),
        delay in 0_i64..i64::MAX / 2,
        ports in prop::collection::vec((1_u32..65536, 0_u32..65536, 0_usize..3, any::<bool>()), 0..4),
        memory in 0_i64..1 << 50,
    ) {
        let spec = t::ServiceSpec {
            name,
            labels: labels.clone(),
            task_template: t::TaskSpec {
                container_spec: Some(t::ContainerSpec {
                    args, labels, isolation: "default".to_owned(), ..t::ContainerSpec::default()
                }),
                resources: Some(t::ResourceRequirements {
                    limits: Some(t::Limit { memory_bytes: memory, ..t::Limit::default() }),
                    ..t::ResourceRequirements::default()
                }),
                restart_policy: Some(t::RestartPolicy {
                    condition: "any".to_owned(), delay: Some(delay), max_attempts: Some(0), window: None,
                }),
                runtime: "container".to_owned(),
                ..t::TaskSpec::default()
            },
            mode: t::ServiceMode {
                replicated: Some(t::ReplicatedService { replicas: Some(replicas) }),
                ..t::ServiceMode::default()
            },
            endpoint_spec: Some(t::EndpointSpec {
                mode: "dnsrr".to_owned(),
                ports: ports.iter().map(|(target, published, protocol, host)| t::PortConfig {
                    name: String::new(),
                    protocol: ["tcp", "udp", "sctp"][*protocol].to_owned(),
                    target_port: *target,
                    published_port: *published,
                    publish_mode: if *host { "host" } else { "ingress" }.to_owned(),
                }).collect(),
            }),
            ..t::ServiceSpec::default()
        };
        let wire = service_spec_to(&spec).unwrap();
        prop_assert_eq!(&service_spec(&wire).unwrap(), &spec);
        let json = serde_json::to_vec(&spec).unwrap();
        prop_assert_eq!(gojson::from_slice::<t::ServiceSpec>(&json).unwrap(), spec);
    }
}
