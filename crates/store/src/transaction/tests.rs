#![expect(
    clippy::map_entry,
    reason = "the model's rules are to stand below each other, as they are checked"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use skep_model::proto::{Extension, Network, Node, Resource, Service};
use skep_model::{NetworkId, NodeId, ServiceId, Slot, StoreObject as _, Task, TaskId, TaskState};

use super::*;
use crate::fixtures::{annotations, node, service, task};

const NOW: Timestamp = Timestamp::from_secs(100);

fn transaction() -> Transaction {
    Transaction::new(&View::default(), 7, NOW)
}

#[test]
fn a_created_object_is_stamped_and_seen_by_the_transaction() {
    let mut tx = transaction();
    let stored = tx.create(service("s1", "web")).unwrap();
    assert_eq!(stored.meta().version, Version(7));
    assert_eq!(stored.meta().created_at, Some(NOW));
    assert_eq!(stored.meta().updated_at, Some(NOW));
    assert_eq!(tx.find_by_name::<Service>("WEB"), Some(&stored));
    assert_eq!(tx.service(&ServiceId::from("s1")), Some(&stored));
}

#[test]
fn names_are_unique_within_a_kind_whatever_their_case() {
    let mut tx = transaction();
    tx.create(service("s1", "web")).unwrap();
    assert_eq!(
        tx.create(service("s2", "Web")),
        Err(StoreError::NameConflict)
    );
    let network = Network {
        id: "n1".into(),
        spec: Some(proto::NetworkSpec {
            annotations: annotations("web"),
            ..Default::default()
        }),
        ..Default::default()
    };
    tx.create(network).unwrap();
}

#[test]
fn an_id_is_taken_once() {
    let mut tx = transaction();
    tx.create(service("s1", "web")).unwrap();
    assert_eq!(tx.create(service("s1", "other")), Err(StoreError::Exist));
    assert_eq!(tx.find_by_name::<Service>("other"), None);
}

#[test]
fn an_update_frees_the_old_name_and_refuses_another_objects_name() {
    let mut tx = transaction();
    let mut web = (*tx.create(service("s1", "web")).unwrap()).clone();
    tx.create(service("s2", "db")).unwrap();
    web.spec.as_mut().unwrap().annotations = annotations("db");
    assert_eq!(tx.update(web.clone()), Err(StoreError::NameConflict));
    web.spec.as_mut().unwrap().annotations = annotations("front");
    tx.update(web).unwrap();
    tx.create(service("s3", "web")).unwrap();
}

#[test]
fn an_update_from_an_older_version_is_out_of_sequence() {
    let mut tx = transaction();
    let old = tx.create(service("s1", "web")).unwrap();
    let (view, _) = tx.finish();
    let mut tx = Transaction::new(&view, 8, NOW);
    tx.update((*old).clone()).unwrap();
    let late = tx.update((*old).clone());
    assert_eq!(late, Err(StoreError::SequenceConflict));
    assert_eq!(late.unwrap_err().to_string(), "update out of sequence");
    assert_eq!(tx.update(service("s9", "x")), Err(StoreError::NotExist));
}

#[test]
fn an_update_keeps_the_birthday() {
    let mut tx = transaction();
    tx.create(service("s1", "web")).unwrap();
    let (view, _) = tx.finish();
    let mut tx = Transaction::new(&view, 8, Timestamp::from_secs(200));
    let updated = tx
        .modify::<Service>("s1", |service| service.pending_delete = true)
        .unwrap();
    assert_eq!(updated.meta().created_at, Some(NOW));
    assert_eq!(updated.meta().updated_at, Some(Timestamp::from_secs(200)));
}

#[test]
fn a_removal_is_written_with_the_id_alone() {
    let mut tx = transaction();
    tx.create(service("s1", "web")).unwrap();
    tx.delete::<Service>("s1").unwrap();
    assert_eq!(tx.delete::<Service>("s1"), Err(StoreError::NotExist));
    let (view, actions) = tx.finish();
    assert_eq!(view.count::<Service>(), 0);
    let gone = Service {
        id: "s1".into(),
        ..Default::default()
    };
    assert_eq!(actions[1].target, Some(Target::Service(gone)));
}

