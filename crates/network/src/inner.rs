//! The shared core of [`crate::LocalNetworks`]: opening, rules, restoring.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use skep_netlink::nft::Family;
use skep_netlink::{Namespace, RouteSocket, missing_capabilities, sysctl};
use tokio::runtime::Handle;

use crate::attach::is_namespace;
use crate::cleaner::Cleaner;
use crate::definition::{Driver, NetworkDefinition};
use crate::dns::Resolver;
use crate::firewall::{self, PortRule};
use crate::host::Host;
use crate::overlay::{self, Known, Mesh, VirtualAddresses};
use crate::publish::Publication;
use crate::publishing::target;
use crate::sandbox::SandboxRecord;
use crate::state::{ActiveNetwork, State};
use crate::store::NetworkStore;
use crate::{NetworkConfig, NetworkError, RestoreReport, bridge, defaults, ports};

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: NetworkConfig,
    pub(crate) store: NetworkStore,
    pub(crate) host: Arc<Host>,
    pub(crate) runtime: Handle,
    /// Name of this daemon's nf_tables tables.
    pub(crate) table: String,
    /// Whether rules are made: `--iptables` and a kernel that can.
    pub(crate) rules: bool,
    /// The same for IPv6: `--ip6tables`.
    pub(crate) rules6: bool,
    /// Bridged frames pass the IP rules on this host, so a frame may have to leave by the port it
    /// came in on.
    pub(crate) hairpin: bool,
    pub(crate) state: Mutex<State>,
    /// One operation per container at a time.
    pub(crate) locks: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    pub(crate) warnings: Vec<String>,
    pub(crate) cleaner: Cleaner,
    /// By container id.
    pub(crate) resolvers: Mutex<HashMap<String, Resolver>>,
    /// Held while an overlay comes or goes.
    pub(crate) overlays: Mutex<()>,
    /// Held while an update of the endpoint feed is applied. Before `overlays`, if both are needed.
    pub(crate) feeding: Mutex<()>,
    /// What each overlay's VXLAN device was told, by network id. Before `state`, as the two below:
    /// who applies what the state says holds them from reading it to its being in the kernel.
    pub(crate) neighbours: Mutex<HashMap<String, Known>>,
    /// What each container's rules say, by container id.
    pub(crate) virtual_addresses: Mutex<HashMap<String, VirtualAddresses>>,
    pub(crate) mesh: Mutex<Mesh>,
}

impl Inner {
    pub(crate) fn open(
        config: NetworkConfig,
        host: Host,
        runtime: Handle,
    ) -> Result<Self, NetworkError> {
        let store = NetworkStore::open(&config)?;
        let missing = missing_capabilities()?;
        let mut warnings: Vec<String> = missing
            .iter()
            .map(|capability| format!("WARNING: {}", capability.consequence()))
            .collect();
        let can_rule = !missing.iter().any(|one| {
            use skep_netlink::Capability::{ConnectionTracking, Nat, NfTables};
            matches!(one, NfTables | Nat | ConnectionTracking)
        });
        let hairpin = host.call(|| sysctl::get("net/bridge/bridge-nf-call-iptables"))?;
        let definitions = defaults::networks(&config, &store, &host)?;
        if config.ip_forward {
            let ipv6 = definitions.iter().any(|network| network.ipv6.is_some());
            bridge::enable_forwarding(&host, ipv6)?;
        }
        let rules = config.iptables && can_rule;
        let rules6 = config.ip6tables && can_rule;
        if rules {
            warnings.extend(foreign_drop(&host)?);
        }
        let mut state = State::default();
        for definition in definitions {
            let live = match definition.driver {
                Driver::Bridge => match bridge::ensure(&host, &definition, rules) {
                    Ok(index) => Some(index),
                    // A user's network that cannot be made must not keep the daemon from starting.
                    Err(error) if !definition.predefined => {
                        let name = &definition.name;
                        tracing::error!(network.name = %name, %error, "could not make a bridge");
                        warnings.push(format!("WARNING: network {name} is not available: {error}"));
                        None
                    }
                    Err(error) => return Err(error),
                },
                Driver::Host | Driver::Null => None,
                // One that is gone comes back with the first task that needs it.
                Driver::Overlay => {
                    match overlay::find_bridge(&store.overlay_path(&definition.id)) {
                        Some(index) => Some(index),
                        None => continue,
                    }
                }
            };
            state
                .networks
                .insert(definition.id.clone(), ActiveNetwork::new(definition, live));
        }
        let socket = host.call(RouteSocket::open)??;
        let cleaner =
            Cleaner::start(socket).map_err(NetworkError::io("starting the cleaner thread"))?;
        let inner = Self {
            cleaner,
            resolvers: Mutex::default(),
            overlays: Mutex::default(),
            feeding: Mutex::default(),
            neighbours: Mutex::default(),
            virtual_addresses: Mutex::default(),
            mesh: Mutex::default(),
            table: firewall::table_name(&instance(&config)),
            rules,
            rules6,
            hairpin: hairpin.is_ok_and(|value| value == "1"),
            state: Mutex::new(state),
            locks: Mutex::default(),
            warnings,
            host: Arc::new(host),
            config,
            store,
            runtime,
        };
        inner.save_definitions()?;
        inner.take_over_records();
        // With the ports of containers that run: they must answer without a pause.
        inner.apply_rules()?;
        Ok(inner)
    }

