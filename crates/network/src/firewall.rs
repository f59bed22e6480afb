//! The rules a daemon's networks need, as nf_tables batches. Pure: state in, batches out.
//!
//! One table per daemon and address family, named after the default bridge, so that several
//! daemons in one namespace keep out of each other's way and nobody else's rules are touched.
//!
//! ```text
//!   prerouting raw   127/8 from containers is forged            -> drop
//!   prerouting nat   to a local address -> map of published ports -> dnat
//!   output nat       the same for the host's own connections
//!   forward          to a bridge: replies, published ports, its own containers; nothing else
//!                    from an internal bridge: nothing out
//!   postrouting nat  out of a subnet, or back into it after dnat -> masquerade
//! ```
//!
//! A full batch replaces the whole table in one transaction: packets see the old rules or the new
//! ones, and connections live on in connection tracking. Publishing a port changes one element.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_netlink::nft::rule::{self, Side};
use skep_netlink::nft::{
    BaseChain, Batch, ChainKind, DataType, Element, ElementValue, Expression, Family, Hook, MapsTo,
    Register, Set, Verdict, concatenate, interface_name,
};

use crate::PublishedPort;
use crate::definition::{Driver, NetworkDefinition, Subnet};

const PORTS_ANYWHERE: &str = "ports";
const PORTS_AT_ADDRESS: &str = "ports-at";
const TO_BRIDGE: &str = "to-bridge";
const FROM_BRIDGE: &str = "from-bridge";

/// A published port and the container address behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortRule {
    pub(crate) published: PublishedPort,
    pub(crate) target: IpAddr,
}

impl PortRule {
    /// Whether NAT can do it; from one address family to the other only the proxy can.
    pub(crate) fn is_nat(&self) -> bool {
        self.published.host_ip.is_ipv4() == self.target.is_ipv4()
    }

    fn family(&self) -> Family {
        if self.target.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        }
    }

    fn map(&self) -> &'static str {
        if self.published.host_ip.is_unspecified() {
            PORTS_ANYWHERE
        } else {
            PORTS_AT_ADDRESS
        }
    }

    fn element(&self) -> Element {
        let protocol = [self.published.protocol.number()];
        let host_port = self.published.host_port.to_be_bytes();
        let container_port = self.published.container_port.to_be_bytes();
        let key = if self.published.host_ip.is_unspecified() {
            concatenate(&[&protocol, &host_port])
        } else {
            concatenate(&[&octets(self.published.host_ip), &protocol, &host_port])
        };
        let value = ElementValue::Data(concatenate(&[&octets(self.target), &container_port]));
        Element { key, value }
    }
}

/// The tables' name for a daemon.
pub(crate) fn table_name(instance: &str) -> String {
    format!("skep-{instance}")
}

/// Replaces a daemon's table of one family, in one transaction.
pub(crate) fn full<'a>(
    table: &str,
    family: Family,
    networks: impl Iterator<Item = &'a NetworkDefinition> + Clone,
    ports: &[PortRule],
) -> Batch {
    let mut batch = Batch::new(family, table);
    // Adding first makes the removal right even if there is nothing to remove.
    batch.add_table().delete_table().add_table();
    add_maps(&mut batch, family);
    add_base_chains(&mut batch);
    add_port_rules(&mut batch, family);
    let bridges = networks.filter(|network| network.driver == Driver::Bridge);
    for (network, subnet) in bridges.filter_map(|network| Some((network, subnet(network, family)?)))
    {
        add_network(&mut batch, family, network, subnet);
    }
    for port in ports
        .iter()
        .filter(|port| port.is_nat() && port.family() == family)
    {
        batch.add_elements(port.map(), &[port.element()]);
    }
    batch
}

/// Changes the translations and nothing else.
pub(crate) fn publish(table: &str, add: &[PortRule], remove: &[PortRule]) -> Vec<Batch> {
    [Family::Ipv4, Family::Ipv6]
        .into_iter()
        .map(|family| {
            let mut batch = Batch::new(family, table);
            let mine = |port: &&PortRule| port.is_nat() && port.family() == family;
            for port in remove.iter().filter(mine) {
                batch.delete_elements(port.map(), &[port.element()]);
            }
            for port in add.iter().filter(mine) {
                batch.add_elements(port.map(), &[port.element()]);
            }
            batch
        })
        .filter(|batch| !batch.is_empty())
        .collect()
}