#[test]
fn a_resource_needs_its_extension_and_keeps_it_alive() {
    let resource = Resource {
        id: "r1".into(),
        annotations: annotations("thing"),
        kind: "widget".into(),
        ..Default::default()
    };
    let extension = Extension {
        id: "e1".into(),
        annotations: annotations("widget"),
        ..Default::default()
    };
    let mut tx = transaction();
    assert_eq!(
        tx.create(resource.clone()),
        Err(StoreError::UnregisteredKind("widget".to_owned()))
    );
    let stored = tx.create(extension).unwrap();
    tx.create(resource).unwrap();
    assert_eq!(
        tx.update((*stored).clone()),
        Err(StoreError::ExtensionImmutable)
    );
    assert_eq!(
        tx.delete::<Extension>("e1"),
        Err(StoreError::ExtensionInUse)
    );
    let builtin = Extension {
        id: "e2".into(),
        annotations: annotations("node"),
        ..Default::default()
    };
    assert_eq!(tx.create(builtin), Err(StoreError::NameConflict));
}

#[test]
fn a_task_moves_between_indexes_as_it_changes() {
    let (service_id, node_id) = (ServiceId::from("s1"), NodeId::from("n1"));
    let mut tx = transaction();
    tx.create(task("t2", "s1", 2)).unwrap();
    tx.create(task("t1", "s1", 10)).unwrap();
    let slots: Vec<Slot> = tx
        .tasks_of_service(&service_id)
        .map(|task| task.slot)
        .collect();
    assert_eq!(slots, [Slot(2), Slot(10)]);
    tx.modify::<Task>("t1", |task| {
        task.node_id = Some(node_id.clone());
        task.status.state = TaskState::Assigned;
    })
    .unwrap();
    assert_eq!(tx.tasks_on_node(&node_id).count(), 1);
    assert_eq!(tx.tasks_in_state(TaskState::New).count(), 1);
    assert_eq!(tx.tasks_in_state(TaskState::Assigned).count(), 1);
    assert_eq!(tx.tasks_of_slot(&service_id, Slot(2)).count(), 1);
    assert_eq!(tx.tasks_of_slot(&service_id, Slot(3)).count(), 0);
    tx.delete::<Task>("t1").unwrap();
    assert_eq!(tx.tasks_on_node(&node_id).count(), 0);
}

#[test]
fn a_task_on_a_network_is_found_by_it_whether_it_asks_or_is_attached() {
    let network = NetworkId::from("net");
    let mut asking = task("t1", "s1", 1);
    asking.spec = Arc::new(proto::TaskSpec {
        networks: vec![proto::NetworkAttachmentConfig {
            target: "net".into(),
            ..Default::default()
        }],
        ..Default::default()
    });
    let mut attached = task("t2", "s1", 2);
    attached.networks = vec![proto::NetworkAttachment {
        network: Some(Network {
            id: "net".into(),
            ..Default::default()
        }),
        ..Default::default()
    }];
    let mut tx = transaction();
    tx.create(asking).unwrap();
    tx.create(attached).unwrap();
    assert_eq!(tx.tasks_on_network(&network).count(), 2);
}

#[test]
fn tasks_with_their_services_spec_share_it() {
    let mut tx = transaction();
    let web = tx.create(service("s1", "web")).unwrap();
    let spec = web.spec.as_ref().unwrap().task.clone().unwrap();
    let mut one = task("t1", "s1", 1);
    one.spec = Arc::new(spec.clone());
    let mut old = task("t2", "s1", 2);
    old.spec = Arc::new(proto::TaskSpec {
        force_update: 99,
        ..spec
    });
    let one = tx.create(one).unwrap();
    let old = tx.create(old).unwrap();
    let shared = tx.task_spec(&ServiceId::from("s1")).unwrap();
    assert!(Arc::ptr_eq(&one.spec, shared));
    assert!(!Arc::ptr_eq(&old.spec, shared));
}