    pub(crate) fn save_definitions(&self) -> Result<(), NetworkError> {
        let definitions = self.state.lock().definitions().cloned().collect();
        self.store.save_definitions(definitions)
    }

    /// Replaces all rules by what the state says, in one transaction.
    pub(crate) fn apply_rules(&self) -> Result<(), NetworkError> {
        if self.families().is_empty() {
            return Ok(());
        }
        // The state stays locked until the kernel has it: two changes must not overtake each other.
        let state = self.state.lock();
        let ports = state.port_rules();
        let families = self.families().into_iter();
        let batches = families
            .map(|family| firewall::full(&self.table, family, state.live_bridges(), &ports));
        Ok(self.host.apply(batches.collect())?)
    }

    /// The address families that have rules.
    fn families(&self) -> Vec<Family> {
        let all = [(self.rules, Family::Ipv4), (self.rules6, Family::Ipv6)];
        all.into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, family)| family)
            .collect()
    }

    /// Whether NAT leads from a host address to this target.
    pub(crate) fn is_translated(&self, host_ip: IpAddr, target: IpAddr) -> bool {
        let rules = if target.is_ipv4() {
            self.rules
        } else {
            self.rules6
        };
        rules && host_ip.is_ipv4() == target.is_ipv4()
    }

    /// Changes the translations of some ports.
    pub(crate) fn translate(
        &self,
        add: &[PortRule],
        remove: &[PortRule],
    ) -> Result<(), NetworkError> {
        let ours = |rules: &[PortRule]| -> Vec<PortRule> {
            let translated =
                |rule: &&PortRule| self.is_translated(rule.published.host_ip, rule.target);
            rules.iter().filter(translated).cloned().collect()
        };
        let batches = firewall::publish(&self.table, &ours(add), &ours(remove));
        if batches.is_empty() {
            Ok(())
        } else {
            Ok(self.host.apply(batches)?)
        }
    }

    /// Takes addresses and ports of what an earlier daemon started.
    fn take_over_records(&self) {
        let (records, damaged) = self.store.load_records();
        for path in damaged {
            tracing::warn!(path = %path.display(), "could not read a record; removing it");
            let _ = std::fs::remove_file(path);
        }
        let mut state = self.state.lock();
        for mut record in records {
            record
                .endpoints
                .retain(|one| state.networks.contains_key(&one.endpoint.network_id));
            for one in &record.endpoints {
                let endpoint = &one.endpoint;
                let ports = &endpoint.ports;
                for port in ports {
                    state.ports.take(port);
                }
                let rules = ports.iter().filter_map(|port| {
                    let target = target(endpoint, port.host_ip)?;
                    Some(PortRule {
                        published: port.clone(),
                        target,
                    })
                });
                let publications = rules.map(Publication::recorded).collect();
                state.publications.insert(endpoint.id.clone(), publications);
                let network = state
                    .network_mut(&endpoint.network_id)
                    .expect("others were dropped");
                for address in [endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6)] {
                    if let Some(address) = address
                        && network.allocate(Some(address), address.is_ipv4()).is_err()
                    {
                        tracing::warn!(%address, network.name = %endpoint.network_name, "a recorded address is taken already");
                    }
                }
            }
            state.sandboxes.insert(record.container_id.clone(), record);
        }
    }

    pub(crate) fn restore(&self, active: &[String]) -> RestoreReport {
        let active: HashSet<&str> = active.iter().map(String::as_str).collect();
        let mut report = RestoreReport::default();
        let records: Vec<SandboxRecord> = self.state.lock().sandboxes.values().cloned().collect();
        let mut known: BTreeSet<String> = BTreeSet::new();
        for record in records {
            let id = record.container_id.clone();
            let is_active = active.contains(id.as_str());
            if is_active && self.is_intact(&record) {
                report.problems.extend(self.hold_ports(&record));
                known.insert(id);
                continue;
            }
            if let Err(error) = self.release(&id) {
                report.problems.push(format!("container {id}: {error}"));
            }
            if is_active {
                &mut report.lost
            } else {
                &mut report.removed
            }
            .push(id);
        }
        let without_record = active.iter().filter(|id| !known.contains(**id));
        for id in without_record {
            if !report.lost.iter().any(|lost| lost == id) {
                report.lost.push((*id).to_owned());
            }
        }
        self.remove_strays(&mut report);
        if let Err(error) = self.apply_rules() {
            report.problems.push(error.to_string());
        }
        report
    }

    /// Lets go of the sockets that hold ports, and of the proxies.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        for publication in state.publications.values_mut().flatten() {
            publication.stop(&self.runtime);
        }
        drop(state);
        self.close_mesh();
        self.resolvers.lock().clear();
        self.cleaner.finish();
    }

    /// Whether everything the record speaks of is in the kernel.
    fn is_intact(&self, record: &SandboxRecord) -> bool {
        let has_namespace = record
            .namespace
            .as_ref()
            .is_none_or(|path| is_namespace(path));
        let Ok(links) = self.host.with_route(RouteSocket::links) else {
            return false;
        };
        let names: HashSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        has_namespace
            && record
                .endpoints
                .iter()
                .all(|one| one.veth.is_empty() || one.overlay || names.contains(one.veth.as_str()))
    }

    /// Binds the sockets of a running container's ports again. Returns what did not work: the
    /// port still answers through its NAT rule, it is only not held.
    fn hold_ports(&self, record: &SandboxRecord) -> Vec<String> {
        let mut problems = Vec::new();
        for one in &record.endpoints {
            let id = &one.endpoint.id;
            let mut publications = self
                .state
                .lock()
                .publications
                .remove(id)
                .unwrap_or_default();
            for publication in publications.iter_mut().filter(|one| !one.is_held()) {
                let with_proxy = self.needs_proxy(&publication.rule);
                let held = ports::hold_again(&self.host, &publication.rule.published);
                let served = held.and_then(|held| {
                    publication.serve(held, with_proxy, &self.host, &self.runtime)
                });
                problems.extend(
                    served
                        .err()
                        .map(|error| format!("container {}: {error}", record.container_id)),
                );
            }
            self.state
                .lock()
                .publications
                .insert(id.clone(), publications);
        }
        problems
    }

    /// Namespaces and interfaces that no record speaks of: what a crash leaves.
    fn remove_strays(&self, report: &mut RestoreReport) {
        let (namespaces, veths, bridges) = {
            let state = self.state.lock();
            let records = state.sandboxes.values();
            let overlays = state
                .definitions()
                .filter(|one| one.driver == Driver::Overlay)
                .map(|one| self.overlay_path(&one.id));
            let paths: HashSet<_> = records
                .clone()
                .filter_map(|one| one.namespace.clone())
                .chain(overlays)
                .collect();
            let veths: HashSet<String> = records
                .flat_map(|one| one.endpoints.iter().map(|endpoint| endpoint.veth.clone()))
                .collect();
            let bridges: HashSet<u32> = state
                .networks
                .values()
                .filter_map(|one| one.bridge)
                .collect();
            (paths, veths, bridges)
        };
        for path in self.store.namespace_paths() {
            if namespaces.contains(&path) {
                continue;
            }
            match Namespace::delete_at(&path) {
                Ok(()) => report.removed.push(path.display().to_string()),
                Err(error) => report.problems.push(error.to_string()),
            }
        }
        let links = self.host.with_route(RouteSocket::links).unwrap_or_default();
        for link in links {
            let ours = link.kind == "veth"
                && is_veth_name(&link.name)
                && link.master.is_some_and(|master| bridges.contains(&master));
            if ours && !veths.contains(&link.name) {
                match self.delete_veth(&link.name) {
                    Ok(()) => report.removed.push(link.name),
                    Err(error) => report.problems.push(error.to_string()),
                }
            }
        }
    }
}

