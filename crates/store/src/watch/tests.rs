use skep_model::{Task, TaskState};

use super::*;
use crate::fixtures::{node, service, task};
use crate::{MemoryProposer, Store, StoreError};

async fn store() -> Store {
    let store = MemoryProposer::store();
    store
        .update(|tx| {
            tx.create(service("s1", "web"))?;
            tx.create(node("n1", "alpha"))?;
            tx.create(task("t1", "s1", 1))?;
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    store
}

async fn assign(store: &Store, task: &str, to: Option<&str>) {
    let to = to.map(NodeId::from);
    store
        .update(|tx| tx.modify::<Task>(task, |task| task.node_id = to))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_event_has_the_old_and_the_new_object_and_the_version() {
    let store = store().await;
    let mut watch = store.watch(WatchFilter::task(&TaskId::from("t1")));
    store
        .update(|tx| tx.modify::<Task>("t1", |task| task.desired_state = TaskState::Running))
        .await
        .unwrap();
    let event = watch.next().await.unwrap();
    assert_eq!(event.version, 2);
    let state = |side: &Option<Object>| match side {
        Some(Object::Task(task)) => task.desired_state,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (state(&event.old), state(&event.new)),
        (TaskState::New, TaskState::Running)
    );
}

#[tokio::test]
async fn a_subscriber_hears_only_of_what_it_asked_for() {
    let store = store().await;
    let mut on_node = store.watch(WatchFilter::node(&NodeId::from("n1")));
    let mut elsewhere = store.watch(WatchFilter::node(&NodeId::from("n2")));
    let mut services = store.watch(WatchFilter::kinds([ObjectKind::Service]));
    assign(&store, "t1", Some("n1")).await;
    assert!(on_node.try_next().is_some());
    assert!(elsewhere.try_next().is_none());
    assert!(services.try_next().is_none());
}

#[tokio::test]
async fn a_task_that_leaves_a_node_is_told_to_both_nodes() {
    let store = store().await;
    assign(&store, "t1", Some("n1")).await;
    let mut left = store.watch(WatchFilter::node(&NodeId::from("n1")));
    let mut entered = store.watch(WatchFilter::node(&NodeId::from("n2")));
    assign(&store, "t1", Some("n2")).await;
    assert!(left.try_next().is_some());
    assert!(entered.try_next().is_some());
    assign(&store, "t1", None).await;
    assert!(left.try_next().is_none());
    assert!(entered.try_next().is_some());
}

#[tokio::test]
async fn an_event_that_matches_twice_is_told_once() {
    let store = store().await;
    let mut watch = store.watch(
        WatchFilter::service(&ServiceId::from("s1"))
            .and(Selector::All)
            .and(Selector::Kind(ObjectKind::Task)),
    );
    assign(&store, "t1", Some("n1")).await;
    assert!(watch.try_next().is_some());
    assert!(watch.try_next().is_none());
}

#[tokio::test]
async fn events_come_in_the_order_of_commits() {
    let store = MemoryProposer::store();
    let (snapshot, mut watch) = store.snapshot_and_watch(WatchFilter::all());
    assert_eq!(snapshot.version(), 0);
    for i in 0..10 {
        store
            .update(|tx| tx.create(node(&format!("n{i}"), "x")))
            .await
            .unwrap();
    }
    for version in 1..=10 {
        assert_eq!(watch.next().await.unwrap().version, version);
    }
}

#[tokio::test]
async fn a_slow_subscriber_is_told_that_it_lagged_and_goes_on_from_there() {
    let store = store().await;
    let mut watch = store.watch(WatchFilter::all());
    let chunks = CAPACITY.div_ceil(100) + 1;
    for chunk in 0..chunks {
        store
            .update(|tx| {
                for i in 0..100 {
                    tx.create(node(&format!("m{chunk}-{i}"), "x"))?;
                }
                Ok::<_, StoreError>(())
            })
            .await
            .unwrap();
    }
    assert_eq!(watch.next().await, Err(WatchError::Lagged));
    let snapshot = store.snapshot();
    assign(&store, "t1", Some("n1")).await;
    assert_eq!(watch.next().await.unwrap().version, snapshot.version() + 1);
}

#[tokio::test]
async fn a_dropped_subscription_is_forgotten() {
    let store = store().await;
    let watch = store.watch(WatchFilter::all());
    let hub = watch.hub.upgrade().unwrap();
    drop(watch);
    assert!(hub.lock().queues.is_empty());
    assert!(hub.lock().by_selector.is_empty());
}

#[tokio::test]
async fn a_closed_store_ends_its_subscriptions() {
    let store = store().await;
    let mut watch = store.watch(WatchFilter::all());
    assign(&store, "t1", Some("n1")).await;
    store.close();
    assert!(
        watch.next().await.is_ok(),
        "what happened before is still told"
    );
    assert_eq!(watch.next().await, Err(WatchError::Closed));
    assert_eq!(
        store.watch(WatchFilter::all()).next().await,
        Err(WatchError::Closed)
    );
}
