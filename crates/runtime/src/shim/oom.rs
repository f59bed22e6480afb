//! Notices when the kernel kills for want of memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use crate::cgroup::{Cgroup, CgroupVersion};

/// Readable after each such event.
pub(super) enum OomWatch {
    V1(EventFd),
    V2(OwnedFd),
}

impl OomWatch {
    pub(super) fn new(cgroup: &Cgroup) -> io::Result<Self> {
        let directory = cgroup.directory("memory").ok_or(io::ErrorKind::NotFound)?;
        match cgroup.version {
            CgroupVersion::V1 => {
                let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
                let control = File::open(directory.join("memory.oom_control"))?;
                let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
                std::fs::write(directory.join("cgroup.event_control"), line)?;
                Ok(Self::V1(event))
            }
            CgroupVersion::V2 => {
                let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
                add_watch(
                    &inotify,
                    directory.join("memory.events"),
                    WatchFlags::MODIFY,
                )?;
                Ok(Self::V2(inotify))
            }
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::V1(event) => event.as_fd(),
            Self::V2(inotify) => inotify.as_fd(),
        }
    }

    pub(super) fn acknowledge(&self) {
        // Nothing to read is no harm: the counter is what counts.
        match self {
            Self::V1(event) => drop(event.read()),
            Self::V2(inotify) => drop(rustix::io::read(inotify, &mut [0; 512])),
        }
    }
}
