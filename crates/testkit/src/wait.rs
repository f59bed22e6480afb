//! Waiting on a predicate, with a bound.

use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until `probe` answers `Ok`, for 20 s at most.
///
/// # Panics
/// With the last `Err` when the bound is reached.
#[track_caller]
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(BOUND, what, probe)
}

/// [`eventually`] with another bound.
#[track_caller]
pub fn eventually_within<T>(
    bound: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, String>,
) -> T {
    let started = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if started.elapsed() > bound => {
                panic!("not within {bound:?}: {what}; last seen:\n{last}")
            }
            // A pause between two looks at another process's state, not a wait for it.
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
