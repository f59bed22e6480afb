//! The network between the managers: what it does to a message.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng as _;
use rand::rngs::StdRng;

/// Microseconds since the simulation began.
pub(crate) type Time = u64;

pub(crate) const MILLIS: Time = 1000;
pub(crate) const SECONDS: Time = 1000 * MILLIS;

/// One direction of a connection.
pub(crate) type Link = (u64, u64);

#[derive(Default)]
pub(crate) struct Network {
    /// Directions that carry nothing.
    pub(crate) cut: BTreeSet<Link>,
    /// How likely a message is lost.
    pub(crate) loss: BTreeMap<Link, f64>,
    /// What a direction takes beside the usual.
    pub(crate) delay: BTreeMap<Link, Time>,
    /// How likely a message comes twice, or much later than those after it.
    pub(crate) disorder: f64,
}

impl Network {
    pub(crate) fn heal(&mut self) {
        *self = Self::default();
    }

    /// When copies of a message arrive, if any do.
    pub(crate) fn carry(&self, link: Link, rng: &mut StdRng) -> Vec<Time> {
        let usual = rng.random_range(200..2 * MILLIS);
        let lost = rng.random_bool(self.loss.get(&link).copied().unwrap_or(0.0));
        if self.cut.contains(&link) || lost {
            return Vec::new();
        }
        let mut arrivals = vec![usual + self.delay.get(&link).copied().unwrap_or(0)];
        if self.disorder > 0.0 && rng.random_bool(self.disorder) {
            arrivals.push(usual + rng.random_range(0..800 * MILLIS));
            if rng.random_bool(0.5) {
                arrivals.swap_remove(0);
            }
        }
        arrivals
    }

    /// Both directions between two groups.
    pub(crate) fn part(&mut self, one: &[u64], other: &[u64]) {
        for &a in one {
            for &b in other {
                self.cut.insert((a, b));
                self.cut.insert((b, a));
            }
        }
    }
}
