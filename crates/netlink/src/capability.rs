//! What this kernel can do, tried out rather than guessed from its version.

use std::net::{IpAddr, Ipv4Addr};

use crate::error::NetlinkError;
use crate::nft::{
    BaseChain, Batch, ChainKind, DataType, Expression, Family, Hook, MapsTo, NftSocket, Set, rule,
};
use crate::{Namespace, RouteSocket, VethPair};

/// Something skep's networks need from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    Bridge,
    Veth,
    /// nf_tables itself.
    NfTables,
    /// NAT chains, `masquerade` and `dnat` by a map.
    Nat,
    /// Connection states in rules.
    ConnectionTracking,
}

impl Capability {
    /// What does not work without it, for a warning.
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Bridge => "bridge networks are not available (kernel without bridge)",
            Self::Veth => "containers cannot be attached to networks (kernel without veth)",
            Self::NfTables => {
                "no firewall rules, outbound NAT or published ports by NAT (kernel without nf_tables)"
            }
            Self::Nat => {
                "no outbound NAT or published ports by NAT (kernel without nft_nat, nft_masq)"
            }
            Self::ConnectionTracking => {
                "networks are not isolated by connection state (kernel without nft_ct)"
            }
        }
    }
}

/// Tries everything out in a namespace that ends with this call.
pub fn missing_capabilities() -> Result<Vec<Capability>, NetlinkError> {
    Namespace::create_unnamed()?.run(|| {
        let mut missing = Vec::new();
        let mut route = RouteSocket::open()?;
        if route.create_bridge("probe0", 1500, None).is_err() {
            missing.push(Capability::Bridge);
        }
        let here = Namespace::current()?;
        let pair = VethPair {
            name: "probe1",
            mtu: 1500,
            master: None,
            peer_name: "probe2",
            peer_namespace: &here,
            peer_mac: None,
        };
        if route.create_veth(&pair).is_err() {
            missing.push(Capability::Veth);
        }
        missing.extend(missing_in_nf_tables());
        Ok(missing)
    })?
}

fn missing_in_nf_tables() -> Vec<Capability> {
    let mut batch = Batch::new(Family::Ipv4, "skep-probe");
    batch.add_table();
    let Ok(mut socket) = NftSocket::open() else {
        return vec![Capability::NfTables];
    };
    if socket.apply(batch).is_err() {
        return vec![Capability::NfTables];
    }
    let mut missing = Vec::new();
    if socket.apply(nat_probe()).is_err() {
        missing.push(Capability::Nat);
    }
    if socket.apply(tracking_probe()).is_err() {
        missing.push(Capability::ConnectionTracking);
    }
    missing
}

fn nat_probe() -> Batch {
    let base = |hook, priority| {
        Some(BaseChain {
            kind: ChainKind::Nat,
            hook,
            priority,
            drop_by_default: false,
        })
    };
    let mut batch = Batch::new(Family::Ipv4, "skep-probe");
    batch
        .add_chain("post", base(Hook::Postrouting, 100))
        .add_chain("pre", base(Hook::Prerouting, -100))
        .add_set(&Set {
            name: "ports".to_owned(),
            key: &[DataType::InetProtocol, DataType::InetService],
            value: MapsTo::Data(&[DataType::Ipv4Address, DataType::InetService]),
        });
    let mut masquerade = rule::address_in(
        rule::Side::Source,
        IpAddr::V4(Ipv4Addr::new(172, 17, 0, 0)),
        16,
        true,
    );
    masquerade.push(Expression::Masquerade);
    let mut translate = rule::destination_is_local();
    translate.extend(rule::load_port_key(Family::Ipv4, false));
    translate.extend(rule::translate_by_map(Family::Ipv4, "ports"));
    batch
        .add_rule("post", &masquerade)
        .add_rule("pre", &translate);
    batch
}

fn tracking_probe() -> Batch {
    let mut batch = Batch::new(Family::Ipv4, "skep-probe");
    let mut established = rule::is_established();
    established.extend(rule::verdict(crate::nft::Verdict::Accept));
    batch
        .add_chain("plain", None)
        .add_rule("plain", &established);
    batch
}
