//! Many seeds. `SKEP_SIM_SEEDS` and `SKEP_SIM_FROM` say how many and which; `cargo xtask sim` sets
//! them.

use skep_sim::{Options, simulate};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// The seeds are divided among several tests, which run side by side.
const PARTS: u64 = 4;

fn run_part(part: u64) {
    let (from, seeds) = (number("SKEP_SIM_FROM", 0), number("SKEP_SIM_SEEDS", 200));
    let mut failed = Vec::new();
    let (mut runs, mut events, mut acknowledged) = (0, 0, 0);
    for seed in (from..from + seeds).filter(|seed| (seed - from) % PARTS == part) {
        let report = simulate(Options {
            traced: seeds == 1,
            ..Options::of_seed(seed)
        });
        for line in &report.trace {
            eprintln!("{line}");
        }
        runs += 1;
        events += report.events;
        acknowledged += report.acknowledged;
        if let Some(violation) = report.violation {
            eprintln!(
                "seed {seed} violates «{}»: {}\nreplay it: cargo xtask sim --seeds 1 --from {seed}",
                violation.invariant, violation.what
            );
            failed.push(seed);
        }
    }
    eprintln!("{runs} seeds, {events} events, {acknowledged} acknowledged writes");
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
}

/// Each found a fault once. They may come to mean other things when the simulation changes.
const FOUND_SOMETHING: &[u64] = &[
    // A leader that was removed while it wrote what came behind its removal: raft panicked.
    173,
];

#[test]
fn seeds_that_found_something_find_nothing_any_more() {
    for &seed in FOUND_SOMETHING {
        let violation = simulate(Options::of_seed(seed)).violation;
        assert!(violation.is_none(), "seed {seed}: {violation:?}");
    }
}

#[test]
fn no_seed_violates_an_invariant_part_one() {
    run_part(0);
}

#[test]
fn no_seed_violates_an_invariant_part_two() {
    run_part(1);
}

#[test]
fn no_seed_violates_an_invariant_part_three() {
    run_part(2);
}

#[test]
fn no_seed_violates_an_invariant_part_four() {
    run_part(3);
}
