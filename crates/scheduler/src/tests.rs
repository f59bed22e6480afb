//! The scheduler's rules as scenarios, its promises as properties.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use skep_model::{NodeId, Task, TaskState, Timestamp, Version};
use skep_proto as proto;

use crate::{Decision, NodeSet};

const GIB: i64 = 1 << 30;
const CPU: i64 = 1_000_000_000;

fn now() -> Timestamp {
    Timestamp::from_secs(1_700_000_000)
}

/// A ready node with 4 CPUs and 8 GiB.
fn node(id: &str) -> proto::Node {
    proto::Node {
        id: id.into(),
        spec: Some(proto::NodeSpec {
            annotations: Some(proto::Annotations::default()),
            ..Default::default()
        }),
        status: Some(proto::NodeStatus {
            state: proto::node_status::State::Ready.into(),
            ..Default::default()
        }),
        description: Some(proto::NodeDescription {
            hostname: id.into(),
            platform: Some(proto::Platform {
                os: "linux".into(),
                architecture: "x86_64".into(),
            }),
            resources: Some(proto::Resources {
                nano_cpus: 4 * CPU,
                memory_bytes: 8 * GIB,
                generic: Vec::new(),
            }),
            engine: Some(proto::EngineDescription {
                plugins: vec![plugin("Log", "json-file")],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn plugin(kind: &str, name: &str) -> proto::PluginDescription {
    proto::PluginDescription {
        r#type: kind.into(),
        name: name.into(),
    }
}

fn labelled(id: &str, labels: &[(&str, &str)]) -> proto::Node {
    let mut node = node(id);
    let labels = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    node.spec
        .as_mut()
        .unwrap()
        .annotations
        .as_mut()
        .unwrap()
        .labels = labels;
    node
}

fn nodes(nodes: impl IntoIterator<Item = proto::Node>) -> NodeSet {
    let mut set = NodeSet::new();
    for node in nodes {
        set.upsert_node(Arc::new(node));
    }
    set
}

fn pending(service: &str, id: &str, spec: &proto::TaskSpec) -> Task {
    Task {
        id: id.into(),
        service_id: Some(service.into()),
        spec_version: Some(Version(1)),
        spec: Arc::new(spec.clone()),
        desired_state: TaskState::Running,
        status: skep_model::TaskStatus {
            state: TaskState::Pending,
            ..Default::default()
        },
        ..Default::default()
    }
}

fn group(service: &str, count: usize, spec: &proto::TaskSpec) -> Vec<Task> {
    (0..count)
        .map(|n| pending(service, &format!("{service}-{n}"), spec))
        .collect()
}

fn schedule(set: &mut NodeSet, tasks: &[Task]) -> Vec<Decision> {
    let tasks: Vec<&Task> = tasks.iter().collect();
    set.schedule([tasks.as_slice()], now())
}

/// How many tasks each node got.
fn counts(decisions: &[Decision]) -> BTreeMap<NodeId, usize> {
    let mut counts = BTreeMap::new();
    for decision in decisions {
        if let Decision::Assign { node, .. } = decision {
            *counts.entry(node.clone()).or_default() += 1;
        }
    }
    counts
}

fn node_of(decision: &Decision) -> &str {
    match decision {
        Decision::Assign { node, .. } => node.as_str(),
        Decision::Wait { reason, .. } => panic!("waits: {reason}"),
    }
}

fn reason(decision: &Decision) -> &str {
    match decision {
        Decision::Wait { reason, .. } => reason,
        Decision::Assign { node, .. } => panic!("assigned to {node}"),
    }
}

fn reserving(cpus: i64, memory: i64) -> proto::TaskSpec {
    proto::TaskSpec {
        resources: Some(proto::ResourceRequirements {
            reservations: Some(proto::Resources {
                nano_cpus: cpus,
                memory_bytes: memory,
                generic: Vec::new(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn placed(placement: proto::Placement) -> proto::TaskSpec {
    proto::TaskSpec {
        placement: Some(placement),
        ..Default::default()
    }
}

fn constrained(expression: &str) -> proto::TaskSpec {
    placed(proto::Placement {
        constraints: vec![expression.into()],
        ..Default::default()
    })
}

fn spread_over(descriptors: &[&str]) -> proto::TaskSpec {
    let preference = |d: &&str| proto::PlacementPreference {
        preference: Some(proto::placement_preference::Preference::Spread(
            proto::SpreadOver {
                spread_descriptor: (*d).to_owned(),
            },
        )),
    };
    placed(proto::Placement {
        preferences: descriptors.iter().map(preference).collect(),
        ..Default::default()
    })
}

/// The task as the store has it once it runs on a node.
fn running(mut task: Task, node: &str) -> Task {
    task.node_id = Some(node.into());
    task.status.state = TaskState::Running;
    task
}

#[test]
fn replicas_are_spread_evenly() {
    let mut set = nodes(["a", "b", "c"].map(node));
    let counts = counts(&schedule(
        &mut set,
        &group("web", 7, &proto::TaskSpec::default()),
    ));
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 2, 3]);
}

#[test]
fn nodes_without_the_service_come_before_less_loaded_ones() {
    let mut set = nodes(["a", "b"].map(node));
    // b is busier, but with another service.
    for task in group("other", 3, &proto::TaskSpec::default()) {
        set.upsert_task(&running(task, "b"), now());
    }
    set.upsert_task(
        &running(pending("web", "w0", &proto::TaskSpec::default()), "a"),
        now(),
    );
    let decisions = schedule(
        &mut set,
        &[pending("web", "w1", &proto::TaskSpec::default())],
    );
    assert_eq!(node_of(&decisions[0]), "b");
}

#[test]
fn among_equals_the_node_with_fewest_tasks_wins() {
    let mut set = nodes(["a", "b"].map(node));
    set.upsert_task(
        &running(pending("other", "o", &proto::TaskSpec::default()), "a"),
        now(),
    );
    let decisions = schedule(
        &mut set,
        &[pending("web", "w", &proto::TaskSpec::default())],
    );
    assert_eq!(node_of(&decisions[0]), "b");
}

#[test]
fn a_task_being_stopped_holds_its_resources_but_is_no_sibling() {
    let mut set = nodes([node("a")]);
    let mut stopping = running(pending("web", "old", &reserving(3 * CPU, 0)), "a");
    stopping.desired_state = TaskState::Shutdown;
    set.upsert_task(&stopping, now());
    let spec = proto::TaskSpec {
        placement: Some(proto::Placement {
            max_replicas: 1,
            ..Default::default()
        }),
        ..reserving(CPU, 0)
    };
    let decisions = schedule(&mut set, &group("web", 2, &spec));
    assert_eq!(node_of(&decisions[0]), "a");
    assert_eq!(
        reason(&decisions[1]),
        "no suitable node (insufficient resources on 1 node)"
    );
}

#[test]
fn an_ended_task_gives_its_resources_back() {
    let mut set = nodes([node("a")]);
    let mut task = running(pending("web", "w", &reserving(4 * CPU, 0)), "a");
    assert!(!set.upsert_task(&task, now()));
    task.status.state = TaskState::Complete;
    assert!(set.upsert_task(&task, now()), "something became free");
    assert!(!set.upsert_task(&task, now()));
    let decisions = schedule(&mut set, &group("web2", 1, &reserving(4 * CPU, 0)));
    assert_eq!(node_of(&decisions[0]), "a");
}

#[test]
fn nothing_is_reserved_beyond_what_a_node_has() {
    let mut set = nodes(["a", "b"].map(node));
    let decisions = schedule(&mut set, &group("db", 6, &reserving(0, 3 * GIB)));
    assert_eq!(
        counts(&decisions),
        [("a".into(), 2), ("b".into(), 2)].into()
    );
    assert_eq!(
        reason(&decisions[4]),
        "no suitable node (insufficient resources on 2 nodes)"
    );
}

#[test]
fn a_node_that_grows_takes_what_waited() {
    let mut set = nodes([node("a")]);
    let tasks = group("db", 1, &reserving(0, 16 * GIB));
    reason(&schedule(&mut set, &tasks)[0]);
    let mut grown = node("a");
    grown
        .description
        .as_mut()
        .unwrap()
        .resources
        .as_mut()
        .unwrap()
        .memory_bytes = 32 * GIB;
    set.upsert_node(Arc::new(grown));
    assert_eq!(node_of(&schedule(&mut set, &tasks)[0]), "a");
}

#[test]
fn reasons_are_counted_and_the_most_frequent_comes_first() {
    let mut down = node("down");
    down.status.as_mut().unwrap().state = proto::node_status::State::Down.into();
    let mut drained = node("drained");
    drained.spec.as_mut().unwrap().availability = proto::node_spec::Availability::Drain.into();
    let mut small = labelled("small", &[("disk", "ssd")]);
    small.description.as_mut().unwrap().resources = None;
    let mut set = nodes([down, drained, small, node("x"), node("y"), node("z")]);
    let spec = proto::TaskSpec {
        placement: constrained("node.labels.disk==ssd").placement,
        ..reserving(CPU, 0)
    };
    assert_eq!(
        reason(&schedule(&mut set, &group("db", 1, &spec))[0]),
        "no suitable node (scheduling constraints not satisfied on 3 nodes; \
         2 nodes not available for new tasks; insufficient resources on 1 node)"
    );
}

#[test]
fn each_filter_has_swarmkits_sentence() {
    let explain = |node: proto::Node, spec: proto::TaskSpec| {
        let decisions = schedule(&mut nodes([node]), &group("s", 1, &spec));
        reason(&decisions[0]).to_owned()
    };
    let mut paused = node("a");
    paused.spec.as_mut().unwrap().availability = proto::node_spec::Availability::Pause.into();
    assert_eq!(
        explain(paused, proto::TaskSpec::default()),
        "no suitable node (1 node not available for new tasks)"
    );
    let log = proto::Driver {
        name: "fluentd".into(),
        ..Default::default()
    };
    assert_eq!(
        explain(
            node("a"),
            proto::TaskSpec {
                log_driver: Some(log),
                ..Default::default()
            }
        ),
        "no suitable node (missing plugin on 1 node)"
    );
    let platform = proto::Platform {
        os: "windows".into(),
        architecture: "amd64".into(),
    };
    assert_eq!(
        explain(
            node("a"),
            placed(proto::Placement {
                platforms: vec![platform],
                ..Default::default()
            })
        ),
        "no suitable node (unsupported platform on 1 node)"
    );
}

#[test]
fn without_nodes_there_is_no_reason_to_give() {
    let decisions = schedule(
        &mut NodeSet::new(),
        &group("s", 1, &proto::TaskSpec::default()),
    );
    assert_eq!(reason(&decisions[0]), "no suitable node");
}

#[test]
fn amd64_and_x86_64_are_one_platform() {
    let platform = proto::Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
    };
    let spec = placed(proto::Placement {
        platforms: vec![platform],
        ..Default::default()
    });
    assert_eq!(
        node_of(&schedule(&mut nodes([node("a")]), &group("s", 1, &spec))[0]),
        "a"
    );
}

#[test]
fn a_volume_driver_must_be_there_with_or_without_its_tag() {
    let volume = |driver: &str| proto::TaskSpec {
        runtime: Some(proto::task_spec::Runtime::Container(proto::ContainerSpec {
            mounts: vec![proto::Mount {
                r#type: proto::mount::Type::Volume.into(),
                volume_options: Some(proto::mount::VolumeOptions {
                    driver_config: Some(proto::Driver {
                        name: driver.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        })),
        ..Default::default()
    };
    let mut with = node("with");
    let engine = with.description.as_mut().unwrap().engine.as_mut().unwrap();
    engine.plugins.push(plugin("Volume", "rexray:latest"));
    let mut set = nodes([node("a"), with]);
    assert_eq!(
        node_of(&schedule(&mut set, &group("s", 1, &volume("rexray")))[0]),
        "with"
    );
    assert_eq!(
        reason(&schedule(&mut set, &group("t", 1, &volume("ceph")))[0]),
        "no suitable node (missing plugin on 2 nodes)"
    );
    assert_eq!(
        node_of(&schedule(&mut set, &group("u", 1, &volume("local")))[0]),
        "a"
    );
}

#[test]
fn a_host_port_is_given_once_a_node() {
    let endpoint = proto::Endpoint {
        ports: vec![proto::PortConfig {
            published_port: 8080,
            publish_mode: proto::port_config::PublishMode::Host.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut tasks = group("web", 3, &proto::TaskSpec::default());
    for task in &mut tasks {
        task.endpoint = Some(Arc::new(endpoint.clone()));
    }
    let mut set = nodes(["a", "b"].map(node));
    let decisions = schedule(&mut set, &tasks);
    assert_eq!(
        counts(&decisions),
        [("a".into(), 1), ("b".into(), 1)].into()
    );
    assert_eq!(
        reason(&decisions[2]),
        "no suitable node (host-mode port already in use on 2 nodes)"
    );
    // Whoever ends gives the port back.
    let mut ended = running(tasks[0].clone(), node_of(&decisions[0]));
    ended.status.state = TaskState::Failed;
    set.upsert_task(&ended, now());
    node_of(&schedule(&mut set, &tasks[2..])[0]);
}

#[test]
fn replicas_per_node_are_limited() {
    let spec = placed(proto::Placement {
        max_replicas: 1,
        ..Default::default()
    });
    let decisions = schedule(&mut nodes(["a", "b"].map(node)), &group("web", 3, &spec));
    assert_eq!(
        counts(&decisions),
        [("a".into(), 1), ("b".into(), 1)].into()
    );
    assert_eq!(
        reason(&decisions[2]),
        "no suitable node (max replicas per node limit exceed)"
    );
}

fn generic(resource: proto::generic_resource::Resource) -> proto::GenericResource {
    proto::GenericResource {
        resource: Some(resource),
    }
}

fn discrete(kind: &str, value: i64) -> proto::GenericResource {
    let spec = proto::DiscreteGenericResource {
        kind: kind.into(),
        value,
    };
    generic(proto::generic_resource::Resource::DiscreteResourceSpec(
        spec,
    ))
}

fn named(kind: &str, value: &str) -> proto::GenericResource {
    let spec = proto::NamedGenericResource {
        kind: kind.into(),
        value: value.into(),
    };
    generic(proto::generic_resource::Resource::NamedResourceSpec(spec))
}

#[test]
fn generic_resources_are_handed_out_once() {
    let mut host = node("a");
    host.description
        .as_mut()
        .unwrap()
        .resources
        .as_mut()
        .unwrap()
        .generic = vec![
        named("gpu", "one"),
        named("gpu", "two"),
        named("gpu", "three"),
        discrete("ssd", 5),
    ];
    let mut spec = reserving(0, 0);
    spec.resources
        .as_mut()
        .unwrap()
        .reservations
        .as_mut()
        .unwrap()
        .generic = vec![discrete("gpu", 2), discrete("ssd", 1)];
    let mut set = nodes([host]);
    let tasks = group("ml", 2, &spec);
    let decisions = schedule(&mut set, &tasks);
    let Decision::Assign { generic, .. } = &decisions[0] else {
        panic!("{decisions:?}")
    };
    assert_eq!(
        *generic,
        [
            named("gpu", "one"),
            named("gpu", "three"),
            discrete("ssd", 1)
        ]
    );
    assert_eq!(
        reason(&decisions[1]),
        "no suitable node (insufficient resources on 1 node)"
    );

    // As committed, then ended: both are free again.
    let mut task = running(tasks[0].clone(), "a");
    task.assigned_generic_resources.clone_from(generic);
    assert!(!set.upsert_task(&task, now()));
    task.status.state = TaskState::Complete;
    assert!(set.upsert_task(&task, now()));
    node_of(&schedule(&mut set, &tasks[1..])[0]);
}

#[test]
fn preferences_divide_by_label_before_nodes() {
    let mut set = nodes([
        labelled("a1", &[("zone", "a")]),
        labelled("a2", &[("zone", "a")]),
        labelled("a3", &[("zone", "a")]),
        labelled("b1", &[("zone", "b")]),
    ]);
    let decisions = schedule(
        &mut set,
        &group("web", 6, &spread_over(&["node.labels.zone"])),
    );
    assert_eq!(
        counts(&decisions),
        [
            ("a1".into(), 1),
            ("a2".into(), 1),
            ("a3".into(), 1),
            ("b1".into(), 3)
        ]
        .into()
    );
}

#[test]
fn preferences_nest_in_their_order() {
    let mut set = nodes([
        labelled("a-r1", &[("zone", "a"), ("rack", "1")]),
        labelled("a-r2", &[("zone", "a"), ("rack", "2")]),
        labelled("b-r1x", &[("zone", "b"), ("rack", "1")]),
        labelled("b-r1y", &[("zone", "b"), ("rack", "1")]),
        labelled("none", &[]),
    ]);
    let spec = spread_over(&["node.labels.zone", "node.labels.rack"]);
    let decisions = schedule(&mut set, &group("web", 12, &spec));
    let expected = [
        ("a-r1", 2),
        ("a-r2", 2),
        ("b-r1x", 2),
        ("b-r1y", 2),
        ("none", 4),
    ]
    .map(|(n, c)| (n.into(), c));
    assert_eq!(counts(&decisions), expected.into());
}

#[test]
fn a_full_branch_leaves_its_share_to_the_others() {
    let spec = proto::TaskSpec {
        placement: Some(proto::Placement {
            max_replicas: 2,
            ..spread_over(&["node.labels.zone"]).placement.unwrap()
        }),
        ..Default::default()
    };
    let mut set = nodes([
        labelled("a1", &[("zone", "a")]),
        labelled("b1", &[("zone", "b")]),
        labelled("b2", &[("zone", "b")]),
    ]);
    let decisions = schedule(&mut set, &group("web", 7, &spec));
    assert_eq!(
        counts(&decisions),
        [("a1".into(), 2), ("b1".into(), 2), ("b2".into(), 2)].into()
    );
    assert_eq!(
        reason(&decisions[6]),
        "no suitable node (max replicas per node limit exceed)"
    );
}

fn fail_often(set: &mut NodeSet, node: &str, times: u32) {
    for n in 0..times {
        let mut task = running(
            pending("web", &format!("f{n}"), &proto::TaskSpec::default()),
            node,
        );
        set.upsert_task(&task, now());
        task.status.state = TaskState::Failed;
        task.status.timestamp = Some(now());
        set.upsert_task(&task, now());
        set.upsert_task(&task, now());
    }
}

#[test]
fn a_node_where_the_service_failed_five_times_comes_last() {
    let mut set = nodes(["a", "b"].map(node));
    set.upsert_task(
        &running(pending("other", "o", &proto::TaskSpec::default()), "b"),
        now(),
    );
    fail_often(&mut set, "a", 4);
    let task = [pending("web", "w", &proto::TaskSpec::default())];
    assert_eq!(
        node_of(&schedule(&mut set.clone(), &task)[0]),
        "a",
        "four are forgiven"
    );
    fail_often(&mut set, "a", 5);
    assert_eq!(node_of(&schedule(&mut set.clone(), &task)[0]), "b");

    // Another version of the spec starts afresh, and so does the same one after five minutes.
    let mut newer = task[0].clone();
    newer.spec_version = Some(Version(2));
    assert_eq!(node_of(&schedule(&mut set.clone(), &[newer])[0]), "a");
    let later = now() + Duration::from_secs(301);
    assert_eq!(
        node_of(&set.schedule([[&task[0]].as_slice()], later)[0]),
        "a"
    );
}

#[test]
fn a_preassigned_task_is_confirmed_or_told_why_not() {
    let mut set = nodes([node("a")]);
    let mut task = pending("agent", "t", &reserving(5 * CPU, 0));
    task.node_id = Some("a".into());
    assert_eq!(
        reason(&set.confirm(&task, now()).unwrap()),
        "insufficient resources on 1 node"
    );
    task.spec = Arc::new(reserving(CPU, 0));
    assert_eq!(node_of(&set.confirm(&task, now()).unwrap()), "a");
    task.node_id = Some("unknown".into());
    assert_eq!(set.confirm(&task, now()), None);
}

#[test]
fn a_removed_node_takes_its_tasks_out_of_the_picture() {
    let mut set = nodes(["a", "b"].map(node));
    set.upsert_task(
        &running(pending("web", "w", &proto::TaskSpec::default()), "a"),
        now(),
    );
    set.remove_node(&"a".into());
    assert_eq!(set.len(), 1);
    set.upsert_node(Arc::new(node("c")));
    let decisions = schedule(&mut set, &group("web", 2, &proto::TaskSpec::default()));
    assert_eq!(
        counts(&decisions),
        [("b".into(), 1), ("c".into(), 1)].into()
    );
}

fn strategic(service: &str, count: usize, spec: &proto::TaskSpec, strategy: &str) -> Vec<Task> {
    let labels = [(skep_model::labels::STRATEGY.to_owned(), strategy.to_owned())];
    let annotations = Arc::new(proto::Annotations {
        name: service.to_owned(),
        labels: labels.into(),
        ..Default::default()
    });
    let mut tasks = group(service, count, spec);
    for task in &mut tasks {
        task.service_annotations = Arc::clone(&annotations);
    }
    tasks
}

#[test]
fn binpack_fills_a_node_before_it_takes_the_next() {
    let mut set = nodes(["a", "b", "c"].map(node));
    let decisions = schedule(
        &mut set,
        &strategic("s", 6, &reserving(CPU, GIB), "binpack"),
    );
    let mut counts: Vec<usize> = counts(&decisions).into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 4]);
    // The next service goes where there is still room on the fullest.
    let more = schedule(&mut set, &strategic("t", 2, &reserving(CPU, 0), "binpack"));
    assert_eq!(node_of(&more[0]), node_of(&decisions[5]));
    assert_eq!(node_of(&more[1]), node_of(&decisions[5]));
}

#[test]
fn the_swarms_strategy_holds_where_the_service_names_none() {
    let mut set = nodes(["a", "b", "c"].map(node));
    set.set_strategy(skep_model::labels::Strategy::Binpack);
    let decisions = schedule(&mut set, &group("s", 4, &reserving(CPU, 0)));
    assert_eq!(counts(&decisions).len(), 1);
    let decisions = schedule(&mut set, &strategic("t", 2, &reserving(0, 0), "spread"));
    assert_eq!(counts(&decisions).len(), 2);
}

#[test]
fn random_uses_all_nodes_and_exceeds_none() {
    let mut set = nodes(["a", "b", "c", "d"].map(node));
    let decisions = schedule(&mut set, &strategic("s", 200, &reserving(0, 0), "random"));
    let counts = counts(&decisions);
    assert_eq!(counts.len(), 4);
    assert!(
        counts.values().all(|count| (20..=80).contains(count)),
        "{counts:?}"
    );
    let decisions = schedule(&mut set, &strategic("t", 17, &reserving(CPU, 0), "random"));
    assert!(counts_of_waiting(&decisions) == 1, "{decisions:?}");
}

fn counts_of_waiting(decisions: &[Decision]) -> usize {
    let waits = |decision: &&Decision| matches!(decision, Decision::Wait { .. });
    decisions.iter().filter(waits).count()
}

proptest! {
    /// However tasks come and go, what is entered and left leaves no trace, no node gets more than it
    /// has, and an unconstrained service is spread within one.
    #[test]
    fn books_balance_and_spread_is_within_one(
        node_count in 1_usize..8,
        waves in proptest::collection::vec((1_usize..12, 0_i64..3, any::<u64>()), 1..6),
    ) {
        let mut set = nodes((0..node_count).map(|n| node(&format!("n{n}"))));
        let fresh = format!("{set:?}");
        let mut alive: Vec<Task> = Vec::new();
        for (wave, (count, cpus, stop)) in waves.into_iter().enumerate() {
            let service = format!("s{wave}");
            let tasks = group(&service, count, &reserving(cpus * CPU, 0));
            let decisions = schedule(&mut set, &tasks);
            prop_assert_eq!(decisions.len(), tasks.len());
            let counts = counts(&decisions);
            if cpus == 0 {
                let most = counts.values().max().copied().unwrap_or(0);
                let least = if counts.len() < node_count { 0 } else { *counts.values().min().unwrap() };
                prop_assert!(most - least <= 1, "{counts:?}");
            }
            for (task, decision) in tasks.iter().zip(&decisions) {
                if let Decision::Assign { node, .. } = decision {
                    let task = running(task.clone(), node.as_str());
                    set.upsert_task(&task, now());
                    alive.push(task);
                }
            }
            for n in 0..node_count {
                let id = format!("n{n}");
                let used: i64 = alive
                    .iter()
                    .filter(|t| t.node_id.as_ref().unwrap() == id.as_str())
                    .map(|t| crate::resources::Reserved::of(&t.spec).nano_cpus)
                    .sum();
                prop_assert!(used <= 4 * CPU);
            }
            let mut index = 0;
            alive.retain(|task| {
                index += 1;
                let keep = stop >> (index % 64) & 1 == 1;
                if !keep {
                    set.remove_task(&task.id);
                }
                keep
            });
        }
        for task in alive {
            set.remove_task(&task.id);
        }
        prop_assert_eq!(format!("{set:?}"), fresh);
    }
}
