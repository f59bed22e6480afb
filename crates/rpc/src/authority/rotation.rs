//! Moves the swarm from one root certificate to the next: every node is asked to renew its certificate,
//! and when all have one of the next root, that one becomes the root. SwarmKit's reconciler.

mod plan;

use std::time::Duration;

use skep_ca::JoinToken;
use skep_manager::root_ca;
use skep_model::ObjectKind;
use skep_model::ext::ClusterExt as _;
use skep_proto as proto;
use skep_proto::issuance_status::State;
use skep_store::{Store, StoreError, Transaction, UpdateError, WatchError, WatchFilter};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use plan::{Rotation, Step, may_be_asked};

/// Between two batches of nodes. Each node that is asked writes twice and begins a new session.
const PACE: Duration = Duration::from_millis(250);

/// To be run while this manager leads. All state is in the store: another leader goes on.
pub(super) async fn run(store: &Store, stopped: CancellationToken) {
    tokio::select! {
        () = stopped.cancelled() => {}
        () = follow(store) => {}
    }
}

async fn follow(store: &Store) {
    let kinds = WatchFilter::kinds([ObjectKind::Cluster, ObjectKind::Node]);
    let (mut snapshot, mut watch) = store.snapshot_and_watch(kinds);
    let mut rotation: Option<Rotation> = None;
    loop {
        let root = snapshot
            .the_cluster()
            .map(|cluster| cluster.root_ca().clone());
        rotation = match root.filter(|root| root.root_rotation.is_some()) {
            Some(root) => match rotation.take().filter(|rotation| rotation.is_to(&root)) {
                Some(rotation) => Some(rotation),
                None => begin(root),
            },
            None => None,
        };
        let step = match &mut rotation {
            Some(rotation) => rotation.step(snapshot.nodes().map(|node| &**node), Instant::now()),
            None => Step::Wait(None),
        };
        match (step, &rotation) {
            (Step::Finish, Some(rotation)) => finish(store, &rotation.root).await,
            (Step::Ask(nodes), _) => ask(store, &nodes).await,
            (Step::Wait(until), _) => tokio::select! {
                event = watch.next() => if matches!(event, Err(WatchError::Closed)) { return },
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            },
            (Step::Finish, None) => {}
        }
        if rotation.is_some() {
            sleep(PACE).await;
        }
        while let Some(event) = watch.try_next() {
            if matches!(event, Err(WatchError::Closed)) {
                return;
            }
        }
        snapshot = store.snapshot();
    }
}

fn begin(root: proto::RootCa) -> Option<Rotation> {
    match Rotation::new(root) {
        Ok(rotation) => {
            tracing::info!("rotating the swarm's root certificate");
            Some(rotation)
        }
        Err(error) => {
            let error = crate::connect::chain(&error);
            tracing::error!(error, "the root certificate to rotate to is invalid");
            None
        }
    }
}

async fn ask(store: &Store, nodes: &[String]) {
    let asked = store.update(|tx| {
        for id in nodes {
            // A node that is gone, or has asked by itself meanwhile, need not be asked.
            let Some(node) = tx.get::<proto::Node>(id).filter(|node| may_be_asked(node)) else {
                continue;
            };
            let mut node = (**node).clone();
            let certificate = node.certificate.get_or_insert_default();
            certificate.status.get_or_insert_default().state = State::Rotate.into();
            tx.update(node)?;
        }
        Ok::<_, StoreError>(())
    });
    if let Err(error) = asked.await {
        tracing::warn!(%error, "cannot ask nodes to renew their certificates");
    }
}

/// Why the next root does not become the root at this moment.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("target root rotation has changed")]
    Changed,
    #[error("invalid cluster root rotation object")]
    Invalid(#[from] skep_ca::CaError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

async fn finish(store: &Store, expected: &proto::RootCa) {
    match store.update(|tx| switch(tx, expected)).await {
        Ok(()) => tracing::info!("completed root rotation"),
        Err(UpdateError::Rejected(Unfinished::Changed)) => {}
        Err(error) => {
            let error = crate::connect::chain(&error);
            tracing::error!(error, "could not complete root rotation");
        }
    }
}

fn switch(tx: &mut Transaction, expected: &proto::RootCa) -> Result<(), Unfinished> {
    let cluster = tx.the_cluster().ok_or(Unfinished::Changed)?;
    let mut cluster = (**cluster).clone();
    let root = cluster.root_ca.get_or_insert_default();
    if !plan::is_same(root, expected) {
        return Err(Unfinished::Changed);
    }
    let Some(rotation) = root.root_rotation.take() else {
        return Err(Unfinished::Changed);
    };
    root.ca_cert = rotation.ca_cert;
    root.ca_key = rotation.ca_key;
    // The digest in the join tokens is the root's.
    let next = root_ca(root)?;
    root.ca_cert_hash = next.digest_text();
    root.join_tokens = Some(proto::JoinTokens {
        worker: JoinToken::generate(&next).to_string(),
        manager: JoinToken::generate(&next).to_string(),
    });
    tx.update(cluster)?;
    Ok(())
}
