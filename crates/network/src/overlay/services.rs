//! Virtual addresses inside a container's namespace, and the names of services.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use skep_netlink::nft::rule;
use skep_netlink::nft::{
    BaseChain, Batch, ChainKind, DataType, Element, ElementValue, Expression, Family, Hook, MapsTo,
    MetaKey, NatKind, NftSocket, Payload, Register, Set, Verdict,
};
use skep_netlink::{Namespace, NetlinkError};
use skep_proto::feed;

use crate::attach::is_namespace;
use crate::inner::Inner;
use crate::sandbox::SandboxRecord;
use crate::state::State;
use crate::{NetworkError, Protocol};

const TABLE: &str = "skep-services";

/// Where connections to each virtual address go.
pub(crate) type VirtualAddresses = BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>;

impl Inner {
    /// Makes the container's virtual addresses follow the feed.
    pub(crate) fn sync_services(&self, container_id: &str) -> Result<(), NetworkError> {
        // From before the state is read: of two at once the one with the later state ends.
        let mut known = self.virtual_addresses.lock();
        let (path, wanted, on_overlay) = {
            let state = self.state.lock();
            // Before the managers have spoken, what an earlier daemon made goes on.
            if !state.told {
                return Ok(());
            }
            let Some(sandbox) = state.sandboxes.get(container_id) else {
                return Ok(());
            };
            let Some(path) = sandbox.namespace.clone() else {
                return Ok(());
            };
            let on_overlay = sandbox.endpoints.iter().any(|one| one.overlay);
            (path, virtual_addresses(&state, sandbox), on_overlay)
        };
        let same = match known.get(container_id) {
            Some(known) => *known == wanted,
            // Containers that the swarm does not concern have no rules.
            None => !on_overlay,
        };
        if same || !is_namespace(&path) {
            return Ok(());
        }
        Namespace::open(&path)?.run(|| apply(&wanted))??;
        known.insert(container_id.to_owned(), wanted);
        Ok(())
    }
}

fn virtual_addresses(state: &State, sandbox: &SandboxRecord) -> VirtualAddresses {
    let mut all = VirtualAddresses::new();
    for record in &sandbox.endpoints {
        let Some(network) = state.feed.get(&record.endpoint.network_id) else {
            continue;
        };
        // The mesh's are for outside.
        for service in network.services.iter().filter(|_| !network.ingress) {
            let Ok(address) = service.virtual_ip.parse() else {
                continue;
            };
            let mut backends = backends(network, &service.id);
            // Each container begins at another one: many short-lived clients do not all start
            // with the first.
            if !backends.is_empty() {
                let start = sandbox.container_id.bytes().map(usize::from).sum::<usize>();
                let length = backends.len();
                backends.rotate_left(start % length);
            }
            all.insert(address, backends);
        }
    }
    all
}

/// The addresses of a service's tasks that can be asked.
pub(super) fn backends(network: &feed::NetworkState, service_id: &str) -> Vec<Ipv4Addr> {
    network
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.ready && endpoint.service_id == service_id)
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| address.parse().ok())
        .collect()
}

/// Runs in the container's namespace. The whole table at once: established connections live in
/// connection tracking and keep their backend, new ones find the new rules.
fn apply(wanted: &VirtualAddresses) -> Result<(), NetlinkError> {
    NftSocket::open()?.apply(rules(wanted))
}

