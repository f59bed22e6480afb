//! Attaching containers to networks. Blocking: called on threads that may wait.

use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::path::PathBuf;

use skep_netlink::{BridgePort, Namespace, NetlinkError, RouteSocket, VethPair};

use crate::definition::Driver;
use crate::inner::Inner;
use crate::plan::{check, check_modes, make_endpoint, random_id};
use crate::sandbox::{self, EndpointRecord, SandboxRecord};
use crate::{Endpoint, EndpointRequest, NetworkError};

/// What the kernel part of an attachment needs to know of the network.
struct Wiring {
    bridge: u32,
    bridge_name: String,
    mtu: u32,
    icc: bool,
    /// The namespace that the bridge is in; `None`: the host's.
    overlay: Option<PathBuf>,
    ingress: bool,
}

impl Inner {
    pub(crate) fn connect(
        &self,
        container_id: &str,
        request: &EndpointRequest,
    ) -> Result<Endpoint, NetworkError> {
        let lock = self.container_lock(container_id);
        let _one_at_a_time = lock.lock();
        let is_new = !self.state.lock().sandboxes.contains_key(container_id);
        let connected = self.connect_locked(container_id, request);
        if connected.is_err() && is_new {
            // Half a container is nobody's: take away what was made for it.
            if let Err(error) = self.release_locked(container_id) {
                tracing::warn!(container.id = container_id, %error, "could not undo a connect");
            }
        }
        connected
    }

    fn connect_locked(
        &self,
        container_id: &str,
        request: &EndpointRequest,
    ) -> Result<Endpoint, NetworkError> {
        let (record, wiring) = self.plan(container_id, request)?;
        let network_id = record.endpoint.network_id.clone();
        let attached = self.attach(container_id, record, wiring.as_ref());
        let attached = attached.and_then(|()| self.settle(container_id));
        if let Err(error) = attached {
            if let Err(undo) = self.detach(container_id, &network_id) {
                tracing::warn!(container.id = container_id, error = %undo, "could not undo a connect");
            }
            return Err(error);
        }
        if let Err(error) = self.sync_services(container_id) {
            tracing::warn!(container.id = container_id, %error, "virtual addresses are not right");
        }
        let state = self.state.lock();
        let record = state
            .sandboxes
            .get(container_id)
            .and_then(|s| s.endpoint(&network_id));
        Ok(record
            .expect("the endpoint was just recorded")
            .endpoint
            .clone())
    }

    /// Decides everything about the endpoint, and takes its addresses.
    fn plan(
        &self,
        container_id: &str,
        request: &EndpointRequest,
    ) -> Result<(EndpointRecord, Option<Wiring>), NetworkError> {
        let mut state = self.state.lock();
        let network = state.resolve(&request.network)?;
        let definition = network.definition.clone();
        let bridge = network.bridge;
        check(request, &definition)?;
        check_modes(&state, container_id, request, &definition)?;
        let prefix = &definition.interface_prefix;
        let wished = request.driver_options.get(crate::options::INTERFACE_NAME);
        let interface = match (definition.driver, wished, state.sandboxes.get(container_id)) {
            (driver, ..) if !driver.is_wired() => String::new(),
            (_, Some(name), _) => name.clone(),
            (_, None, Some(sandbox)) => sandbox.free_interface(prefix),
            (_, None, None) => format!("{prefix}0"),
        };
        let network = state
            .network_mut(&definition.id)
            .expect("it was just resolved");
        let ipv4 = network.allocate(request.ipv4.map(IpAddr::V4), true)?;
        let ipv6 = match network.allocate(request.ipv6.map(IpAddr::V6), false) {
            Ok(address) => address,
            Err(error) => {
                if let Some(address) = ipv4 {
                    network.release(address);
                }
                return Err(error);
            }
        };
        let id = random_id();
        let veth = format!("veth{}", &id[..7]);
        let endpoint = make_endpoint(id, &definition, request, interface, (ipv4, ipv6));
        let wired = definition.driver.is_wired();
        let overlay = definition.overlay.is_some();
        let record = EndpointRecord {
            endpoint,
            veth: if wired { veth } else { String::new() },
            wanted_ports: if wired && !overlay {
                request.ports.clone()
            } else {
                Vec::new()
            },
            internal: definition.internal,
            overlay,
        };
        let wiring = bridge.filter(|_| wired).map(|bridge| Wiring {
            bridge,
            bridge_name: definition.bridge.clone(),
            mtu: definition.mtu,
            icc: definition.icc,
            overlay: overlay.then(|| self.overlay_path(&definition.id)),
            ingress: definition.overlay.as_ref().is_some_and(|one| one.ingress),
        });
        // Recorded at once: from here on a detach finds and frees whatever there is of it.
        let path =
            (definition.driver != Driver::Host).then(|| self.store.namespace_path(container_id));
        let sandbox = match state.sandboxes.entry(container_id.to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(SandboxRecord::new(container_id, path)),
        };
        sandbox.endpoints.push(record.clone());
        state.awaited.remove(&record.endpoint.network_id);
        Ok((record, wiring))
    }

