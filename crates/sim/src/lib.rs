//! Several managers in one process, from one seed: the production raft member, log format and store
//! over a simulated disk and a simulated network, and invariants that are checked all along.
//!
//! ```text
//!  seed ──► World: one queue of events, one clock, one source of chance
//!            ├── Network: parts, loses, delays, repeats, reorders
//!            ├── Manager × n: SimDisk ◄─ RaftNode + Driver (no thread) ─► Store ─► Watcher
//!            ├── clients and agents, faults, changes of the membership
//!            └── Ledger: what was acknowledged, refused, committed ─► Invariant violated?
//! ```
//!
//! The same seed does the same again, to the event: time, chance and threads are the simulation's. A
//! seed that fails prints the command that replays it.
//!
//! Deliberately not here: TLS, gRPC and sockets (the end-to-end tests have them), containers.

mod client;
mod disk;
mod faults;
mod ledger;
mod manager;
mod mutation;
mod network;
mod options;
mod watcher;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use disk::{Ending, SimDisk};
pub use ledger::{Invariant, Violation};
pub use options::{Mutation, Options};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub events: u64,
    pub acknowledged: usize,
    pub refused: usize,
    /// Writes whose clients were not told how they ended.
    pub unknown: u64,
    pub violation: Option<Violation>,
    /// What happened, if it was to be kept.
    pub trace: Vec<String>,
}

/// One run, from beginning to end.
pub fn simulate(options: Options) -> Report {
    let seed = options.seed;
    let mut world = world::World::new(options);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Tokio draws lots when several wait for the same.
    #[cfg(tokio_unstable)]
    runtime.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = runtime
        .build()
        .expect("a runtime without IO needs nothing of the machine");
    let ran = catch_unwind(AssertUnwindSafe(|| runtime.block_on(world.run())));
    let result = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Violation {
            invariant: Invariant::NobodyPanics,
            what: text.unwrap_or("a panic without words").to_owned(),
        })
    });
    let (events, ledger) = world.finish();
    let (acknowledged, refused, unknown) = ledger.count();
    Report {
        seed,
        events,
        acknowledged,
        refused,
        unknown,
        violation: result.err(),
        trace: ledger.trace(),
    }
}
