//! Which nodes have a session, and until when they must be heard of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use skep_model::{NodeId, defaults, id};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How often nodes are to be heard of, and how long one may be silent.
///
/// SwarmKit's default, five seconds and three of them, leaves a dead node's tasks dead for up to
/// fifteen. Nobody chose it, so where it stands we ask for a heartbeat each second and give a node
/// up after four. The agent goes by the period it is told in each answer, dockerd's too. A period
/// that somebody chose is kept as it is, with SwarmKit's grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rhythm {
    /// Before the spread that keeps nodes from calling all at once.
    period: Duration,
    spread: Duration,
    /// Of silence, until a registered node is down.
    patience: Duration,
    /// The same for a node that a new leader has not heard of yet.
    first_patience: Duration,
}

impl Rhythm {
    pub(super) fn new(period: Duration) -> Self {
        if period == defaults::HEARTBEAT_PERIOD {
            return Self {
                period: Duration::from_secs(1),
                spread: Duration::from_millis(100),
                patience: Duration::from_secs(4),
                // An agent that has lost its manager may wait eight seconds before it tries again.
                first_patience: Duration::from_secs(15),
            };
        }
        Self {
            period,
            spread: defaults::HEARTBEAT_EPSILON.min(period / 2),
            patience: period * 3,
            first_patience: period * 6,
        }
    }

    fn choose(self) -> Duration {
        let spread = rand::rng().random_range(Duration::ZERO..=self.spread * 2);
        self.period.saturating_sub(self.spread) + spread
    }
}

const RATE_LIMIT_PERIOD: Duration = Duration::from_secs(8);
const RATE_LIMIT_COUNT: u32 = 3;

/// One node's registration with this dispatcher.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) node_id: NodeId,
    ended: CancellationToken,
}

impl Session {
    /// Resolves when the node has registered anew or was given up.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// What is due when a deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// A registered node must have sent a heartbeat.
    Heartbeat,
    /// A node of the last leader's time must have registered.
    Registration,
    /// A node is down for so long that its tasks are given up.
    Orphan,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    state: Mutex<State>,
    /// The first deadline may have changed.
    rescheduled: Notify,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<NodeId, Entry>,
    deadlines: BTreeSet<(Instant, NodeId)>,
}

#[derive(Debug)]
struct Entry {
    session: Option<Arc<Session>>,
    deadline: Option<(Instant, Deadline)>,
    registered_at: Instant,
    attempts: u32,
}

impl Sessions {
    /// The session of that id, if it is the node's current one.
    pub(super) fn get(&self, node: &NodeId, id: &str) -> Result<Arc<Session>, Status> {
        let state = self.state.lock();
        let session = state
            .nodes
            .get(node)
            .and_then(|entry| entry.session.clone());
        let session = session.ok_or_else(|| Status::not_found("node not registered"))?;
        if id.is_empty() || session.id != id {
            return Err(Status::invalid_argument("session invalid"));
        }
        Ok(session)
    }

    /// Refuses nodes that register over and over.
    pub(super) fn check_rate(&self, node: &NodeId) -> Result<(), Status> {
        let mut state = self.state.lock();
        let Some(entry) = state
            .nodes
            .get_mut(node)
            .filter(|entry| entry.session.is_some())
        else {
            return Ok(());
        };
        if entry.registered_at.elapsed() > RATE_LIMIT_PERIOD {
            entry.attempts = 0;
        }
        entry.attempts += 1;
        if entry.attempts > RATE_LIMIT_COUNT {
            return Err(Status::unavailable(format!(
                "node {node} exceeded rate limit count of registrations"
            )));
        }
        entry.registered_at = Instant::now();
        Ok(())
    }

    /// Gives the node a new session; one that it had ends.
    pub(super) fn register(&self, node: &NodeId, rhythm: Rhythm) -> Arc<Session> {
        let session = Arc::new(Session {
            id: id::random_text(),
            node_id: node.clone(),
            ended: CancellationToken::new(),
        });
        let mut state = self.state.lock();
        let entry = state.entry(node);
        if let Some(old) = entry.session.replace(Arc::clone(&session)) {
            old.ended.cancel();
        }
        state.set_deadline(node, Instant::now() + rhythm.patience, Deadline::Heartbeat);
        self.rescheduled.notify_one();
        session
    }

    /// Notes a heartbeat; returns how long the node may take for the next.
    pub(super) fn beat(&self, session: &Session, rhythm: Rhythm) -> Duration {
        let mut state = self.state.lock();
        // A session that ended meanwhile must not be prolonged.
        if !session.ended.is_cancelled() {
            let at = Instant::now() + rhythm.patience;
            state.set_deadline(&session.node_id, at, Deadline::Heartbeat);
        }
        rhythm.choose()
    }

