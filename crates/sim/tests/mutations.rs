//! The checks are worth something only if they fail when there is something to find.

use skep_sim::{Invariant, Mutation, Options, simulate};

/// The first invariant that some seed violates with this fault put in.
fn found(mutation: Mutation) -> Option<Invariant> {
    (0..100).find_map(|seed| {
        let report = simulate(Options {
            mutation: Some(mutation),
            ..Options::of_seed(seed)
        });
        report.violation.map(|violation| violation.invariant)
    })
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    assert!(found(Mutation::SyncDoesNothing).is_some());
}

#[test]
fn an_answer_before_the_commit_is_found_out() {
    assert_eq!(
        found(Mutation::AcknowledgedBeforeCommitted),
        Some(Invariant::NoAcknowledgedWriteIsLost)
    );
}

#[test]
fn a_decision_of_an_earlier_reign_is_found_out() {
    assert!(found(Mutation::ReignIsIgnored).is_some());
}

#[test]
fn a_version_that_nobody_looks_at_is_found_out() {
    assert_eq!(
        found(Mutation::StaleIndexIsTaken),
        Some(Invariant::AStaleIndexNeverWins)
    );
}

#[test]
fn a_report_from_the_past_is_found_out() {
    assert_eq!(
        found(Mutation::ReportsGoBack),
        Some(Invariant::ObservedStateNeverGoesBack)
    );
}

#[test]
fn a_gap_before_a_watcher_is_found_out() {
    assert_eq!(
        found(Mutation::WatcherMissesEvents),
        Some(Invariant::WatchersSeeNoGapAndNoReversal)
    );
}

#[test]
fn the_same_seed_does_the_same_again() {
    let run = |seed| {
        simulate(Options {
            traced: true,
            ..Options::of_seed(seed)
        })
    };
    for seed in 0..6 {
        let (first, second) = (run(seed), run(seed));
        for (one, other) in first.trace.iter().zip(&second.trace) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first.events, second.events, "seed {seed}");
    }
}