fn rules(wanted: &VirtualAddresses) -> Batch {
    let mut batch = Batch::new(Family::Ipv4, TABLE);
    batch.add_table().delete_table().add_table();
    batch.add_set(&Set {
        name: "addresses".to_owned(),
        key: &[DataType::Ipv4Address],
        value: MapsTo::Verdict,
    });
    batch.add_set(&Set {
        name: "nobody".to_owned(),
        key: &[DataType::Ipv4Address],
        value: MapsTo::Nothing,
    });
    let base = |kind, hook, priority| {
        Some(BaseChain {
            kind,
            hook,
            priority,
            drop_by_default: false,
        })
    };
    batch.add_chain("output", base(ChainKind::Nat, Hook::Output, -100));
    batch.add_chain("prerouting", base(ChainKind::Nat, Hook::Prerouting, -100));
    batch.add_chain("refuse", base(ChainKind::Filter, Hook::Output, 0));
    let destination = Expression::Payload {
        base: Payload::Network,
        offset: 16,
        length: 4,
        into: Register::FIRST,
    };
    for chain in ["output", "prerouting"] {
        let map = Expression::VerdictMap {
            map: "addresses".to_owned(),
            register: Register::FIRST,
        };
        batch.add_rule(chain, &[destination.clone(), map]);
    }
    let member = Expression::Member {
        set: "nobody".to_owned(),
        register: Register::FIRST,
    };
    // Without a task the address refuses at once, rather than letting the client wait.
    let tcp = [
        Expression::Meta {
            key: MetaKey::L4Protocol,
            into: Register::FIRST,
        },
        Expression::Compare {
            register: Register::FIRST,
            equal: true,
            value: vec![Protocol::Tcp.number()],
        },
    ];
    let mut refuse = vec![destination.clone(), member.clone()];
    refuse.extend(tcp);
    refuse.push(Expression::RejectWithReset);
    batch.add_rule("refuse", &refuse);
    let mut drop = vec![destination, member];
    drop.extend(rule::verdict(Verdict::Drop));
    batch.add_rule("refuse", &drop);
    for (number, (address, backends)) in wanted.iter().enumerate() {
        let key = address.octets().to_vec();
        if backends.is_empty() {
            let value = ElementValue::None;
            batch.add_elements("nobody", &[Element { key, value }]);
            continue;
        }
        let chain = format!("service-{number}");
        batch.add_chain(&chain, None);
        add_choice(
            &mut batch,
            &chain,
            &format!("tasks-{number}"),
            backends,
            None,
        );
        let value = ElementValue::Verdict(Verdict::Goto(chain));
        batch.add_elements("addresses", &[Element { key, value }]);
    }
    batch
}

/// A rule that leads each new connection to the next of the addresses.
pub(super) fn add_choice(
    batch: &mut Batch,
    chain: &str,
    map: &str,
    addresses: &[Ipv4Addr],
    port: Option<u16>,
) {
    batch.add_set(&Set {
        name: map.to_owned(),
        key: &[DataType::Integer],
        value: MapsTo::Data(&[DataType::Ipv4Address]),
    });
    let elements: Vec<Element> = addresses
        .iter()
        .enumerate()
        .map(|(number, address)| Element {
            key: (number as u32).to_ne_bytes().to_vec(),
            value: ElementValue::Data(address.octets().to_vec()),
        })
        .collect();
    batch.add_elements(map, &elements);
    let mut rule = vec![
        Expression::RoundRobin {
            modulus: addresses.len() as u32,
            into: Register::FIRST,
        },
        Expression::LookUp {
            map: map.to_owned(),
            register: Register::FIRST,
            into: Register::FIRST,
        },
    ];
    if let Some(port) = port {
        rule.push(Expression::Load {
            value: port.to_be_bytes().to_vec(),
            into: Register::after(1),
        });
    }
    rule.push(Expression::Nat {
        kind: NatKind::Destination,
        family: Family::Ipv4,
        address: Register::FIRST,
        port: port.map(|_| Register::after(1)),
    });
    batch.add_rule(chain, &rule);
}

