//! The namespace that plays the host, and the sockets and thread that work in it.

use parking_lot::Mutex;
use skep_netlink::nft::{Batch, Hook, NftSocket};
use skep_netlink::{Namespace, NamespaceThread, NetlinkError, RouteSocket};

/// Everything that has to happen in the host's namespace goes through here: the daemon may have
/// been started in one namespace and its threads may be anywhere (tests give it one of their own).
#[derive(Debug)]
pub(crate) struct Host {
    thread: NamespaceThread,
    route: Mutex<RouteSocket>,
    nft: Mutex<NftSocket>,
}

impl Host {
    pub(crate) fn open(namespace: Namespace) -> Result<Self, NetlinkError> {
        let thread = NamespaceThread::start(namespace)?;
        let (route, nft) = thread.call(|| (RouteSocket::open(), NftSocket::open()))?;
        Ok(Self {
            thread,
            route: Mutex::new(route?),
            nft: Mutex::new(nft?),
        })
    }

    pub(crate) fn with_route<T>(&self, work: impl FnOnce(&mut RouteSocket) -> T) -> T {
        work(&mut self.route.lock())
    }

    /// All batches in one transaction.
    pub(crate) fn apply(&self, batches: Vec<Batch>) -> Result<(), NetlinkError> {
        self.nft.lock().apply_all(batches)
    }

    /// Base chains at the forward hook whose policy is to drop.
    pub(crate) fn dropping_forward_chains(&self) -> Result<Vec<String>, NetlinkError> {
        self.nft.lock().dropping_chains(Hook::Forward)
    }

    /// Runs `work` on a thread inside the namespace.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NetlinkError> {
        self.thread.call(work)
    }
}
