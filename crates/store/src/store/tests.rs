use std::convert::Infallible;
use std::time::Duration;

use futures::FutureExt as _;
use skep_model::proto::{self, Service};
use skep_model::{ServiceId, StoreObject as _, Version};

use super::*;
use crate::fixtures::{node, service, task};
use crate::{MemoryProposer, StoreError, WatchError};

fn store() -> (Store, MemoryProposer) {
    MemoryProposer::with_store()
}

async fn create(store: &Store, id: &str, name: &str) -> Result<u64, UpdateError<StoreError>> {
    store
        .update(|tx| Ok(tx.create(service(id, name))?.meta().version.0))
        .await
}

/// Lets everything that can run, run. On the current-thread runtime of these tests that needs only
/// as many turns as there are steps in the longest chain of wake-ups.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_committed_change_is_in_the_snapshot_and_an_older_snapshot_stays() {
    let (store, _) = store();
    let before = store.snapshot();
    create(&store, "s1", "web").await.unwrap();
    assert_eq!(before.count::<Service>(), 0);
    assert_eq!(store.snapshot().count::<Service>(), 1);
}

#[tokio::test]
async fn versions_grow_and_are_the_indices_of_the_log() {
    let (store, _) = store();
    assert_eq!(create(&store, "s1", "a").await, Ok(1));
    assert_eq!(create(&store, "s2", "b").await, Ok(2));
    assert_eq!(store.snapshot().version(), 2);
}

#[tokio::test]
async fn a_refused_transaction_leaves_nothing() {
    let (store, log) = store();
    let refused = store
        .update(|tx| {
            tx.create(service("s1", "web")).map_err(|_| "create")?;
            Err::<(), _>("changed my mind")
        })
        .await;
    assert_eq!(refused, Err(UpdateError::Rejected("changed my mind")));
    assert_eq!(store.snapshot().count::<Service>(), 0);
    assert!(log.committed().is_empty());
}

#[tokio::test]
async fn a_transaction_that_changes_nothing_is_not_proposed() {
    let (store, log) = store();
    let count = store
        .update(|tx| Ok::<_, Infallible>(tx.count::<Service>()))
        .await;
    assert_eq!(count, Ok(0));
    assert!(log.committed().is_empty());
}

#[tokio::test]
async fn without_a_leader_nothing_is_written() {
    let unattached = Store::new();
    let error = create(&unattached, "s1", "a").await.unwrap_err();
    assert_eq!(error, UpdateError::Propose(ProposeError::NotLeader));
    let (store, log) = store();
    log.lose_leadership();
    let error = create(&store, "s1", "a").await.unwrap_err();
    assert_eq!(error, UpdateError::Propose(ProposeError::NotLeader));
}

#[tokio::test]
async fn many_transactions_wait_for_the_disk_together() {
    let (store, log) = store();
    log.hold();
    let writers: Vec<_> = (0..20)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move { create(&store, &format!("s{i}"), &format!("n{i}")).await })
        })
        .collect();
    settle().await;
    assert_eq!(log.waiting(), 20);
    assert_eq!(
        store.snapshot().count::<Service>(),
        0,
        "nothing is visible before it is committed"
    );
    log.release();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(store.snapshot().count::<Service>(), 20);
}

#[tokio::test]
async fn a_transaction_sees_those_in_flight_and_stamps_grow_through_them() {
    let (store, log) = store();
    log.hold();
    let first = tokio::spawn({
        let store = store.clone();
        async move { create(&store, "s1", "web").await }
    });
    settle().await;
    let second = tokio::spawn({
        let store = store.clone();
        async move {
            store
                .update(|tx| {
                    let changed = tx.modify::<Service>("s1", |s| s.pending_delete = true)?;
                    Ok::<_, StoreError>(changed.meta().version)
                })
                .await
        }
    });
    settle().await;
    assert_eq!(log.waiting(), 2);
    log.release();
    assert_eq!(first.await.unwrap(), Ok(1));
    assert_eq!(second.await.unwrap(), Ok(Version(2)));
    assert!(
        store
            .snapshot()
            .service(&ServiceId::from("s1"))
            .unwrap()
            .pending_delete
    );
}