/// Chains of others that drop whatever is to be forwarded: our accepting does not help there, since
/// a packet has to pass every chain.
fn foreign_drop(host: &Host) -> Result<Vec<String>, NetworkError> {
    let chains = host.dropping_forward_chains()?;
    let warn = |chain: String| {
        format!(
            "WARNING: chain {chain} drops forwarded packets by default: containers reach nothing \
             outside unless it accepts their bridges"
        )
    };
    Ok(chains.into_iter().map(warn).collect())
}

/// `veth` and seven hex digits: the names this crate gives.
fn is_veth_name(name: &str) -> bool {
    name.strip_prefix("veth")
        .is_some_and(|rest| rest.len() == 7 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What tells this daemon's tables from those of others in the same namespace.
fn instance(config: &NetworkConfig) -> String {
    use sha2::{Digest, Sha256};
    config.bridge_name().map_or_else(
        || {
            let path = config.data_root.to_string_lossy();
            hex::encode(&Sha256::digest(path.as_bytes())[..6])
        },
        str::to_owned,
    )
}

/// The definition of every network but the given one, for overlap checks.
pub(crate) fn subnets_of<'a>(
    definitions: impl Iterator<Item = &'a NetworkDefinition>,
) -> Vec<crate::Prefix> {
    definitions
        .flat_map(|one| one.subnets().map(|subnet| subnet.subnet))
        .collect()
}
