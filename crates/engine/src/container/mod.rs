//! One container: its record on disk and what the daemon knows about it while it lives.
//!
//! Two locks. `record` is held for moments, never across an await; everything that is shown is
//! read under it. `operation` is held for as long as one change of the container's life takes
//! (start, stop's end, removal, the exit path), so that they never overlap.

mod attachments;
mod record;
mod registry;
mod state;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use skep_runtime::Shim;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use attachments::{Attachments, pending_attach};
pub(crate) use record::{Record, Security};
pub(crate) use registry::Registry;
pub(crate) use state::{Health, HealthStatus, Phase, State};

use crate::error::{EngineError, Result};
use crate::exec::ExecInstance;
use crate::persist::write_atomically;
use crate::restart::RestartTracker;

/// What waiters look at. Every change of it is a new version of the watch channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Ends that were final: not followed by a restart of the policy's.
    pub(crate) exits: u64,
    /// All ends, restarts included.
    pub(crate) ends: u64,
    /// Times it was started.
    pub(crate) starts: u64,
    pub(crate) running: bool,
    pub(crate) exit_code: i32,
    pub(crate) error: String,
    pub(crate) removed: bool,
}

/// A container.
pub(crate) struct Container {
    pub(crate) id: String,
    /// `<data-root>/containers/<id>`.
    pub(crate) dir: PathBuf,
    pub(crate) operation: Arc<tokio::sync::Mutex<()>>,
    pub(crate) progress: watch::Sender<Progress>,
    record: Mutex<Record>,
    live: Mutex<Live>,
}

/// What is not kept on disk.
#[derive(Default)]
pub(crate) struct Live {
    pub(crate) shim: Option<Shim>,
    /// Attached before it started.
    pub(crate) attachments: Attachments,
    pub(crate) execs: HashMap<String, Arc<ExecInstance>>,
    pub(crate) restarts: RestartTracker,
    /// Ends the wait of a restart policy's back-off.
    pub(crate) restart_wait: Option<CancellationToken>,
    /// Ends the health checks of the current run.
    pub(crate) health: Option<CancellationToken>,
    /// The stop of a `docker restart`: neither the policy nor auto-remove may act on it.
    pub(crate) restarting_by_hand: bool,
    /// Console size for the next start.
    pub(crate) console_size: Option<(u16, u16)>,
}

impl Container {
    pub(crate) fn new(record: Record, dir: PathBuf) -> Self {
        let progress = Progress {
            running: record.state.is_running(),
            exit_code: record.state.exit_code,
            error: record.state.error.clone(),
            ..Progress::default()
        };
        let live = Live {
            restarts: RestartTracker::counted(record.restart_count),
            ..Live::default()
        };
        Self {
            id: record.id.clone(),
            dir,
            operation: Arc::default(),
            progress: watch::channel(progress).0,
            record: Mutex::new(record),
            live: Mutex::new(live),
        }
    }

    /// The record, for a moment.
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock()
    }

    /// What is not on disk, for a moment.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock()
    }

    /// The running container's shim.
    pub(crate) fn shim(&self) -> Result<Shim> {
        if !self.record().state.is_up() {
            return Err(self.not_running());
        }
        self.live().shim.clone().ok_or_else(|| self.not_running())
    }

    pub(crate) fn not_running(&self) -> EngineError {
        EngineError::conflict(format!("container {} is not running", self.id))
    }

    /// Where the shim keeps `config.json` and `exit.json`.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    /// The current log file, if the driver keeps one.
    pub(crate) fn log_path(&self) -> PathBuf {
        match self.record().log_driver() {
            "local" => self.dir.join("local-logs").join("container.log"),
            _ => self.dir.join(format!("{}-json.log", self.id)),
        }
    }

    /// Writes the record. A power cut ends all containers. Those that are removed when they end and
    /// those of the swarm's tasks, which are never started a second time, need not survive it; the
    /// others are flushed to disk.
    pub(crate) fn save(&self) -> Result<()> {
        let (bytes, durable) = {
            let record = self.record();
            let bytes = serde_json::to_vec(&*record)
                .map_err(|error| EngineError::from_source("encode container record", &error))?;
            let once = record.host_config.auto_remove == Some(true)
                || record.labels().contains_key("com.docker.swarm.task.id");
            (bytes, !once)
        };
        write_atomically(&self.dir.join("config.json"), &bytes, durable)
            .map_err(|error| EngineError::from_source("write container record", &error))
    }

    /// As [`Self::save`], for where a failure cannot be reported to anybody.
    pub(crate) fn save_or_log(&self) {
        if let Err(error) = self.save() {
            tracing::error!(container.id = %self.id, %error, "container state not saved");
        }
    }

    /// Tells waiters what the record says now.
    pub(crate) fn announce(&self, change: impl FnOnce(&mut Progress)) {
        let (running, exit_code, error) = {
            let record = self.record();
            (
                record.state.is_running(),
                record.state.exit_code,
                record.state.error.clone(),
            )
        };
        self.progress.send_modify(|progress| {
            progress.running = running;
            progress.exit_code = exit_code;
            progress.error = error;
            change(progress);
        });
    }
}
