//! All local networks of one daemon.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bollard_stubs::models as m;
use skep_netlink::Namespace;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::host::Host;
use crate::inner::Inner;
use crate::{
    Endpoint, EndpointRequest, NetworkConfig, NetworkError, OverlayNetwork, ResolverSettings,
    SwarmNode, inspect,
};

/// All local networks of one daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalNetworks {
    inner: Arc<Inner>,
}

/// Which network a name or id means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSummary {
    pub id: String,
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// User-defined networks have aliases and fixed addresses.
    pub user_defined: bool,
    pub internal: bool,
}

/// What [`LocalNetworks::restore`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Active containers whose namespace or endpoints are gone; they have no network any more.
    pub lost: Vec<String>,
    /// What was found of containers that are not active, and removed.
    pub removed: Vec<String>,
    /// What could not be put right.
    pub problems: Vec<String>,
}

impl LocalNetworks {
    /// Loads the definitions and makes the default bridge and the rules. Call
    /// [`LocalNetworks::restore`] once before the first `connect`.
    pub async fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        // The namespace meant by default is that of the caller's thread, not of the pool's.
        let here = match &config.host_namespace {
            Some(path) => Namespace::open(path)?,
            None => Namespace::current()?,
        };
        let runtime = Handle::current();
        let inner = blocking(move || Inner::open(config, Host::open(here)?, runtime)).await?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Takes over what an earlier daemon left: the endpoints of the `active` containers (full
    /// ids) stay as they are, connections included; everything else is removed.
    pub async fn restore(&self, active: &[String]) -> RestoreReport {
        let active = active.to_vec();
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let mut report = inner.restore(&active);
            report.problems.extend(inner.restore_resolvers());
            report
        })
        .await
    }

    /// Serves the names of the container's networks at [`crate::RESOLVER_ADDRESS`] inside its
    /// namespace, until it is released. `hostname` is one more name it is known by.
    pub async fn serve_names(
        &self,
        container_id: &str,
        hostname: &str,
        settings: ResolverSettings,
    ) -> Result<(), NetworkError> {
        let (id, hostname) = (container_id.to_owned(), hostname.to_owned());
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.serve_names(&id, &hostname, settings)).await
    }

    /// Ends the daemon's part and leaves the containers theirs: ports go on answering through
    /// their rules, but are not held any more, and the proxy stops. For the end of the daemon.
    pub async fn close(&self) {
        self.work(Inner::close).await;
    }

    /// The container's network namespace (a bind mount below the exec root), made with only `lo`
    /// if the container has none yet.
    pub async fn sandbox(&self, container_id: &str) -> Result<PathBuf, NetworkError> {
        let id = container_id.to_owned();
        self.work(move |inner| inner.make_sandbox(&id)).await
    }

    /// Attaches a container to a network, making its namespace if needed. On the `host` network
    /// nothing is made, on `none` only the namespace; both are recorded for `network inspect`.
    pub async fn connect(
        &self,
        container_id: &str,
        request: &EndpointRequest,
    ) -> Result<Endpoint, NetworkError> {
        let (id, request) = (container_id.to_owned(), request.clone());
        self.work(move |inner| inner.connect(&id, &request)).await
    }

    /// Takes a container off one network.
    pub async fn disconnect(&self, container_id: &str, network: &str) -> Result<(), NetworkError> {
        let (id, network) = (container_id.to_owned(), network.to_owned());
        self.work(move |inner| inner.disconnect(&id, &network))
            .await
    }

    /// Removes everything the container has here: endpoints, ports, addresses, namespace. May be
    /// repeated; cleans all it can and reports all it could not.
    pub async fn release(&self, container_id: &str) -> Result<(), NetworkError> {
        let id = container_id.to_owned();
        self.work(move |inner| inner.release(&id)).await
    }

    /// The container's endpoints, by network name.
    pub fn endpoints(&self, container_id: &str) -> Vec<Endpoint> {
        let state = self.inner.state.lock();
        let sandbox = state.sandboxes.get(container_id);
        let records = sandbox
            .map(|sandbox| sandbox.endpoints.as_slice())
            .unwrap_or_default();
        let mut endpoints: Vec<_> = records.iter().map(|one| one.endpoint.clone()).collect();
        endpoints.sort_by(|a, b| a.network_name.cmp(&b.network_name));
        endpoints
    }

    /// Makes a swarm's network ready for containers, unless it is.
    pub async fn ensure_overlay(&self, network: OverlayNetwork) -> Result<(), NetworkError> {
        self.work(move |inner| inner.ensure_overlay(&network)).await
    }

    /// This node's place in the swarm: brings `docker_gwbridge` and the routing mesh.
    pub async fn set_swarm_node(&self, node: SwarmNode) -> Result<(), NetworkError> {
        self.work(move |inner| inner.set_swarm_node(node)).await
    }

    /// Follows the managers' endpoint feed; returns when the kernel has it. After an error the feed
    /// has to be followed from its beginning.
    pub async fn set_endpoints(
        &self,
        update: skep_proto::feed::EndpointUpdate,
    ) -> Result<(), NetworkError> {
        self.work(move |inner| inner.set_endpoints(update)).await
    }

    /// The node is in no swarm any more: takes the mesh and the overlays away.
    pub async fn leave_swarm(&self) -> Result<(), NetworkError> {
        self.work(Inner::leave_swarm).await
    }

    /// Tells the new name of a renamed container.
    pub fn rename(&self, container_id: &str, name: &str) {
        let mut state = self.inner.state.lock();
        if let Some(sandbox) = state.sandboxes.get_mut(container_id) {
            for record in &mut sandbox.endpoints {
                name.clone_into(&mut record.endpoint.container_name);
            }
            if let Err(error) = self.inner.store.save_record(sandbox) {
                tracing::warn!(container.id = container_id, %error, "could not note a new name");
            }
        }
    }

    /// Finds a network by full id, name or unique id prefix; `default` is the default bridge.
    pub fn resolve(&self, term: &str) -> Result<NetworkSummary, NetworkError> {
        Ok(self.inner.state.lock().resolve(term)?.summary())
    }

    /// All networks without their containers, as `GET /networks` lists them (unfiltered).
    pub fn list(&self) -> Vec<m::NetworkInspect> {
        let state = self.inner.state.lock();
        state
            .networks
            .values()
            .map(|network| inspect::network(network, None))
            .collect()
    }

    /// One network with its containers.
    pub fn inspect(&self, term: &str) -> Result<m::NetworkInspect, NetworkError> {
        let state = self.inner.state.lock();
        Ok(inspect::network(state.resolve(term)?, Some(&state)))
    }

    /// Makes a user-defined bridge network and returns its id.
    pub async fn create(&self, request: m::NetworkCreateRequest) -> Result<String, NetworkError> {
        self.work(move |inner| inner.create(request)).await
    }

    /// Removes a user-defined network without endpoints, and returns what it was.
    pub async fn remove(&self, term: &str) -> Result<NetworkSummary, NetworkError> {
        let term = term.to_owned();
        self.work(move |inner| inner.remove(&term)).await
    }

    /// The address that `host-gateway` stands for: the default bridge's own.
    pub fn host_gateway(&self) -> Option<IpAddr> {
        let state = self.inner.state.lock();
        let bridge = state.resolve("bridge").ok()?;
        bridge.definition.ipv4.as_ref().map(|subnet| subnet.gateway)
    }

    /// What `docker info` should warn about.
    pub fn warnings(&self) -> Vec<String> {
        self.inner.warnings.clone()
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> T {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner)).await
    }
}

/// Kernel calls wait for the kernel's own locks; that must not hold up other tasks. A caller that
/// is cancelled leaves the work to run to its end, so nothing stays half done.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
