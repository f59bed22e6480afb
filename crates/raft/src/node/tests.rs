use super::*;
use crate::{BoxError, Ticks};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// A state that is the list of everything applied.
#[derive(Default)]
struct Journal {
    lines: Mutex<Vec<(u64, String)>>,
    restored: Mutex<Vec<u64>>,
}

impl Journal {
    fn texts(&self) -> Vec<String> {
        self.lines
            .lock()
            .iter()
            .map(|(_, text)| text.clone())
            .collect()
    }
}

impl StateMachine for Journal {
    fn apply(&self, index: u64, data: &[u8]) -> Result<(), BoxError> {
        let text = String::from_utf8(data.to_vec())?;
        if text == "poison" {
            return Err("poisoned".into());
        }
        self.lines.lock().push((index, text));
        Ok(())
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        let lines: Vec<String> = self
            .lines
            .lock()
            .iter()
            .map(|(index, text)| format!("{index}={text}"))
            .collect();
        Ok(lines.join("\n").into_bytes())
    }

    fn restore(&self, index: u64, data: &[u8]) -> Result<(), BoxError> {
        let text = String::from_utf8(data.to_vec())?;
        let mut lines = Vec::new();
        for line in text.lines() {
            let (index, text) = line.split_once('=').ok_or("no line of ours")?;
            lines.push((index.parse()?, text.to_owned()));
        }
        *self.lines.lock() = lines;
        self.restored.lock().push(index);
        Ok(())
    }
}

/// Delivers at once, unless the receiver is unknown or cut off.
#[derive(Default)]
struct Wire {
    nodes: Mutex<HashMap<u64, RaftNode>>,
    cut: Mutex<Vec<u64>>,
}

impl Transport for Wire {
    fn send(&self, message: raftpb::Message) {
        let cut = self.cut.lock();
        if cut.contains(&message.to) || cut.contains(&message.from) {
            return;
        }
        drop(cut);
        // Across the wire it would be bytes.
        let message = raftpb::Message::decode(message.encode_to_vec().as_slice()).unwrap();
        let (from, to) = (message.from, message.to);
        let is_snapshot = message.r#type() == raftpb::MessageType::MsgSnap;
        let nodes = self.nodes.lock();
        let delivered = nodes
            .get(&to)
            .is_some_and(|node| node.step(message).is_ok());
        if let (true, Some(sender)) = (is_snapshot, nodes.get(&from)) {
            sender.report_snapshot(to, delivered);
        }
    }
}

struct Lab {
    dir: tempfile::TempDir,
    key: SecretKey,
    wire: Arc<Wire>,
}

struct Member {
    node: RaftNode,
    journal: Arc<Journal>,
}

fn member(raft_id: u64) -> RaftMember {
    let (node_id, addr) = (format!("node{raft_id}"), format!("10.0.0.{raft_id}:2377"));
    RaftMember {
        raft_id,
        node_id,
        addr,
        ..Default::default()
    }
}

impl Lab {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            key: SecretKey::generate(),
            wire: Arc::default(),
        }
    }

    fn config(&self, id: u64, if_new: IfNew) -> RaftConfig {
        let dir = self.dir.path().join(id.to_string());
        RaftConfig {
            ticks: Ticks::Every(Duration::from_millis(10)),
            ..RaftConfig::new(dir, self.key.clone(), if_new)
        }
    }

    fn start(&self, config: RaftConfig) -> Result<Member, RaftError> {
        let journal = Arc::new(Journal::default());
        let transport = Arc::clone(&self.wire) as Arc<dyn Transport>;
        let node = RaftNode::start(config, Arc::clone(&journal) as _, transport)?;
        self.wire.nodes.lock().insert(node.id(), node.clone());
        Ok(Member { node, journal })
    }

    async fn founder(&self) -> Member {
        let founder = self
            .start(self.config(1, IfNew::Bootstrap(member(1))))
            .unwrap();
        founder.becomes_leader().await;
        founder
    }

    async fn join(&self, leader: &Member, id: u64) -> Member {
        leader.node.add_member(member(id)).await.unwrap();
        let members = leader.node.members().borrow().iter().cloned().collect();
        let joined = self
            .start(self.config(
                id,
                IfNew::Join {
                    raft_id: id,
                    members,
                },
            ))
            .unwrap();
        joined.applies(leader.node.applied_index()).await;
        joined
    }

    /// As `kill -9` does: no handle left, no goodbye. Waits until the thread has let the files go.
    async fn crash(&self, member: Member) -> Arc<Journal> {
        let Member { node, journal } = member;
        self.wire.nodes.lock().remove(&node.id());
        let mut leadership = node.leadership();
        drop(node);
        while leadership.changed().await.is_ok() {}
        journal
    }
}