#[tokio::test]
async fn a_refusal_because_of_a_change_in_flight_waits_for_that_change() {
    let (store, log) = store();
    log.hold();
    let first = tokio::spawn({
        let store = store.clone();
        async move { create(&store, "s1", "web").await }
    });
    settle().await;
    let mut second = Box::pin(create(&store, "s2", "web"));
    assert!(
        (&mut second).now_or_never().is_none(),
        "the name is not taken for sure yet"
    );
    log.release();
    assert_eq!(
        second.await,
        Err(UpdateError::Rejected(StoreError::NameConflict))
    );
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_builds_on_a_failed_change_fails_too_and_the_next_starts_clean() {
    let (store, log) = store();
    log.hold();
    let spawn = |id: &'static str, name: &'static str| {
        let store = store.clone();
        tokio::spawn(async move { create(&store, id, name).await })
    };
    let first = spawn("s1", "web");
    settle().await;
    let dependent = spawn("s2", "db");
    let refused = spawn("s3", "web");
    settle().await;
    log.lose_leadership();
    assert_eq!(
        first.await.unwrap(),
        Err(UpdateError::Propose(ProposeError::LeadershipLost))
    );
    assert!(dependent.await.unwrap().is_err());
    assert_eq!(
        refused.await.unwrap(),
        Err(UpdateError::Propose(ProposeError::Superseded)),
        "nobody holds that name after all"
    );
    log.lead();
    log.release();
    assert_eq!(create(&store, "s3", "web").await, Ok(1));
    assert_eq!(store.snapshot().count::<Service>(), 1);
}

#[tokio::test]
async fn a_new_epoch_waits_for_the_old_ones_transactions() {
    let (store, log) = store();
    log.hold();
    let old = tokio::spawn({
        let store = store.clone();
        async move { create(&store, "s1", "web").await }
    });
    settle().await;
    // Leads anew while the old entry is still on its way: it may well be committed yet.
    log.lead();
    let new = tokio::spawn({
        let store = store.clone();
        async move { create(&store, "s2", "web").await }
    });
    settle().await;
    assert_eq!(log.waiting(), 1);
    log.release();
    old.await.unwrap().unwrap();
    assert_eq!(
        new.await.unwrap(),
        Err(UpdateError::Rejected(StoreError::NameConflict))
    );
}

#[tokio::test]
async fn giving_up_on_an_update_does_not_stop_the_store() {
    let (store, log) = store();
    log.hold();
    let mut abandoned = Box::pin(create(&store, "s1", "web"));
    assert!((&mut abandoned).now_or_never().is_none());
    drop(abandoned);
    settle().await;
    log.release();
    create(&store, "s2", "db").await.unwrap();
    assert_eq!(store.snapshot().count::<Service>(), 2);
}

#[tokio::test]
async fn a_transaction_too_large_for_the_log_is_refused() {
    let (store, log) = store();
    let mut secret = proto::Secret {
        id: "x".into(),
        ..Default::default()
    };
    secret.spec = Some(proto::SecretSpec {
        data: vec![0; MAX_TRANSACTION_BYTES],
        ..Default::default()
    });
    let refused = store.update(|tx| tx.create(secret)).await.unwrap_err();
    assert!(
        matches!(refused, UpdateError::Propose(ProposeError::TooLarge { .. })),
        "{refused}"
    );
    assert!(log.committed().is_empty());
}

#[tokio::test]
async fn a_batch_is_cut_into_bounded_transactions_and_names_what_was_refused() {
    let (store, log) = store();
    create(&store, "taken", "name7").await.unwrap();
    let outcome = store
        .batch(0..450, |tx, i| {
            tx.create(service(&format!("s{i}"), &format!("name{i}")))
                .map(|_| ())
        })
        .await;
    assert_eq!(outcome.committed, 449);
    assert_eq!(outcome.rejected, [(7, StoreError::NameConflict)]);
    assert_eq!(outcome.failed, None);
    let sizes: Vec<usize> = log.committed().iter().skip(1).map(Vec::len).collect();
    assert_eq!(sizes, [200, 200, 49]);
}

#[tokio::test]
async fn a_refused_item_of_a_batch_leaves_nothing_of_itself() {
    let (store, _) = store();
    let outcome = store
        .batch(["a", "b"], |tx, id| {
            tx.create(service(id, id)).map_err(|_| ())?;
            if *id == "a" { Err(()) } else { Ok(()) }
        })
        .await;
    assert_eq!((outcome.committed, outcome.rejected), (1, vec![("a", ())]));
    assert!(store.snapshot().get::<Service>("a").is_none());
    assert!(store.snapshot().get::<Service>("b").is_some());
}

#[tokio::test]
async fn a_batch_stops_when_the_leadership_is_lost() {
    let (store, log) = store();
    log.lose_leadership();
    let outcome = store
        .batch(["a"], |tx, id| tx.create(service(id, id)).map(|_| ()))
        .await;
    assert_eq!(outcome.failed, Some(ProposeError::NotLeader));
    assert_eq!(outcome.committed, 0);
}

#[tokio::test]
async fn everything_survives_saving_and_restoring() {
    let (store, _) = store();
    store
        .update(|tx| {
            tx.create(node("n1", "alpha"))?;
            let web = tx.create(service("s1", "web"))?;
            for slot in 1..=3 {
                let mut task = task(&format!("t{slot}"), "s1", slot);
                task.spec = Arc::new(
                    web.spec
                        .clone()
                        .unwrap_or_default()
                        .task
                        .unwrap_or_default(),
                );
                tx.create(task)?;
            }
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    let other = Store::new();
    let mut watch = other.watch(WatchFilter::all());
    other
        .restore(store.save(), store.snapshot().version())
        .unwrap();
    assert_eq!(other.save(), store.save());
    assert_eq!(watch.try_next(), Some(Err(WatchError::Lagged)));
    let snapshot = other.snapshot();
    let specs: Vec<_> = snapshot
        .tasks()
        .map(|task| Arc::as_ptr(&task.spec))
        .collect();
    assert!(
        specs.iter().all(|spec| *spec == specs[0]),
        "restored tasks share their spec"
    );
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_an_error_and_changes_nothing() {
    let store = Store::new();
    let readable = proto::StoreAction {
        action: StoreActionKind::StoreActionCreate.into(),
        target: Some(Target::Service(service("s1", "web"))),
    };
    let unknown = proto::Task {
        id: "t".into(),
        desired_state: 5,
        ..Default::default()
    };
    let unreadable = proto::StoreAction {
        target: Some(Target::Task(unknown)),
        ..readable
    };
    let readable = proto::StoreAction {
        action: StoreActionKind::StoreActionCreate.into(),
        target: Some(Target::Service(service("s1", "web"))),
    };
    assert!(store.apply(&[readable, unreadable], 1).is_err());
    assert_eq!(store.snapshot().count::<Service>(), 0);
}

#[tokio::test]
async fn changed_tells_the_version() {
    let (store, _) = store();
    let mut changed = store.changed();
    create(&store, "s1", "web").await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), changed.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(*changed.borrow(), 1);
}