fn subnet(network: &NetworkDefinition, family: Family) -> Option<&Subnet> {
    if family == Family::Ipv4 {
        network.ipv4.as_ref()
    } else {
        network.ipv6.as_ref()
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn add_maps(batch: &mut Batch, family: Family) {
    use DataType::{InetProtocol, InetService, InterfaceName, Ipv4Address, Ipv6Address};
    let (at_address, target): (&'static [DataType], &'static [DataType]) = match family {
        Family::Ipv6 => (
            &[Ipv6Address, InetProtocol, InetService],
            &[Ipv6Address, InetService],
        ),
        _ => (
            &[Ipv4Address, InetProtocol, InetService],
            &[Ipv4Address, InetService],
        ),
    };
    let mut add = |name: &str, key, value| {
        batch.add_set(&Set {
            name: name.to_owned(),
            key,
            value,
        });
    };
    add(
        PORTS_ANYWHERE,
        &[InetProtocol, InetService],
        MapsTo::Data(target),
    );
    add(PORTS_AT_ADDRESS, at_address, MapsTo::Data(target));
    add(TO_BRIDGE, &[InterfaceName], MapsTo::Verdict);
    add(FROM_BRIDGE, &[InterfaceName], MapsTo::Verdict);
}

fn add_base_chains(batch: &mut Batch) {
    let mut add = |name, kind, hook, priority| {
        let base = BaseChain {
            kind,
            hook,
            priority,
            drop_by_default: false,
        };
        batch.add_chain(name, Some(base));
    };
    add("raw", ChainKind::Filter, Hook::Prerouting, -300);
    add("prerouting", ChainKind::Nat, Hook::Prerouting, -100);
    add("output", ChainKind::Nat, Hook::Output, -100);
    add("forward", ChainKind::Filter, Hook::Forward, 0);
    add("postrouting", ChainKind::Nat, Hook::Postrouting, 100);
    let by_map = |key, map: &str| {
        let register = Register::FIRST;
        [
            Expression::Meta {
                key,
                into: register,
            },
            Expression::VerdictMap {
                map: map.to_owned(),
                register,
            },
        ]
    };
    use skep_netlink::nft::MetaKey::{InputName, OutputName};
    batch.add_rule("forward", &by_map(OutputName, TO_BRIDGE));
    batch.add_rule("forward", &by_map(InputName, FROM_BRIDGE));
}

fn add_port_rules(batch: &mut Batch, family: Family) {
    let (loopback, prefix) = match family {
        Family::Ipv6 => (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        _ => (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    };
    let to_loopback = rule::address_in(Side::Destination, loopback, prefix, true);
    // A neighbour could send to 127.0.0.1 through us: only this host may use what is published
    // there. And an IPv6 loopback address cannot leave the host at all: the proxy serves it.
    let returns = rule::verdict(Verdict::Return);
    let from_outside = rule::input_interface("lo", false);
    batch.add_rule(
        "prerouting",
        &[from_outside, to_loopback.clone(), returns.clone()].concat(),
    );
    if family == Family::Ipv6 {
        batch.add_rule("output", &[to_loopback, returns].concat());
    }
    for chain in ["prerouting", "output"] {
        for (map, with_address) in [(PORTS_AT_ADDRESS, true), (PORTS_ANYWHERE, false)] {
            let rule = [
                rule::destination_is_local(),
                rule::load_port_key(family, with_address),
                rule::translate_by_map(family, map),
            ];
            batch.add_rule(chain, &rule.concat());
        }
    }
}

fn add_network(batch: &mut Batch, family: Family, network: &NetworkDefinition, subnet: &Subnet) {
    let bridge = network.bridge.as_str();
    if family == Family::Ipv4 {
        // route_localnet is on for the bridge (see `bridge.rs`): what it makes possible for
        // containers is taken away here.
        let loopback = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0));
        for side in [Side::Source, Side::Destination] {
            let rule = [
                rule::input_interface(bridge, true),
                rule::address_in(side, loopback, 8, true),
                rule::verdict(Verdict::Drop),
            ];
            batch.add_rule("raw", &rule.concat());
        }
    }
    add_forwarding(batch, network);
    add_masquerading(batch, family, network, subnet);
}

fn add_forwarding(batch: &mut Batch, network: &NetworkDefinition) {
    let bridge = network.bridge.as_str();
    let inward = format!("to-{bridge}");
    let accept = || rule::verdict(Verdict::Accept);
    let from_itself = || rule::input_interface(bridge, true);
    batch.add_chain(&inward, None);
    if network.internal {
        let same = if network.icc {
            accept()
        } else {
            rule::verdict(Verdict::Drop)
        };
        batch.add_rule(&inward, &[from_itself(), same].concat());
        let outward = format!("from-{bridge}");
        batch.add_chain(&outward, None);
        let rule = [
            rule::output_interface(bridge, false),
            rule::verdict(Verdict::Drop),
        ];
        batch.add_rule(&outward, &rule.concat());
        let jump = ElementValue::Verdict(Verdict::Jump(outward));
        add_to_map(batch, FROM_BRIDGE, bridge, jump);
    } else {
        batch.add_rule(&inward, &[rule::is_established(), accept()].concat());
        batch.add_rule(
            &inward,
            &[rule::is_destination_translated(), accept()].concat(),
        );
        if network.icc {
            batch.add_rule(&inward, &[from_itself(), accept()].concat());
        }
    }
    batch.add_rule(&inward, &rule::verdict(Verdict::Drop));
    add_to_map(
        batch,
        TO_BRIDGE,
        bridge,
        ElementValue::Verdict(Verdict::Jump(inward)),
    );
}

fn add_to_map(batch: &mut Batch, map: &str, bridge: &str, value: ElementValue) {
    batch.add_elements(
        map,
        &[Element {
            key: interface_name(bridge).to_vec(),
            value,
        }],
    );
}

fn add_masquerading(
    batch: &mut Batch,
    family: Family,
    network: &NetworkDefinition,
    subnet: &Subnet,
) {
    if network.internal {
        return;
    }
    let bridge = network.bridge.as_str();
    let (address, prefix) = (subnet.subnet.address(), subnet.subnet.length());
    let from_subnet = || rule::address_in(Side::Source, address, prefix, true);
    let mut add = |parts: &[Vec<Expression>]| {
        let rule = [parts.concat(), vec![Expression::Masquerade]].concat();
        batch.add_rule("postrouting", &rule);
    };
    if network.masquerade {
        add(&[from_subnet(), rule::output_interface(bridge, false)]);
    }
    // A container that reaches its own network through a published port: the answer has to come
    // back through the host to be translated.
    let back = || rule::output_interface(bridge, true);
    add(&[from_subnet(), back(), rule::is_destination_translated()]);
    if family == Family::Ipv4 {
        let loopback = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0));
        let from_loopback = rule::address_in(Side::Source, loopback, 8, true);
        add(&[from_loopback, back(), rule::is_destination_translated()]);
    }
}