impl Member {
    async fn becomes_leader(&self) {
        self.leadership(Leadership::is_leader).await;
    }

    async fn leadership(&self, wanted: impl FnMut(&Leadership) -> bool) -> Leadership {
        let mut leadership = self.node.leadership();
        let found = timeout(PATIENCE, leadership.wait_for(wanted)).await;
        found
            .expect("within the time")
            .expect("the node lives")
            .clone()
    }

    async fn applies(&self, index: u64) {
        let reached = async {
            while self.node.applied_index() < index {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reached)
            .await
            .expect("the entries arrive");
    }

    async fn propose(&self, text: &str) -> Result<u64, ProposeError> {
        let Some(reign) = self.node.reign() else {
            // Somebody who does not know better.
            return self
                .propose_in(
                    Reign {
                        term: 0,
                        failures: 0,
                    },
                    text,
                )
                .await;
        };
        self.propose_in(reign, text).await
    }

    async fn propose_in(&self, reign: Reign, text: &str) -> Result<u64, ProposeError> {
        let answer = self.node.propose(reign, text.as_bytes().to_vec());
        timeout(PATIENCE, answer).await.expect("an answer")
    }
}

#[tokio::test]
async fn a_lone_member_leads_at_once_and_applies_what_it_is_given() {
    let lab = Lab::new();
    // No tick ever comes.
    let config = RaftConfig {
        ticks: Ticks::Manual,
        ..lab.config(1, IfNew::Bootstrap(member(1)))
    };
    let founder = lab.start(config).unwrap();
    founder.becomes_leader().await;
    let leadership = founder.node.leadership().borrow().clone();
    assert_eq!((leadership.leader, leadership.term), (Some(1), 2));
    // Index 1 is the membership, 2 the leader's empty entry.
    assert_eq!(founder.propose("one").await.unwrap(), 3);
    assert_eq!(founder.propose("two").await.unwrap(), 4);
    assert_eq!(founder.journal.texts(), ["one", "two"]);
    assert_eq!(founder.node.members().borrow().get(1), Some(&member(1)));
}

#[tokio::test]
async fn proposals_that_wait_together_share_writes() {
    let lab = Lab::new();
    let founder = lab.founder().await;
    let log = std::fs::read_dir(lab.dir.path().join("1"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let before = log.metadata().unwrap().len();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..500 {
        let node = founder.node.clone();
        tasks.spawn(async move {
            let reign = node.reign().unwrap();
            node.propose(reign, format!("{number}").into_bytes())
                .await
                .unwrap()
        });
    }
    let mut indexes: Vec<u64> = tasks.join_all().await;
    indexes.sort_unstable();
    assert_eq!(indexes, (3..503).collect::<Vec<_>>());
    assert_eq!(founder.journal.texts().len(), 500);
    // A record alone costs more than 90 bytes; together they cost little more than their entries.
    let written = log.metadata().unwrap().len() - before;
    assert!(written < 500 * 60, "{written} bytes: no group commit");
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_acknowledged() {
    let lab = Lab::new();
    let mut member = lab.founder().await;
    for round in 0..5 {
        member.propose(&format!("round {round}")).await.unwrap();
        lab.crash(member).await;
        member = lab.start(lab.config(1, IfNew::Refuse)).unwrap();
        member.becomes_leader().await;
        let expected: Vec<String> = (0..=round).map(|round| format!("round {round}")).collect();
        assert_eq!(member.journal.texts(), expected);
    }
}

#[tokio::test]
async fn after_a_stop_the_log_can_be_opened_again() {
    let lab = Lab::new();
    let founder = lab.founder().await;
    founder.propose("kept").await.unwrap();
    founder.node.stop().await;
    founder.node.stop().await;
    assert!(matches!(
        founder.propose("late").await,
        Err(ProposeError::Stopped)
    ));
    assert!(founder.node.leadership().borrow().stopped);
    let again = lab
        .start(lab.config(1, IfNew::Bootstrap(member(9))))
        .unwrap();
    again.becomes_leader().await;
    // The log says who this is, whatever the configuration would do if it were new.
    assert_eq!(again.node.id(), 1);
    assert_eq!(again.journal.texts(), ["kept"]);
}

#[tokio::test]
async fn a_missing_log_is_not_made_up() {
    let lab = Lab::new();
    let error = lab.start(lab.config(1, IfNew::Refuse)).err().unwrap();
    assert!(matches!(error, RaftError::NoLog(_)));
}

#[tokio::test]
async fn restarts_from_a_snapshot_and_the_entries_behind_it() {
    let lab = Lab::new();
    let config = RaftConfig {
        snapshot_interval: 10,
        keep_entries: 3,
        ..lab.config(1, IfNew::Bootstrap(member(1)))
    };
    let founder = lab.start(config.clone()).unwrap();
    founder.becomes_leader().await;
    for number in 0..25 {
        founder.propose(&number.to_string()).await.unwrap();
    }
    let before = lab.crash(founder).await;
    let again = lab.start(config).unwrap();
    again.becomes_leader().await;
    assert_eq!(again.journal.texts(), before.texts());
    assert_eq!(*again.journal.restored.lock(), [20]);
    assert_eq!(again.node.members().borrow().len(), 1);
}

#[tokio::test]
async fn large_entries_bring_the_next_snapshot_nearer() {
    let lab = Lab::new();
    let config = RaftConfig {
        snapshot_bytes: 10_000,
        ..lab.config(1, IfNew::Bootstrap(member(1)))
    };
    let founder = lab.start(config).unwrap();
    founder.becomes_leader().await;
    for _ in 0..5 {
        founder.propose(&"x".repeat(4000)).await.unwrap();
    }
    // Through the queue once more: the snapshot of the last round has been taken then.
    founder.node.stop().await;
    let names: Vec<_> = std::fs::read_dir(lab.dir.path().join("1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("snapshot-")),
        "{names:?}"
    );
}

#[tokio::test]
async fn too_large_a_proposal_is_refused() {
    let lab = Lab::new();
    let founder = lab.founder().await;
    let reign = founder.node.reign().unwrap();
    let error = founder
        .node
        .propose(reign, vec![0; (3 << 19) + 1])
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "raft: raft message is too large and can't be sent"
    );
}

#[tokio::test]
async fn an_entry_that_cannot_be_applied_stops_the_member_with_the_reason() {
    let lab = Lab::new();
    let founder = lab.founder().await;
    let error = founder.propose("poison").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "raft: cannot apply the entry at raft index 3"
    );
    founder.leadership(|leadership| leadership.stopped).await;
    assert!(founder.node.failure().is_some());
    assert!(matches!(
        founder.propose("x").await,
        Err(ProposeError::Failed(_))
    ));
}

#[tokio::test]
async fn a_wrong_key_is_named_as_such() {
    let lab = Lab::new();
    lab.crash(lab.founder().await).await;
    let config = RaftConfig {
        dek: SecretKey::generate(),
        ..lab.config(1, IfNew::Refuse)
    };
    let error = lab.start(config).err().unwrap();
    let RaftError::Storage(error) = error else {
        panic!("{error}")
    };
    assert!(
        error.to_string().contains("another data encryption key"),
        "{error}"
    );
}

#[tokio::test]
async fn a_rotated_key_is_the_only_one_needed_afterwards() {
    let lab = Lab::new();
    let founder = lab.founder().await;
    founder.propose("before").await.unwrap();
    let new = SecretKey::generate();
    founder.node.rotate_dek(new.clone()).await.unwrap();
    founder.propose("after").await.unwrap();
    lab.crash(founder).await;
    assert!(lab.start(lab.config(1, IfNew::Refuse)).is_err());
    let config = RaftConfig {
        dek: new,
        ..lab.config(1, IfNew::Refuse)
    };
    let again = lab.start(config).unwrap();
    again.becomes_leader().await;
    assert_eq!(again.journal.texts(), ["before", "after"]);
}

#[tokio::test]
async fn three_members_agree_and_survive_the_loss_of_their_leader() {
    let lab = Lab::new();
    let one = lab.founder().await;
    one.propose("alone").await.unwrap();
    let two = lab.join(&one, 2).await;
    let three = lab.join(&one, 3).await;
    let index = one.propose("together").await.unwrap();
    for other in [&two, &three] {
        other.applies(index).await;
        assert_eq!(other.journal.texts(), ["alone", "together"]);
        assert_eq!(other.node.members().borrow().len(), 3);
        let seen = other
            .leadership(|leadership| leadership.leader.is_some())
            .await;
        assert_eq!((seen.leader, seen.role), (Some(1), Role::Follower));
    }
    let error = two.propose("not the leader").await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader));

    lab.wire.cut.lock().push(1);
    // The old leader notices that nobody answers, and its proposal fails.
    let lost = one.propose("into the void").await.unwrap_err();
    assert!(matches!(lost, ProposeError::LostLeadership));
    let leader = async {
        loop {
            for candidate in [&two, &three] {
                if candidate.node.leadership().borrow().is_leader() {
                    return candidate;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let leader = timeout(PATIENCE, leader).await.expect("a new leader");
    let index = leader.propose("without the first").await.unwrap();

    lab.wire.cut.lock().clear();
    one.applies(index).await;
    assert_eq!(
        one.journal.texts(),
        ["alone", "together", "without the first"]
    );
}

#[tokio::test]
async fn a_member_far_behind_is_sent_a_snapshot() {
    let lab = Lab::new();
    let one = lab.founder().await;
    for number in 0..20 {
        one.propose(&number.to_string()).await.unwrap();
    }
    one.node.compact().await.unwrap();
    one.propose("behind the snapshot").await.unwrap();
    // Without this the entries kept behind the snapshot would do.
    lab.crash(one).await;
    let config = RaftConfig {
        keep_entries: 0,
        ..lab.config(1, IfNew::Refuse)
    };
    let one = lab.start(config).unwrap();
    one.becomes_leader().await;
    one.node.compact().await.unwrap();

    let two = lab.join(&one, 2).await;
    assert_eq!(two.journal.texts(), one.journal.texts());
    assert_eq!(two.journal.restored.lock().len(), 1);
    assert_eq!(two.node.members().borrow().len(), 2);
    // And it has it after a restart.
    let index = one.propose("more").await.unwrap();
    two.applies(index).await;
    let before = lab.crash(two).await;
    let two = lab.start(lab.config(2, IfNew::Refuse)).unwrap();
    two.applies(index).await;
    assert_eq!(two.journal.texts(), before.texts());
}

#[tokio::test]
async fn members_are_updated_and_removed() {
    let lab = Lab::new();
    let one = lab.founder().await;
    let two = lab.join(&one, 2).await;
    let moved = RaftMember {
        addr: "10.9.9.9:2377".into(),
        ..member(2)
    };
    let index = one.node.update_member(moved.clone()).await.unwrap();
    two.applies(index).await;
    assert_eq!(two.node.members().borrow().get(2), Some(&moved));

    one.node.remove_member(2).await.unwrap();
    assert_eq!(one.node.members().borrow().len(), 1);
    let from_removed = raftpb::Message {
        from: 2,
        to: 1,
        ..Default::default()
    };
    assert_eq!(
        one.node.step(from_removed).unwrap_err().to_string(),
        "raft: member was removed from the cluster"
    );
    assert!(matches!(
        one.node.add_member(member(2)).await,
        Err(ProposeError::IdRemoved)
    ));
    assert!(matches!(
        one.node.remove_member(2).await,
        Err(ProposeError::IdNotFound)
    ));
    assert!(matches!(
        one.node.remove_member(1).await,
        Err(ProposeError::CannotRemoveMember)
    ));
    one.propose("alone again").await.unwrap();
}

#[tokio::test]
async fn leadership_can_be_handed_over() {
    let lab = Lab::new();
    let one = lab.founder().await;
    let two = lab.join(&one, 2).await;
    one.node.transfer_leadership(2);
    two.becomes_leader().await;
    one.leadership(|leadership| leadership.leader == Some(2))
        .await;
    let index = two.propose("from the second").await.unwrap();
    one.applies(index).await;
}

#[tokio::test]
async fn a_message_for_somebody_else_is_refused() {
    let lab = Lab::new();
    let one = lab.founder().await;
    let message = raftpb::Message {
        from: 3,
        to: 2,
        ..Default::default()
    };
    let error = one.node.step(message).unwrap_err().to_string();
    assert_eq!(error, "the message is for raft member 2, this is 1");
}

#[tokio::test]
async fn what_was_decided_in_an_earlier_reign_is_refused_in_a_later_one() {
    let lab = Lab::new();
    let one = lab.founder().await;
    let two = lab.join(&one, 2).await;
    let first = one.node.reign().unwrap();
    one.node.transfer_leadership(2);
    two.becomes_leader().await;
    let behind = two.propose("in between").await.unwrap();
    one.applies(behind).await;
    two.node.transfer_leadership(1);
    one.becomes_leader().await;

    let stale = one.propose_in(first, "from before").await.unwrap_err();
    assert!(matches!(stale, ProposeError::NotLeader), "{stale}");
    one.propose("afterwards").await.unwrap();
    assert_eq!(one.journal.texts(), ["in between", "afterwards"]);
}

#[tokio::test]
async fn nothing_follows_a_refused_proposal_within_its_reign() {
    let lab = Lab::new();
    let one = lab.founder().await;
    let reign = one.node.reign().unwrap();
    let large = one.node.propose(reign, vec![0; (3 << 19) + 1]);
    let next = one.node.propose(reign, b"counts on it".to_vec());
    assert!(matches!(large.await, Err(ProposeError::TooLarge)));
    assert!(matches!(next.await, Err(ProposeError::NotLeader)));
    assert_ne!(one.node.reign(), Some(reign));
    one.propose("starts anew").await.unwrap();
    assert_eq!(one.journal.texts(), ["starts anew"]);
}
