//! The managers that a node knows, and how good its experience with each was.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use skep_proto as proto;
use tokio::sync::watch;

/// SwarmKit's weight of one experience.
const EXPERIENCE: f64 = 10.0;
const MAX_WEIGHT: f64 = 256.0;
/// An experience counts as much as all before it.
const SMOOTHING: f64 = 0.5;
/// Managers of no weight are still tried at times: otherwise the first of them always would be.
const BIAS: f64 = 0.001;

/// A manager: the address alone until the managers have told who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remote {
    pub node_id: String,
    pub addr: String,
}

/// The managers by weight. What is told here of one is never forgotten at once, so that a node keeps
/// to a manager that served it well.
#[derive(Debug)]
pub struct Remotes {
    weights: Mutex<BTreeMap<Remote, f64>>,
    changed: watch::Sender<()>,
}

impl Remotes {
    pub fn new(remotes: impl IntoIterator<Item = Remote>) -> Self {
        let first = SMOOTHING * EXPERIENCE;
        let weights = remotes.into_iter().map(|remote| (remote, first)).collect();
        Self {
            weights: Mutex::new(weights),
            changed: watch::Sender::default(),
        }
    }

    pub fn of_addrs<S: Into<String>>(addrs: impl IntoIterator<Item = S>) -> Self {
        Self::new(addrs.into_iter().map(|addr| Remote {
            node_id: String::new(),
            addr: addr.into(),
        }))
    }

    /// All of them, to be kept over a restart.
    pub fn list(&self) -> Vec<Remote> {
        self.weights.lock().keys().cloned().collect()
    }

    /// When [`Self::list`] changes.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// One of them by chance, the better the likelier. `avoid` is an address that was tried already:
    /// another is taken if there is one.
    pub fn select(&self, avoid: Option<&str>) -> Option<Remote> {
        let weights = self.weights.lock();
        let others = weights
            .iter()
            .filter(|(remote, _)| Some(remote.addr.as_str()) != avoid);
        let candidates: Vec<_> = others.collect();
        let candidates = if candidates.is_empty() {
            weights.iter().collect()
        } else {
            candidates
        };
        let share = |weight: f64| weight.max(0.0) + BIAS;
        let total: f64 = candidates.iter().map(|(_, weight)| share(**weight)).sum();
        let mut point = rand::random::<f64>() * total;
        for (remote, weight) in &candidates {
            point -= share(**weight);
            if point <= 0.0 {
                return Some((*remote).clone());
            }
        }
        candidates.last().map(|(remote, _)| (*remote).clone())
    }

    /// Notes a good or bad experience, unless the manager has been removed from the list meanwhile.
    pub fn observe(&self, remote: &Remote, good: bool) {
        let experience = if good { EXPERIENCE } else { -EXPERIENCE };
        if let Some(weight) = self.weights.lock().get_mut(remote) {
            *weight = smooth(*weight, experience);
        }
    }

    /// Takes over the managers' own list.
    pub fn replace(&self, managers: &[proto::WeightedPeer]) {
        if managers.is_empty() {
            return;
        }
        let mut weights = self.weights.lock();
        let listed: BTreeMap<Remote, f64> = managers
            .iter()
            .filter_map(|manager| {
                let peer = manager.peer.as_ref()?;
                let remote = Remote {
                    node_id: peer.node_id.clone(),
                    addr: peer.addr.clone(),
                };
                let known = weights.get(&remote).copied().unwrap_or(0.0);
                Some((remote, smooth(known, manager.weight as f64)))
            })
            .collect();
        let is_news = !listed.keys().eq(weights.keys());
        *weights = listed;
        drop(weights);
        if is_news {
            self.changed.send_replace(());
        }
    }
}

fn smooth(weight: f64, experience: f64) -> f64 {
    let clip = |weight: f64| weight.clamp(-MAX_WEIGHT, MAX_WEIGHT);
    clip(SMOOTHING * clip(experience) + (1.0 - SMOOTHING) * weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(addr: &str) -> Remote {
        Remote {
            node_id: String::new(),
            addr: addr.into(),
        }
    }

    #[test]
    fn keeps_to_the_manager_that_served_well() {
        let remotes = Remotes::of_addrs(["a:1", "b:1"]);
        for _ in 0..5 {
            remotes.observe(&remote("a:1"), true);
            remotes.observe(&remote("b:1"), false);
        }
        let picked = (0..200)
            .filter(|_| remotes.select(None) == Some(remote("a:1")))
            .count();
        assert!(picked > 190, "{picked}");
        assert_eq!(remotes.select(Some("a:1")), Some(remote("b:1")));
    }

    #[test]
    fn the_only_manager_is_tried_again_and_none_is_none() {
        let remotes = Remotes::of_addrs(["a:1"]);
        assert_eq!(remotes.select(Some("a:1")), Some(remote("a:1")));
        assert_eq!(Remotes::new([]).select(None), None);
    }

    #[test]
    fn the_managers_own_list_replaces_what_was_known_and_an_empty_one_does_not() {
        let remotes = Remotes::of_addrs(["a:1"]);
        let mut changed = remotes.subscribe();
        let manager = |id: &str, addr: &str| proto::WeightedPeer {
            peer: Some(proto::Peer {
                node_id: id.into(),
                addr: addr.into(),
            }),
            weight: 10,
        };
        let list = [manager("m1", "a:1"), manager("m2", "b:1")];
        remotes.replace(&list);
        assert!(changed.has_changed().unwrap());
        changed.mark_unchanged();
        let ids = |remotes: &Remotes| {
            remotes
                .list()
                .into_iter()
                .map(|r| r.node_id)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&remotes), ["m1", "m2"]);
        remotes.replace(&[]);
        remotes.replace(&list);
        assert!(!changed.has_changed().unwrap(), "nothing new");
        assert_eq!(ids(&remotes), ["m1", "m2"]);
    }
}
