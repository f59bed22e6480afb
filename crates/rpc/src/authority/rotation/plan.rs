//! Which nodes are to be asked for a new certificate, and when all have one.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_ca::{CaError, IssuerInfo};
use skep_manager::issuing_root;
use skep_model::ext::NodeExt as _;
use skep_proto as proto;
use skep_proto::issuance_status::State;
use tokio::time::Instant;

/// SwarmKit's limit.
const BATCH: usize = 30;
/// A node that was asked renews its certificate and tells of it in a new session. One that has not
/// done so by then (it may have been renewing when the rotation began) is asked again.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All nodes have certificates of the next root.
    Finish,
    /// These are to be asked now.
    Ask(Vec<String>),
    /// The others have been asked; until this time only their answers matter.
    Wait(Option<Instant>),
}

/// A rotation on its way.
pub(super) struct Rotation {
    pub(super) root: proto::RootCa,
    next: IssuerInfo,
    /// The nodes that have been asked, by whichever leader, as this one has seen it.
    asked: BTreeMap<String, Instant>,
}

impl Rotation {
    pub(super) fn new(root: proto::RootCa) -> Result<Self, CaError> {
        let next = String::from_utf8_lossy(issuing_root(&root)).into_owned();
        Ok(Self {
            next: IssuerInfo::of_root(&next)?,
            root,
            asked: BTreeMap::new(),
        })
    }

    /// Whether the cluster is still being moved to the same root.
    pub(super) fn is_to(&self, root: &proto::RootCa) -> bool {
        is_same(root, &self.root)
    }

    pub(super) fn step<'a>(
        &mut self,
        nodes: impl Iterator<Item = &'a proto::Node>,
        now: Instant,
    ) -> Step {
        let mut lagging = nodes.filter(|node| !is_of(node, &self.next)).peekable();
        if lagging.peek().is_none() {
            return Step::Finish;
        }
        let (mut batch, mut wake_at) = (Vec::new(), None);
        for node in lagging {
            let asked = self.asked.get(&node.id).copied();
            let due = asked.map(|asked| asked + PATIENCE);
            if due.is_some_and(|due| due > now) {
                wake_at = wake_at.min(due).or(due);
            } else if may_be_asked(node) && batch.len() < BATCH {
                batch.push(node.id.clone());
            }
        }
        self.asked.extend(batch.iter().map(|id| (id.clone(), now)));
        if batch.is_empty() {
            Step::Wait(wake_at)
        } else {
            Step::Ask(batch)
        }
    }
}

/// Join tokens may change while the root does.
pub(super) fn is_same(a: &proto::RootCa, b: &proto::RootCa) -> bool {
    (&a.ca_cert, &a.ca_key, &a.root_rotation) == (&b.ca_cert, &b.ca_key, &b.root_rotation)
}

/// Whether the node says that its certificate is of this authority.
fn is_of(node: &proto::Node, authority: &IssuerInfo) -> bool {
    let description = node.description.as_ref();
    let info = description.and_then(|description| description.tls_info.as_ref());
    info.is_some_and(|info| {
        info.cert_issuer_subject == authority.subject
            && info.cert_issuer_public_key == authority.public_key
    })
}

/// A node that is getting a certificate, or was asked to, must not be disturbed.
pub(super) fn may_be_asked(node: &proto::Node) -> bool {
    let status = node.certificate().status.as_ref();
    let state = status.map_or(State::Unknown, proto::IssuanceStatus::state);
    !matches!(state, State::Renew | State::Pending | State::Rotate)
}

#[cfg(test)]
mod tests {
    use skep_ca::RootCa;
    use time::OffsetDateTime;

    use super::*;

    fn rotation() -> (Rotation, IssuerInfo) {
        let [old, new] = [(); 2].map(|()| RootCa::generate(OffsetDateTime::now_utc()).unwrap());
        let root = proto::RootCa {
            ca_cert: old.certificate_pem().into(),
            root_rotation: Some(proto::RootRotation {
                ca_cert: new.certificate_pem().into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        (Rotation::new(root).unwrap(), new.issuer_info().unwrap())
    }

    fn node(id: usize, state: State, issuer: Option<&IssuerInfo>) -> proto::Node {
        let tls_info = issuer.map(|issuer| proto::NodeTlsInfo {
            cert_issuer_subject: issuer.subject.clone(),
            cert_issuer_public_key: issuer.public_key.clone(),
            ..Default::default()
        });
        proto::Node {
            id: format!("n{id:03}"),
            description: Some(proto::NodeDescription {
                tls_info,
                ..Default::default()
            }),
            certificate: Some(proto::Certificate {
                status: Some(proto::IssuanceStatus {
                    state: state.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn nodes_are_asked_in_batches_and_each_once() {
        let (mut rotation, _) = rotation();
        let nodes: Vec<_> = (0..40).map(|id| node(id, State::Issued, None)).collect();
        let now = Instant::now();
        let Step::Ask(first) = rotation.step(nodes.iter(), now) else {
            panic!("somebody has to be asked");
        };
        let Step::Ask(second) = rotation.step(nodes.iter(), now) else {
            panic!("the others have to be asked");
        };
        assert_eq!((first.len(), second.len()), (30, 10));
        assert!(first.iter().all(|id| !second.contains(id)));
        let again = now + PATIENCE;
        assert_eq!(rotation.step(nodes.iter(), now), Step::Wait(Some(again)));
        assert!(matches!(rotation.step(nodes.iter(), again), Step::Ask(_)));
    }

    #[test]
    fn a_node_that_is_getting_a_certificate_is_left_alone() {
        let (mut rotation, _) = rotation();
        let states = [State::Renew, State::Pending, State::Rotate];
        let nodes = states.map(|state| node(state as usize, state, None));
        let step = rotation.step(nodes.iter(), Instant::now());
        assert_eq!(step, Step::Wait(None));
    }

    #[test]
    fn the_rotation_is_through_when_every_node_says_so() {
        let (mut rotation, issuer) = rotation();
        let mut nodes = [
            node(1, State::Issued, Some(&issuer)),
            node(2, State::Issued, None),
        ];
        let now = Instant::now();
        let step = rotation.step(nodes.iter(), now);
        assert_eq!(step, Step::Ask(vec!["n002".into()]));
        nodes[1] = node(2, State::Issued, Some(&issuer));
        assert_eq!(rotation.step(nodes.iter(), now), Step::Finish);
        assert_eq!(rotation.step(std::iter::empty(), now), Step::Finish);
    }
}
