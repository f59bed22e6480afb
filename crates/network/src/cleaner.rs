//! Removing interfaces off the path of whoever waits for a container to be gone.
//!
//! The kernel takes tens of milliseconds to unregister an interface, mostly waiting for other
//! processors. When a container is released its namespace goes, and with it the interfaces in it,
//! but only once nobody else holds the namespace; so each is also removed by name, here.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use skep_netlink::{NetlinkError, RouteSocket};

/// A thread that removes interfaces, one after the other.
#[derive(Debug)]
pub(crate) struct Cleaner {
    work: Mutex<Option<(mpsc::Sender<String>, JoinHandle<()>)>>,
}

impl Cleaner {
    /// `socket` is one of its own: while it waits in the kernel, others must not.
    pub(crate) fn start(mut socket: RouteSocket) -> Result<Self, std::io::Error> {
        let (sender, names) = mpsc::channel::<String>();
        let thread = thread::Builder::new()
            .name("net-cleaner".to_owned())
            .spawn(move || {
                for name in names {
                    if let Err(error) = delete(&mut socket, &name) {
                        tracing::warn!(interface = %name, %error, "could not remove an interface");
                    }
                }
            })?;
        Ok(Self {
            work: Mutex::new(Some((sender, thread))),
        })
    }

    pub(crate) fn remove(&self, name: String) {
        if let Some((sender, _)) = &*self.work.lock() {
            // The thread ends only when the sender is dropped.
            let _ = sender.send(name);
        }
    }

    /// Waits until everything is removed; nothing is accepted any more.
    pub(crate) fn finish(&self) {
        let work = self.work.lock().take();
        if let Some((sender, thread)) = work {
            drop(sender);
            let _ = thread.join();
        }
    }
}

/// It is no error if the interface is gone.
pub(crate) fn delete(socket: &mut RouteSocket, name: &str) -> Result<(), NetlinkError> {
    match socket.delete_link(name) {
        Err(error) if !error.is_missing() => Err(error),
        _ => Ok(()),
    }
}