/// The addresses of a service, of its tasks (`tasks.name`), of an alias or of a task; `None` if
/// the network has nobody of that name.
pub(crate) fn addresses_of(network: &feed::NetworkState, name: &str) -> Option<Vec<IpAddr>> {
    if network.ingress {
        return None;
    }
    let tasks = name.strip_prefix("tasks.");
    if let Some(service) = find_service(network, tasks.unwrap_or(name)) {
        let virtual_ip = service.virtual_ip.parse::<IpAddr>().ok();
        return Some(match (virtual_ip, tasks) {
            (Some(address), None) => vec![address],
            _ => backends(network, &service.id)
                .into_iter()
                .map(IpAddr::V4)
                .collect(),
        });
    }
    let endpoint = network
        .endpoints
        .iter()
        .find(|endpoint| endpoint.name.eq_ignore_ascii_case(name))?;
    let addresses = endpoint.addresses.iter();
    Some(
        addresses
            .filter_map(|address| address.parse().ok())
            .collect(),
    )
}

/// By its own name or by an alias that its tasks have.
fn find_service<'a>(network: &'a feed::NetworkState, name: &str) -> Option<&'a feed::Service> {
    let by_name = network
        .services
        .iter()
        .find(|service| service.name.eq_ignore_ascii_case(name));
    by_name.or_else(|| {
        let has = |endpoint: &&feed::Endpoint| {
            !endpoint.service_id.is_empty()
                && endpoint
                    .aliases
                    .iter()
                    .any(|alias| alias.eq_ignore_ascii_case(name))
        };
        let endpoint = network.endpoints.iter().find(has)?;
        network
            .services
            .iter()
            .find(|service| service.id == endpoint.service_id)
    })
}

/// `name.network` of an address.
pub(crate) fn name_of(network: &feed::NetworkState, address: IpAddr) -> Option<String> {
    let text = address.to_string();
    let endpoint = network
        .endpoints
        .iter()
        .find(|endpoint| endpoint.addresses.contains(&text));
    let service = || network.services.iter().find(|one| one.virtual_ip == text);
    let name = match endpoint {
        Some(endpoint) => &endpoint.name,
        None => &service()?.name,
    };
    Some(format!("{name}.{}", network.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> feed::NetworkState {
        let task = |name: &str, address: &str, ready| feed::Endpoint {
            task_id: name.to_owned(),
            name: name.to_owned(),
            service_id: "s1".to_owned(),
            addresses: vec![address.to_owned()],
            aliases: vec!["www".to_owned()],
            ready,
            ..Default::default()
        };
        feed::NetworkState {
            name: "lab".to_owned(),
            endpoints: vec![
                task("web.1.x", "10.0.1.5", true),
                task("web.2.y", "10.0.1.6", false),
            ],
            services: vec![feed::Service {
                id: "s1".to_owned(),
                name: "web".to_owned(),
                virtual_ip: "10.0.1.2".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn ask(network: &feed::NetworkState, name: &str) -> Option<Vec<String>> {
        let found = addresses_of(network, name)?;
        Some(found.iter().map(IpAddr::to_string).collect())
    }

    #[test]
    fn a_service_is_its_virtual_address_and_its_tasks_are_those_that_are_ready() {
        let mut network = network();
        let one = |address: &str| Some(vec![address.to_owned()]);
        assert_eq!(ask(&network, "web"), one("10.0.1.2"));
        assert_eq!(ask(&network, "www"), one("10.0.1.2"));
        assert_eq!(ask(&network, "tasks.web"), one("10.0.1.5"));
        assert_eq!(ask(&network, "tasks.www"), one("10.0.1.5"));
        assert_eq!(ask(&network, "web.2.y"), one("10.0.1.6"));
        assert_eq!(ask(&network, "db"), None);
        network.services[0].virtual_ip.clear();
        assert_eq!(ask(&network, "web"), one("10.0.1.5"));
    }

    #[test]
    fn addresses_have_the_names_of_tasks_and_services() {
        let network = network();
        let name = |address: &str| name_of(&network, address.parse().unwrap());
        assert_eq!(name("10.0.1.6").as_deref(), Some("web.2.y.lab"));
        assert_eq!(name("10.0.1.2").as_deref(), Some("web.lab"));
        assert_eq!(name("10.0.1.9"), None);
    }
}
