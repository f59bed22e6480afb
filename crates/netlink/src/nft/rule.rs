//! Combinations of expressions that `nft` users would write in a word or two. Each returns a
//! fragment; a rule is fragments put together.

use std::net::IpAddr;

use super::{
    CtKey, Expression, Family, FibResult, MetaKey, NatKind, Payload, Register, Verdict,
    interface_name,
};

const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;
const INVALID: u32 = 1;
const STATUS_DNAT: u32 = 0x20;
const LOCAL: u32 = 2;

/// Which of a packet's two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

/// `iifname name`, or `iifname != name`.
pub fn input_interface(name: &str, equal: bool) -> Vec<Expression> {
    interface(MetaKey::InputName, name, equal)
}

/// `oifname name`, or `oifname != name`.
pub fn output_interface(name: &str, equal: bool) -> Vec<Expression> {
    interface(MetaKey::OutputName, name, equal)
}

fn interface(key: MetaKey, name: &str, equal: bool) -> Vec<Expression> {
    vec![
        Expression::Meta {
            key,
            into: Register::FIRST,
        },
        Expression::Compare {
            register: Register::FIRST,
            equal,
            value: interface_name(name).to_vec(),
        },
    ]
}

/// `ip saddr network/prefix` and its siblings, in a table of the address's family.
pub fn address_in(side: Side, network: IpAddr, prefix: u8, equal: bool) -> Vec<Expression> {
    let (bytes, offset) = match (network, side) {
        (IpAddr::V4(v4), Side::Source) => (v4.octets().to_vec(), 12),
        (IpAddr::V4(v4), Side::Destination) => (v4.octets().to_vec(), 16),
        (IpAddr::V6(v6), Side::Source) => (v6.octets().to_vec(), 8),
        (IpAddr::V6(v6), Side::Destination) => (v6.octets().to_vec(), 24),
    };
    let mask: Vec<u8> = (0..bytes.len() as u32)
        .map(|index| {
            let bits = u32::from(prefix).saturating_sub(index * 8).min(8);
            !(0xff_u8.checked_shr(bits).unwrap_or(0))
        })
        .collect();
    let value: Vec<u8> = bytes
        .iter()
        .zip(&mask)
        .map(|(byte, mask)| byte & mask)
        .collect();
    let mut rule = vec![Expression::Payload {
        base: Payload::Network,
        offset,
        length: bytes.len() as u32,
        into: Register::FIRST,
    }];
    if mask.iter().any(|&byte| byte != 0xff) {
        let xor = vec![0; mask.len()];
        rule.push(Expression::Bitwise {
            register: Register::FIRST,
            mask,
            xor,
        });
    }
    rule.push(Expression::Compare {
        register: Register::FIRST,
        equal,
        value,
    });
    rule
}

/// `fib daddr type local`
pub fn destination_is_local() -> Vec<Expression> {
    is_local(FibResult::DestinationType)
}

/// `fib saddr type local`
pub fn source_is_local() -> Vec<Expression> {
    is_local(FibResult::SourceType)
}

fn is_local(result: FibResult) -> Vec<Expression> {
    vec![
        Expression::Fib {
            result,
            into: Register::FIRST,
        },
        Expression::Compare {
            register: Register::FIRST,
            equal: true,
            value: LOCAL.to_ne_bytes().to_vec(),
        },
    ]
}

/// `ct state established,related`
pub fn is_established() -> Vec<Expression> {
    ct_bits(CtKey::State, ESTABLISHED | RELATED)
}

/// `ct state invalid`
pub fn is_invalid() -> Vec<Expression> {
    ct_bits(CtKey::State, INVALID)
}

/// `ct status dnat`
pub fn is_destination_translated() -> Vec<Expression> {
    ct_bits(CtKey::Status, STATUS_DNAT)
}

fn ct_bits(key: CtKey, bits: u32) -> Vec<Expression> {
    let zero = 0_u32.to_ne_bytes().to_vec();
    vec![
        Expression::Ct {
            key,
            into: Register::FIRST,
        },
        Expression::Bitwise {
            register: Register::FIRST,
            mask: bits.to_ne_bytes().to_vec(),
            xor: zero.clone(),
        },
        Expression::Compare {
            register: Register::FIRST,
            equal: false,
            value: zero,
        },
    ]
}

/// Loads the destination address, if `with_address`, the protocol and the destination port one
/// after another from the first register on: a key for a map of published ports.
pub fn load_port_key(family: Family, with_address: bool) -> Vec<Expression> {
    let mut rule = Vec::new();
    let mut words = 0;
    if with_address {
        let (offset, length) = if family == Family::Ipv6 {
            (24, 16)
        } else {
            (16, 4)
        };
        rule.push(Expression::Payload {
            base: Payload::Network,
            offset,
            length,
            into: Register::FIRST,
        });
        words = length / 4;
    }
    rule.push(Expression::Meta {
        key: MetaKey::L4Protocol,
        into: Register::after(words),
    });
    rule.push(Expression::Payload {
        base: Payload::Transport,
        offset: 2,
        length: 2,
        into: Register::after(words + 1),
    });
    rule
}

/// `dnat to … map @map`, the key being in the first register: the map holds address and port.
pub fn translate_by_map(family: Family, map: &str) -> Vec<Expression> {
    let words = if family == Family::Ipv6 { 4 } else { 1 };
    vec![
        Expression::LookUp {
            map: map.to_owned(),
            register: Register::FIRST,
            into: Register::FIRST,
        },
        Expression::Nat {
            kind: NatKind::Destination,
            family,
            address: Register::FIRST,
            port: Some(Register::after(words)),
        },
    ]
}

pub fn verdict(verdict: Verdict) -> Vec<Expression> {
    vec![Expression::Verdict(verdict)]
}
