//! `docker logs`.

use std::sync::Arc;

use futures::StreamExt as _;
use tokio::sync::{Notify, mpsc};

use super::{Entry, ReadOptions, read};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::types::{LogOptions, LogStream, StdStream};

impl Engine {
    /// A container's log; with `follow` until the container stops.
    pub async fn logs_container(&self, id: &str, options: LogOptions) -> Result<LogStream> {
        if !options.stdout && !options.stderr {
            return Err(EngineError::invalid("You must choose at least one stream"));
        }
        let container = self.containers.get(id)?;
        let tty = container.record().tty();
        let entries = Self::log_entries(&container, &options)?;
        let (stdout, stderr) = (options.stdout, options.stderr);
        let stream = futures::stream::unfold(entries, |mut entries| async move {
            entries.recv().await.map(|entry| (entry, entries))
        });
        let frames = stream.filter_map(move |entry| async move {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(EngineError::from_source("read log", &error))),
            };
            let wanted = match entry.stream {
                StdStream::Stdout => stdout,
                StdStream::Stderr => stderr,
            };
            wanted.then(|| Ok(entry.render(options.timestamps, options.details)))
        });
        Ok(LogStream {
            tty,
            frames: frames.boxed(),
        })
    }

    /// The raw entries, for the log of a task too.
    pub(crate) fn log_entries(
        container: &Arc<Container>,
        options: &LogOptions,
    ) -> Result<mpsc::Receiver<std::io::Result<Entry>>> {
        if container.record().log_driver() == "none" {
            return Err(EngineError::not_implemented(
                "configured logging driver does not support reading",
            ));
        }
        let read_options = ReadOptions {
            since: options.since,
            until: options.until,
            tail: options.tail,
        };
        // A container that is not there to follow has its whole log on disk.
        let follow = options.follow && container.record().state.is_running();
        let (running, wake) = if follow {
            let wake = Arc::new(Notify::new());
            let mut progress = container.progress.subscribe();
            let notify = Arc::downgrade(&wake);
            tokio::spawn(async move {
                // Ends with the reader, whose end drops the notify, or with the container.
                while progress.changed().await.is_ok() {
                    let Some(notify) = notify.upgrade() else {
                        return;
                    };
                    notify.notify_one();
                }
            });
            let observer = container.progress.subscribe();
            let running: Box<dyn Fn() -> bool + Send> = Box::new(move || {
                let now = observer.borrow();
                now.running && !now.removed
            });
            (Some(running), Some(wake))
        } else {
            (None, None)
        };
        Ok(read(container.log_path(), read_options, running, wake)?)
    }
}
