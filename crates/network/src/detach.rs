//! Taking containers off networks, one or all. Tries everything and reports what failed.

use std::net::IpAddr;
use std::sync::Arc;

use skep_netlink::{Namespace, RouteSocket};

use crate::NetworkError;
use crate::attach::is_namespace;
use crate::cleaner;
use crate::definition::Driver;
use crate::inner::Inner;
use crate::sandbox::EndpointRecord;

impl Inner {
    pub(crate) fn disconnect(&self, container_id: &str, term: &str) -> Result<(), NetworkError> {
        let lock = self.container_lock(container_id);
        let _one_at_a_time = lock.lock();
        let (id, driver) = {
            let state = self.state.lock();
            let definition = &state.resolve(term)?.definition;
            let sandbox = state.sandboxes.get(container_id);
            if sandbox
                .and_then(|sandbox| sandbox.endpoint(&definition.id))
                .is_none()
            {
                return Err(NetworkError::NotConnected {
                    container: container_id.to_owned(),
                    network: definition.name.clone(),
                });
            }
            (definition.id.clone(), definition.driver)
        };
        if driver == Driver::Host {
            let text =
                "container cannot be disconnected from host network or connected to host network";
            return Err(NetworkError::Forbidden(text.to_owned()));
        }
        let detached = self.detach(container_id, &id);
        let settled = self.settle(container_id);
        detached.and(settled)
    }

    /// Takes one endpoint away with all it has. Tries everything.
    pub(crate) fn detach(&self, container_id: &str, network_id: &str) -> Result<(), NetworkError> {
        self.detach_by(container_id, network_id, |record| {
            self.unplug(record, |veth| self.delete_veth(veth))
        })
    }

    fn detach_by(
        &self,
        container_id: &str,
        network_id: &str,
        remove: impl FnOnce(&EndpointRecord) -> Result<(), NetworkError>,
    ) -> Result<(), NetworkError> {
        let record = {
            let state = self.state.lock();
            let sandbox = state.sandboxes.get(container_id);
            sandbox
                .and_then(|sandbox| sandbox.endpoint(network_id))
                .cloned()
        };
        let Some(record) = record else {
            return Ok(());
        };
        let mut problems = Vec::new();
        if let Err(error) = self.unpublish(container_id, &record.endpoint.id) {
            problems.push(error.to_string());
        }
        if let Err(error) = remove(&record) {
            problems.push(error.to_string());
        }
        // The interface may be left if that failed: its address stays taken then.
        let free = problems.is_empty();
        let mut state = self.state.lock();
        if let Some(network) = state.network_mut(network_id).filter(|_| free) {
            let endpoint = &record.endpoint;
            let addresses = endpoint.ipv4.map(IpAddr::V4).into_iter();
            for address in addresses.chain(endpoint.ipv6.map(IpAddr::V6)) {
                network.release(address);
            }
        }
        if let Some(sandbox) = state.sandboxes.get_mut(container_id) {
            sandbox
                .endpoints
                .retain(|one| one.endpoint.id != record.endpoint.id);
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(NetworkError::Teardown(problems))
        }
    }

    /// Removes the interface on this side of an endpoint: in the overlay's namespace at once, else
    /// as `host` does it.
    fn unplug(
        &self,
        record: &EndpointRecord,
        host: impl FnOnce(&str) -> Result<(), NetworkError>,
    ) -> Result<(), NetworkError> {
        if !record.overlay {
            return host(&record.veth);
        }
        let path = self.overlay_path(&record.endpoint.network_id);
        if record.veth.is_empty() || !is_namespace(&path) {
            return Ok(());
        }
        let mut route = RouteSocket::open_in(&Namespace::open(&path)?)?;
        Ok(cleaner::delete(&mut route, &record.veth)?)
    }

    pub(crate) fn delete_veth(&self, name: &str) -> Result<(), NetworkError> {
        if name.is_empty() {
            return Ok(());
        }
        Ok(self.host.with_route(|route| cleaner::delete(route, name))?)
    }

    pub(crate) fn release(&self, container_id: &str) -> Result<(), NetworkError> {
        let lock = self.container_lock(container_id);
        let _one_at_a_time = lock.lock();
        let released = self.release_locked(container_id);
        self.forget_lock(container_id, &lock);
        released
    }

    pub(crate) fn release_locked(&self, container_id: &str) -> Result<(), NetworkError> {
        let networks: Vec<String> = {
            let state = self.state.lock();
            let sandbox = state.sandboxes.get(container_id);
            let endpoints = sandbox.map(|sandbox| sandbox.endpoints.iter());
            let ids = endpoints
                .into_iter()
                .flatten()
                .map(|one| one.endpoint.network_id.clone());
            ids.collect()
        };
        self.resolvers.lock().remove(container_id);
        let mut problems = Vec::new();
        let mut note = |outcome: Result<(), NetworkError>| {
            problems.extend(outcome.err().map(|error| error.to_string()));
        };
        let mut veths = Vec::new();
        for network in networks {
            note(self.detach_by(container_id, &network, |record| {
                self.unplug(record, |veth| {
                    veths.push(veth.to_owned());
                    Ok(())
                })
            }));
        }
        let path = self.store.namespace_path(container_id);
        note(Namespace::delete_at(&path).map_err(Into::into));
        for veth in veths.into_iter().filter(|veth| !veth.is_empty()) {
            self.cleaner.remove(veth);
        }
        note(self.store.remove_record(container_id));
        self.state.lock().sandboxes.remove(container_id);
        self.virtual_addresses.lock().remove(container_id);
        self.drop_unused_overlays();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(NetworkError::Teardown(problems))
        }
    }

    pub(crate) fn container_lock(&self, container_id: &str) -> Arc<parking_lot::Mutex<()>> {
        Arc::clone(
            self.locks
                .lock()
                .entry(container_id.to_owned())
                .or_default(),
        )
    }

    /// Keeps the table of locks from growing with every container there ever was.
    fn forget_lock(&self, container_id: &str, lock: &Arc<parking_lot::Mutex<()>>) {
        let mut locks = self.locks.lock();
        // Two: the table's and the caller's. More means that somebody waits for it.
        if Arc::strong_count(lock) == 2 {
            locks.remove(container_id);
        }
    }
}
