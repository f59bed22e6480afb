//! What a run is made of. All of it follows from the seed, unless somebody looks for something.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// A fault put in on purpose, to see that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    SyncDoesNothing,
    AcknowledgedBeforeCommitted,
    ReignIsIgnored,
    /// A writer's version is not looked at.
    StaleIndexIsTaken,
    /// The dispatcher's rule for reports is not kept.
    ReportsGoBack,
    /// A subscriber is not told of some changes.
    WatcherMissesEvents,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// To begin with; later some join and some leave.
    pub managers: u64,
    /// Simulated seconds of faults.
    pub seconds: u64,
    pub snapshot_interval: u64,
    pub keep_entries: u64,
    pub mutation: Option<Mutation>,
    /// Keep a line for everything that happens.
    pub traced: bool,
}

impl Options {
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x0b71_0e5e);
        Self {
            seed,
            managers: if rng.random_bool(0.5) { 3 } else { 5 },
            snapshot_interval: rng.random_range(8..80),
            keep_entries: rng.random_range(0..20),
            // Many short ones find more than few long ones; what takes its time has some of these.
            seconds: if rng.random_bool(0.2) { 6 } else { 2 },
            mutation: None,
            traced: false,
        }
    }
}
