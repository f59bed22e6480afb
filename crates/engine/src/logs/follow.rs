//! Waking a log reader: inotify on the log's directory, and the container's stop.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify;
use tokio::sync::{Notify, mpsc};

use super::entry::Entry;
use super::reader::directory;

/// Wakes up when the log changes, when the container stops, or when the client left.
pub(super) struct Changes {
    watch: rustix::fd::OwnedFd,
    stopped: Arc<rustix::fd::OwnedFd>,
    running: Box<dyn Fn() -> bool + Send>,
    waker: Option<tokio::task::JoinHandle<()>>,
}

impl Changes {
    /// Watches from now on: whatever is written after this returns wakes the reader.
    pub(super) fn watch(
        current: &Path,
        running: Box<dyn Fn() -> bool + Send>,
        wake: Option<Arc<Notify>>,
    ) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let interest = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&watch, directory(current), interest)?;
        let stopped = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let waker = wake.map(|wake| {
            let stopped = stopped.clone();
            tokio::spawn(async move {
                loop {
                    wake.notified().await;
                    let _ = rustix::io::write(&*stopped, &1_u64.to_ne_bytes());
                }
            })
        });
        Ok(Self {
            watch,
            stopped,
            running,
            waker,
        })
    }

    pub(super) fn running(&self) -> bool {
        (self.running)()
    }

    /// Sleeps until something may have changed. The second's limit only serves to notice a
    /// client that left.
    pub(super) fn wait(&mut self, sender: &mpsc::Sender<io::Result<Entry>>) -> io::Result<()> {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.watch.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.stopped.as_fd(), PollFlags::IN),
            ];
            match poll(
                &mut fds,
                Some(&Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                }),
            ) {
                Ok(0) => {
                    if sender.is_closed() || !self.running() {
                        return Ok(());
                    }
                }
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.watch, &mut buffer).is_ok_and(|read| read > 0) {}
        let _ = rustix::io::read(&*self.stopped, &mut buffer);
        Ok(())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.abort();
        }
    }
}
