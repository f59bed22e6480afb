//! What signals ask of the daemon: INT and TERM end it, HUP reloads, USR1 dumps stacks.

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal's meaning.
pub(crate) enum Request {
    Stop(&'static str),
    Reload,
    DumpStacks,
}

/// The signals the daemon listens to.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    /// Takes the signals over from their default actions.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.interrupt.recv() => Request::Stop("SIGINT"),
            _ = self.terminate.recv() => Request::Stop("SIGTERM"),
            _ = self.hangup.recv() => Request::Reload,
            _ = self.user1.recv() => Request::DumpStacks,
        }
    }
}

/// Writes where every async task stands to a file in the exec root and says its name in the log.
pub(crate) async fn dump_stacks(exec_root: &Path) {
    let stamp = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let file = exec_root.join(format!("task-stacks-{stamp}.log"));
    match tokio::fs::write(&file, task_stacks().await).await {
        Ok(()) => tracing::info!(path = %file.display(), "task stacks written"),
        Err(error) => tracing::error!(%error, "can not write the task stacks"),
    }
}

#[cfg(all(tokio_unstable, any(target_arch = "x86_64", target_arch = "aarch64")))]
async fn task_stacks() -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let dump = tokio::runtime::Handle::current().dump().await;
    for (number, task) in dump.tasks().iter().enumerate() {
        let _ = writeln!(text, "task {number} ({}):\n{}\n", task.id(), task.trace());
    }
    text
}

/// Where tokio can not trace tasks (another architecture, or RUSTFLAGS of the builder's own), the
/// threads and what the kernel says of them.
#[cfg(not(all(tokio_unstable, any(target_arch = "x86_64", target_arch = "aarch64"))))]
async fn task_stacks() -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for thread in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let read =
            |name: &str| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let _ = writeln!(
            text,
            "{} in {}: {}",
            read("comm").trim(),
            read("wchan"),
            read("syscall").trim()
        );
    }
    text
}
