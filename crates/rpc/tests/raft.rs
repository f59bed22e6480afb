//! Raft among managers over the real transport.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail like the test itself"
)]

mod support;

use skep_ca::NodeRole;
use skep_proto as proto;
use skep_proto::raft_client::RaftClient;
use skep_rpc::RoleKeeper;
use skep_store::{MemoryProposer, Store};
use support::{Manager, Swarm, eventually, leader_of, three};

#[tokio::test(flavor = "multi_thread")]
async fn three_managers_replicate_and_go_on_without_their_leader() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let mut managers = three(&swarm, directory.path()).await;
    let leader = leader_of(&managers).await;
    managers[leader].propose(b"one".to_vec()).await;
    for manager in &managers {
        manager.has(1).await;
    }
    let others = managers[leader].transport.reachability();
    eventually("the leader reaches the others", || {
        others
            .borrow()
            .values()
            .filter(|reachable| **reachable)
            .count()
            == 2
    })
    .await;

    let stopped = managers.remove(leader).stop().await;
    let next = leader_of(&managers).await;
    managers[next].propose(b"two".to_vec()).await;
    for manager in &managers {
        manager.has(2).await;
    }
    let others = managers[next].transport.reachability();
    eventually("the loss is noticed", || {
        others.borrow().values().any(|reachable| !reachable)
    })
    .await;

    let back = Manager::resume(&swarm, stopped).await;
    back.has(2).await;
    assert_eq!(back.log.entries(), [b"one".to_vec(), b"two".to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_missed_much_is_given_a_snapshot_in_pieces() {
    let (mut swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    // Encrypting megabytes takes a debug build as long as an election.
    swarm.tick = std::time::Duration::from_millis(500);
    let mut managers = three(&swarm, directory.path()).await;
    let leader = leader_of(&managers).await;
    let lagging = managers.remove((leader + 1) % 3).stop().await;
    let leader = leader_of(&managers).await;
    // More than a piece of four megabytes.
    for i in 0..3_u8 {
        managers[leader].propose(vec![i; 2 << 20]).await;
    }
    managers[leader].raft.compact().await.unwrap();
    managers[leader].propose(b"after".to_vec()).await;

    let back = Manager::resume(&swarm, lagging).await;
    back.has(4).await;
    assert_eq!(back.log.entries(), managers[leader].log.entries());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_told_so() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let mut managers = three(&swarm, directory.path()).await;
    let leader = leader_of(&managers).await;
    let gone = managers.remove((leader + 1) % 3);
    let gone_id = gone.raft.id();
    // It is away while it is removed, so the log cannot tell it.
    let gone = gone.stop().await;
    let leader = leader_of(&managers).await;
    managers[leader].raft.remove_member(gone_id).await.unwrap();

    let back = Manager::resume(&swarm, gone).await;
    let told = back.transport.removed().cancelled();
    tokio::time::timeout(support::PATIENCE, told)
        .await
        .expect("it is told");
}

struct Everyone;

impl skep_rpc::RemovedNodes for Everyone {
    fn is_removed(&self, _: &str) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_node_was_removed_is_told_so_though_it_is_not_let_in() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let mut managers = three(&swarm, directory.path()).await;
    let leader = leader_of(&managers).await;
    let gone = managers.remove((leader + 1) % 3).stop().await;
    for manager in &managers {
        manager.backends.removed.set(std::sync::Arc::new(Everyone));
    }
    let back = Manager::resume(&swarm, gone).await;
    let told = back.transport.removed().cancelled();
    tokio::time::timeout(support::PATIENCE, told)
        .await
        .expect("it is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joining_manager_that_cannot_be_dialled_back_is_not_added() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let first = Manager::found(&swarm, "m1", directory.path().join("m1")).await;
    let connector = swarm.connector(NodeRole::Manager, "m2");
    let addr = first.addr.to_string();
    let refused = skep_rpc::join_raft(&connector, &addr, "127.0.0.1:1")
        .await
        .unwrap_err();
    assert!(
        refused.message().starts_with(
            "could not connect to prospective new cluster member using its advertised address: "
        ),
        "{refused}"
    );
    assert_eq!(first.raft.members().borrow().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_takes_a_member_out_only_if_the_rest_is_a_quorum() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let managers = three(&swarm, directory.path()).await;
    let leader = leader_of(&managers).await;
    let leaving = &managers[(leader + 1) % 3];
    let connector = skep_rpc::Connector::new(std::sync::Arc::clone(&leaving.security));
    let channel = connector
        .connect(&managers[leader].addr.to_string())
        .await
        .unwrap();
    let others = managers[leader].transport.reachability();
    let reached = |r: &skep_rpc::Reachability| r.len() == 2 && r.values().all(|r| *r);
    eventually("the leader reaches the others", || {
        reached(&others.borrow())
    })
    .await;
    skep_rpc::leave_raft(channel, leaving.raft.id())
        .await
        .unwrap();
    assert_eq!(managers[leader].raft.members().borrow().len(), 2);

    let only = Manager::found(&swarm, "lone", directory.path().join("lone")).await;
    let connector = swarm.connector(NodeRole::Manager, "m9");
    let channel = connector.connect(&only.addr.to_string()).await.unwrap();
    let refused = skep_rpc::leave_raft(channel, only.raft.id())
        .await
        .unwrap_err();
    assert_eq!(
        refused.message(),
        "raft: member cannot be removed, because removing it may result in loss of quorum"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn members_tell_each_others_addresses() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let first = Manager::found(&swarm, "m1", directory.path().join("m1")).await;
    let connector = swarm.connector(NodeRole::Manager, "m2");
    let channel = connector.connect(&first.addr.to_string()).await.unwrap();
    let mut client = RaftClient::new(channel);
    let ask = |raft_id| proto::ResolveAddressRequest { raft_id };
    let answer = client.resolve_address(ask(1)).await.unwrap().into_inner();
    assert_eq!(answer.addr, first.addr.to_string());
    let refused = client.resolve_address(ask(0xab)).await.unwrap_err();
    assert_eq!(refused.message(), "member ab not found");
}

/// Three managers whose nodes are in a store.
async fn with_nodes(swarm: &Swarm, directory: &std::path::Path) -> (Vec<Manager>, Store) {
    let managers = three(swarm, directory).await;
    let (store, _) = MemoryProposer::with_store();
    for manager in &managers {
        let role = proto::NodeRole::Manager.into();
        let node = proto::Node {
            id: manager.node_id.clone(),
            role,
            spec: Some(proto::NodeSpec {
                desired_role: role,
                ..Default::default()
            }),
            ..Default::default()
        };
        store.update(|tx| tx.create(node)).await.unwrap();
    }
    (managers, store)
}

async fn demote(store: &Store, node: &str) {
    let change = |node: &mut proto::Node| {
        node.spec.as_mut().unwrap().desired_role = proto::NodeRole::Worker.into();
    };
    store
        .update(|tx| tx.modify::<proto::Node>(node, change))
        .await
        .unwrap();
}

fn role(store: &Store, node: &str) -> proto::NodeRole {
    store.snapshot().get::<proto::Node>(node).unwrap().role()
}

fn keeper(manager: &Manager, store: &Store) -> tokio_util::sync::DropGuard {
    let keeper = RoleKeeper::new(store.clone(), manager.backends.raft.get().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move { keeper.run(stopped).await });
    stop.drop_guard()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_manager_leaves_the_group_and_a_demoted_leader_hands_over_first() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (managers, store) = with_nodes(&swarm, directory.path()).await;
    let leader = leader_of(&managers).await;
    let leading = &managers[leader].node_id;
    let keeping = keeper(&managers[leader], &store);
    demote(&store, leading).await;
    let others: Vec<_> = managers.iter().filter(|m| m.node_id != *leading).collect();
    let leads = |m: &&Manager| m.raft.leadership().borrow().is_leader();
    eventually("another one leads", || others.iter().any(leads)).await;
    drop(keeping);
    assert_eq!(role(&store, leading), proto::NodeRole::Manager, "not yet");

    let next = *others.iter().find(|m| leads(m)).unwrap();
    let _keeping = keeper(next, &store);
    let worker = proto::NodeRole::Worker;
    eventually("it is a worker", || role(&store, leading) == worker).await;
    assert_eq!(next.raft.members().borrow().len(), 2);
    // From the log, or, if nobody sent it that any more, from those it calls.
    let demoted = &managers[leader];
    eventually("it knows", || {
        demoted.raft.leadership().borrow().removed || demoted.transport.removed().is_cancelled()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_member_of_a_removed_node_is_removed() {
    let (swarm, directory) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (managers, store) = with_nodes(&swarm, directory.path()).await;
    let leader = leader_of(&managers).await;
    let _keeping = keeper(&managers[leader], &store);
    let gone = managers[(leader + 1) % 3].node_id.clone();
    store
        .update(|tx| tx.delete::<proto::Node>(&gone))
        .await
        .unwrap();
    eventually("two are left", || {
        managers[leader].raft.members().borrow().len() == 2
    })
    .await;
}