    /// Makes the namespace and the interfaces.
    fn attach(
        &self,
        container_id: &str,
        record: EndpointRecord,
        wiring: Option<&Wiring>,
    ) -> Result<(), NetworkError> {
        if record.endpoint.network_name == "host" {
            return Ok(());
        }
        let namespace = self.enter_sandbox(container_id)?;
        if record.veth.is_empty() {
            return Ok(());
        }
        let Some(wiring) = wiring else {
            let text = format!(
                "the bridge of network {} could not be made",
                record.endpoint.network_name
            );
            return Err(NetworkError::Forbidden(text));
        };
        let pair = VethPair {
            name: &record.veth,
            mtu: wiring.mtu,
            master: Some(wiring.bridge),
            peer_name: &record.endpoint.interface,
            peer_namespace: &namespace,
            peer_mac: record.endpoint.mac.map(|mac| mac.0),
        };
        // Where bridged frames pass the IP rules, those keep containers apart; isolated ports would
        // also stop what comes back translated from a published port.
        let isolated = !wiring.icc && !self.hairpin;
        let port = BridgePort {
            hairpin: self.hairpin,
            isolated,
        };
        let plug = |route: &mut RouteSocket| -> Result<(), NetworkError> {
            route.create_veth(&pair)?;
            let Some(link) = route.link(&record.veth)? else {
                return Err(NetworkError::Forbidden(format!(
                    "interface {} has vanished",
                    record.veth
                )));
            };
            if port != BridgePort::default() {
                route.set_bridge_port(link.index, port)?;
            }
            // The address may have been another container's a moment ago, whose interface is
            // still being removed: the bridge must not look for it there.
            if let Some(mac) = record.endpoint.mac {
                route.announce(link.index, mac.0)?;
            }
            Ok(())
        };
        if let Some(path) = &wiring.overlay {
            plug(&mut RouteSocket::open_in(&Namespace::open(path)?)?)?;
            sandbox::configure(&namespace, &record.endpoint)?;
            if wiring.ingress {
                self.answer_through_mesh(&namespace, &record.endpoint)?;
            }
            return Ok(());
        }
        self.host.with_route(plug)?;
        sandbox::configure(&namespace, &record.endpoint)?;
        // The kernel notices a new carrier in its own time, and drops what is sent until then; being
        // asked for a link makes it look at once.
        self.host.with_route(|route| -> Result<(), NetlinkError> {
            for name in [&record.veth, &wiring.bridge_name] {
                route.link(name)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// What the mesh brought in is answered the way it came: not by the default route, which leads
    /// out of another network.
    fn answer_through_mesh(
        &self,
        namespace: &Namespace,
        endpoint: &Endpoint,
    ) -> Result<(), NetworkError> {
        let node = self.state.lock().swarm_node.clone();
        let ingress = node.and_then(|node| node.ingress);
        let (Some((_, gateway)), Some(source)) = (ingress, endpoint.ipv4) else {
            return Ok(());
        };
        Ok(sandbox::answer_through(
            namespace,
            &endpoint.interface,
            source,
            gateway,
        )?)
    }

    /// The container's namespace, made if need be.
    fn enter_sandbox(&self, container_id: &str) -> Result<Namespace, NetworkError> {
        let path = self.store.namespace_path(container_id);
        if is_namespace(&path) {
            return Ok(Namespace::open(&path)?);
        }
        // A plain file is what a crash between creation and mount leaves.
        Namespace::delete_at(&path)?;
        Ok(sandbox::create(&path)?)
    }

    pub(crate) fn make_sandbox(&self, container_id: &str) -> Result<PathBuf, NetworkError> {
        let lock = self.container_lock(container_id);
        let _one_at_a_time = lock.lock();
        self.enter_sandbox(container_id)?;
        let path = self.store.namespace_path(container_id);
        let record = {
            let mut state = self.state.lock();
            let id = container_id.to_owned();
            let record = state
                .sandboxes
                .entry(id)
                .or_insert_with(|| SandboxRecord::new(container_id, Some(path.clone())));
            record.namespace = Some(path.clone());
            record.clone()
        };
        self.store.save_record(&record)?;
        Ok(path)
    }

    /// Makes default routes and published ports follow the endpoint that is the gateway now, and
    /// writes the container's record.
    pub(crate) fn settle(&self, container_id: &str) -> Result<(), NetworkError> {
        let Some(before) = self.state.lock().sandboxes.get(container_id).cloned() else {
            return Ok(());
        };
        if let Some(path) = before.namespace.as_ref().filter(|path| is_namespace(path)) {
            let via = |ipv4| before.gateway(ipv4).map(|record| &record.endpoint);
            if before
                .endpoints
                .iter()
                .any(|record| !record.veth.is_empty())
            {
                sandbox::route_by_default(&Namespace::open(path)?, via(true), via(false))?;
            }
        }
        self.move_ports(&before)?;
        let record = self.state.lock().sandboxes.get(container_id).cloned();
        record.map_or(Ok(()), |record| self.store.save_record(&record))
    }
}

pub(crate) fn is_namespace(path: &std::path::Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}
