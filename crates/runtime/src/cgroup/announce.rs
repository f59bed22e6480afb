//! Telling the kernel that a process will join a cgroup soon.
//!
//! Joining takes a lock that every fork and exit of the machine reads without cost. The first writer
//! after a pause has to wait until all processors have noticed that there are writers again, 10 ms and
//! more; those who come shortly after it do not. libcontainer's process would wait in the middle of
//! making a container, so somebody else waits beforehand, while there are other things to do.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::locate;

/// The kernel keeps the lock in the fast state for about as long as it took to get there.
const FRESH: Duration = Duration::from_millis(4);

static LAST: Mutex<Option<Instant>> = Mutex::new(None);
static OWN: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Call it when a container or an exec is about to be made; it waits for nothing. Only the time is at
/// stake, so there are no errors.
pub fn announce_join() {
    {
        let mut last = LAST.lock();
        if last.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        *last = Some(Instant::now());
    }
    tokio::task::spawn_blocking(|| {
        let own = OWN.get_or_init(|| locate::own_processes().ok().flatten());
        if let Some(path) = own {
            // Joins where this process is already: it takes the lock and changes nothing.
            let _ = std::fs::write(path, "0");
        }
    });
}
