//! The routing mesh's rules, on the host and in the ingress network's namespace. Pure.
//!
//! ```text
//!   host     prerouting, output: published port of a local address -> mesh0's address
//!            postrouting: only what this node itself sends takes its address
//!   inside   prerouting: published port -> a task's address and port
//! ```
//!
//! Answers need no rule: connection tracking turns them back on the way they came.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use skep_netlink::nft::rule::{self, Side};
use skep_netlink::nft::{
    BaseChain, Batch, ChainKind, DataType, Element, ElementValue, Expression, Family, Hook, MapsTo,
    Register, Set, Verdict, concatenate,
};

use super::mesh::{HOST_SIDE, MESH_ADDRESS};
use super::services::add_choice;
use crate::Protocol;

const TABLE: &str = "skep-mesh";
const PORTS: &str = "ports";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0));

/// Who answers a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MeshPort {
    /// The tasks' port.
    pub(super) target: u16,
    pub(super) tasks: Vec<Ipv4Addr>,
}

fn base(kind: ChainKind, hook: Hook, priority: i32) -> BaseChain {
    BaseChain {
        kind,
        hook,
        priority,
        drop_by_default: false,
    }
}

fn key((protocol, port): (Protocol, u16)) -> Vec<u8> {
    concatenate(&[&[protocol.number()], &port.to_be_bytes()])
}

/// The host's side.
pub(super) fn host(table: &str, ports: &[(Protocol, u16)]) -> Batch {
    let mut batch = Batch::new(Family::Ipv4, table);
    batch.add_table().delete_table().add_table();
    batch.add_set(&Set {
        name: PORTS.to_owned(),
        key: &[DataType::InetProtocol, DataType::InetService],
        value: MapsTo::Data(&[DataType::Ipv4Address, DataType::InetService]),
    });
    batch.add_chain("raw", Some(base(ChainKind::Filter, Hook::Prerouting, -300)));
    batch.add_chain(
        "prerouting",
        Some(base(ChainKind::Nat, Hook::Prerouting, -100)),
    );
    batch.add_chain("output", Some(base(ChainKind::Nat, Hook::Output, -100)));
    batch.add_chain(
        "postrouting",
        Some(base(ChainKind::Nat, Hook::Postrouting, 100)),
    );
    // route_localnet is on for the mesh's interface: what that makes possible is taken away.
    for side in [Side::Source, Side::Destination] {
        let forged = [
            rule::input_interface(HOST_SIDE, true),
            rule::address_in(side, LOOPBACK, 8, true),
            rule::verdict(Verdict::Drop),
        ];
        batch.add_rule("raw", &forged.concat());
    }
    let from_outside = [
        rule::input_interface("lo", false),
        rule::address_in(Side::Destination, LOOPBACK, 8, true),
        rule::verdict(Verdict::Return),
    ];
    batch.add_rule("prerouting", &from_outside.concat());
    for chain in ["prerouting", "output"] {
        let translate = [
            rule::destination_is_local(),
            rule::load_port_key(Family::Ipv4, false),
            rule::translate_by_map(Family::Ipv4, PORTS),
        ];
        batch.add_rule(chain, &translate.concat());
    }
    let own = [
        rule::output_interface(HOST_SIDE, true),
        rule::source_is_local(),
        vec![Expression::Masquerade],
    ];
    batch.add_rule("postrouting", &own.concat());
    let elements: Vec<Element> = ports
        .iter()
        .map(|&(protocol, port)| Element {
            key: key((protocol, port)),
            value: ElementValue::Data(concatenate(&[&MESH_ADDRESS.octets(), &port.to_be_bytes()])),
        })
        .collect();
    batch.add_elements(PORTS, &elements);
    batch
}

/// The namespace's side. A port without tasks is left out: the namespace itself refuses it.
pub(super) fn inside(ports: &BTreeMap<(Protocol, u16), MeshPort>) -> Batch {
    let mut batch = Batch::new(Family::Ipv4, TABLE);
    batch.add_table().delete_table().add_table();
    batch.add_set(&Set {
        name: PORTS.to_owned(),
        key: &[DataType::InetProtocol, DataType::InetService],
        value: MapsTo::Verdict,
    });
    batch.add_chain(
        "prerouting",
        Some(base(ChainKind::Nat, Hook::Prerouting, -100)),
    );
    // Without it two clients of the same address and port on two nodes could not both be served.
    batch.add_chain(
        "postrouting",
        Some(base(ChainKind::Nat, Hook::Postrouting, 100)),
    );
    let mut lookup = rule::address_in(Side::Destination, MESH_ADDRESS.into(), 32, true);
    lookup.extend(rule::load_port_key(Family::Ipv4, false));
    lookup.push(Expression::VerdictMap {
        map: PORTS.to_owned(),
        register: Register::FIRST,
    });
    batch.add_rule("prerouting", &lookup);
    let answered = ports.iter().filter(|(_, port)| !port.tasks.is_empty());
    for (number, (published, port)) in answered.enumerate() {
        let chain = format!("port-{number}");
        batch.add_chain(&chain, None);
        let map = format!("tasks-{number}");
        add_choice(&mut batch, &chain, &map, &port.tasks, Some(port.target));
        let element = Element {
            key: key(*published),
            value: ElementValue::Verdict(Verdict::Goto(chain)),
        };
        batch.add_elements(PORTS, &[element]);
    }
    batch
}