#[test]
fn a_task_is_found_by_its_made_up_name_or_its_given_one() {
    let mut tx = transaction();
    let mut made_up = task("t1", "s1", 3);
    made_up.service_annotations = Arc::new(annotations("web").unwrap());
    tx.create(made_up).unwrap();
    let mut given = task("t2", "s1", 4);
    given.annotations = Arc::new(annotations("solo").unwrap());
    tx.create(given).unwrap();
    let id = |name| tx.task_by_name(name).map(|task| task.id.clone());
    assert_eq!(id("web.3.t1"), Some(TaskId::from("t1")));
    assert_eq!(id("Solo"), Some(TaskId::from("t2")));
    assert_eq!(id("web.4.t1"), None);
    assert_eq!(id(""), None);
}

#[test]
fn nodes_may_share_a_hostname() {
    let mut tx = transaction();
    tx.create(node("n1", "Alpha")).unwrap();
    tx.create(node("n2", "alpha")).unwrap();
    assert_eq!(tx.nodes_by_hostname("ALPHA").count(), 2);
    tx.delete::<Node>("n1").unwrap();
    assert_eq!(tx.nodes_by_hostname("alpha").count(), 1);
}

#[test]
fn an_id_prefix_finds_what_starts_so_and_nothing_else() {
    let mut tx = transaction();
    for id in ["a1", "ab1", "ab2", "b"] {
        tx.create(node(id, id)).unwrap();
    }
    let ids: Vec<_> = tx
        .find_by_id_prefix::<Node>("ab")
        .map(|node| node.id.clone())
        .collect();
    assert_eq!(ids, ["ab1", "ab2"]);
    assert_eq!(tx.find_by_id_prefix::<Node>("").count(), 4);
}

#[derive(Clone, Debug)]
enum Step {
    Create { id: u8, name: u8 },
    Rename { id: u8, name: u8, stale: bool },
    Delete { id: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let (id, name) = (0..4_u8, 0..4_u8);
    prop_oneof![
        (id.clone(), name.clone()).prop_map(|(id, name)| Step::Create { id, name }),
        (id.clone(), name, any::<bool>()).prop_map(|(id, name, stale)| Step::Rename {
            id,
            name,
            stale
        }),
        id.prop_map(|id| Step::Delete { id }),
    ]
}

fn named(id: u8, name: u8) -> Service {
    service(&format!("s{id}"), &format!("name{name}"))
}

proptest! {
    /// Against a model that knows only ids and names: the same steps are refused for the same
    /// reasons, and what is left agrees, through the table, the name index and a replay of the log.
    #[test]
    fn the_rules_are_those_of_the_model(steps in prop::collection::vec(step(), 0..40)) {
        let mut tx = transaction();
        let mut model: BTreeMap<u8, u8> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Create { id, name } => {
                    let expected = if model.values().any(|&other| other == name) {
                        Err(StoreError::NameConflict)
                    } else if model.contains_key(&id) {
                        Err(StoreError::Exist)
                    } else {
                        model.insert(id, name);
                        Ok(())
                    };
                    prop_assert_eq!(tx.create(named(id, name)).map(|_| ()), expected);
                }
                Step::Rename { id, name, stale } => {
                    let expected = if model.iter().any(|(&holder, &other)| other == name && holder != id) {
                        Err(StoreError::NameConflict)
                    } else if !model.contains_key(&id) {
                        Err(StoreError::NotExist)
                    } else if stale {
                        Err(StoreError::SequenceConflict)
                    } else {
                        model.insert(id, name);
                        Ok(())
                    };
                    let mut renamed = named(id, name);
                    let version = Version(if stale { 3 } else { 7 });
                    renamed.set_meta(Meta { version, ..Meta::default() });
                    prop_assert_eq!(tx.update(renamed).map(|_| ()), expected);
                }
                Step::Delete { id } => {
                    let expected = model.remove(&id).map(|_| ()).ok_or(StoreError::NotExist);
                    prop_assert_eq!(tx.delete::<Service>(format!("s{id}")).map(|_| ()), expected);
                }
            }
        }
        let (view, actions) = tx.finish();
        let replayed = crate::Store::new();
        replayed.apply(&actions, 7).unwrap();
        for view in [&view, &*replayed.snapshot()] {
            prop_assert_eq!(view.count::<Service>(), model.len());
            for (id, name) in &model {
                let found = view.find_by_name::<Service>(&format!("name{name}")).unwrap();
                prop_assert_eq!(&found.id, &format!("s{id}"));
            }
        }
        prop_assert_eq!(view.save(), replayed.save());
    }
}