    /// A node of which the last leader may have heard more than we.
    pub(super) fn expect_registration(&self, node: &NodeId, rhythm: Rhythm) {
        let at = Instant::now() + rhythm.first_patience;
        self.state
            .lock()
            .set_deadline(node, at, Deadline::Registration);
        self.rescheduled.notify_one();
    }

    /// A node that is down.
    pub(super) fn expect_orphans(&self, node: &NodeId) {
        let at = Instant::now() + defaults::NODE_DOWN_PERIOD;
        self.state.lock().set_deadline(node, at, Deadline::Orphan);
        self.rescheduled.notify_one();
    }

    /// Waits for the next nodes that were not heard of in time. Their sessions end.
    pub(super) async fn next_expired(&self) -> Vec<(NodeId, Deadline)> {
        loop {
            let first = self.state.lock().deadlines.first().map(|(at, _)| *at);
            match first {
                None => self.rescheduled.notified().await,
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.rescheduled.notified() => {}
                },
            }
            let expired = self.state.lock().take_expired(Instant::now());
            if !expired.is_empty() {
                return expired;
            }
        }
    }
}

impl State {
    fn entry(&mut self, node: &NodeId) -> &mut Entry {
        self.nodes.entry(node.clone()).or_insert_with(|| Entry {
            session: None,
            deadline: None,
            registered_at: Instant::now(),
            attempts: 0,
        })
    }

    fn set_deadline(&mut self, node: &NodeId, at: Instant, deadline: Deadline) {
        let old = self.entry(node).deadline.replace((at, deadline));
        if let Some((old, _)) = old {
            self.deadlines.remove(&(old, node.clone()));
        }
        self.deadlines.insert((at, node.clone()));
    }

    fn take_expired(&mut self, now: Instant) -> Vec<(NodeId, Deadline)> {
        let mut expired = Vec::new();
        while let Some((at, _)) = self.deadlines.first() {
            if *at > now {
                break;
            }
            let Some((_, node)) = self.deadlines.pop_first() else {
                break;
            };
            let Some(entry) = self.nodes.get_mut(&node) else {
                continue;
            };
            if let Some(session) = entry.session.take() {
                session.ended.cancel();
            }
            if let Some((_, deadline)) = entry.deadline.take() {
                expired.push((node, deadline));
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a user chose it.
    fn chosen() -> Rhythm {
        Rhythm::new(Duration::from_secs(10))
    }

    fn node() -> NodeId {
        "n".into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_expires_after_three_periods() {
        let sessions = Sessions::default();
        let session = sessions.register(&node(), chosen());
        let start = Instant::now();
        assert_eq!(
            sessions.next_expired().await,
            [(node(), Deadline::Heartbeat)]
        );
        let waited = start.elapsed();
        assert_eq!(waited.as_secs(), 30);
        session.ended().await;
        assert!(sessions.get(&node(), &session.id).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_chose_a_period_silence_is_noticed_within_four_seconds() {
        let sessions = Sessions::default();
        let rhythm = Rhythm::new(defaults::HEARTBEAT_PERIOD);
        let session = sessions.register(&node(), rhythm);
        let period = sessions.beat(&session, rhythm);
        assert!((900..=1100).contains(&period.as_millis()), "{period:?}");
        let start = Instant::now();
        sessions.next_expired().await;
        assert_eq!(start.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_keep_the_session() {
        let sessions = Sessions::default();
        let session = sessions.register(&node(), chosen());
        for _ in 0..10 {
            let period = sessions.beat(&session, chosen());
            tokio::select! {
                expired = sessions.next_expired() => panic!("{expired:?}"),
                () = tokio::time::sleep(period) => {}
            }
        }
        sessions.get(&node(), &session.id).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn registering_again_ends_the_session_before() {
        let sessions = Sessions::default();
        let first = sessions.register(&node(), chosen());
        let second = sessions.register(&node(), chosen());
        first.ended().await;
        assert_eq!(
            sessions.get(&node(), &first.id).unwrap_err().message(),
            "session invalid"
        );
        sessions.get(&node(), &second.id).unwrap();
        sessions.beat(&first, chosen());
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_three_registrations_in_eight_seconds_are_refused() {
        let sessions = Sessions::default();
        sessions.register(&node(), chosen());
        for _ in 0..3 {
            sessions.check_rate(&node()).unwrap();
        }
        assert_eq!(
            sessions.check_rate(&node()).unwrap_err().message(),
            "node n exceeded rate limit count of registrations"
        );
        tokio::time::advance(Duration::from_secs(9)).await;
        sessions.check_rate(&node()).unwrap();
    }
}
