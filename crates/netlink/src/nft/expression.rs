//! nf_tables' machine language, as far as skep speaks it.

use super::Family;
use super::constants::{data, expression};
use crate::codec::Message;

/// Where values are kept while a rule runs: sixteen words of four bytes. Values of up to sixteen
/// bytes start at [`Register::FIRST`]; the parts of a concatenation follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(u32);

impl Register {
    /// The first word.
    pub const FIRST: Self = Self(8);
    const VERDICT: u32 = 0;

    /// The word `words` further on.
    pub fn after(words: u32) -> Self {
        assert!(words < 16, "nf_tables has sixteen registers");
        Self(Self::FIRST.0 + words)
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// Facts about a packet that are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    Mark,
    InputName,
    OutputName,
    L4Protocol,
    NfProtocol,
}

/// Facts that connection tracking knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    State,
    Status,
    Mark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FibResult {
    /// The kind of the packet's destination address: local, unicast, …
    DestinationType,
    /// The same of its source.
    SourceType,
}

/// Which header an offset is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Link,
    Network,
    Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    Source,
    Destination,
}

/// One instruction of a rule. A comparison that fails ends the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Meta {
        key: MetaKey,
        into: Register,
    },
    SetMark {
        from: Register,
    },
    Ct {
        key: CtKey,
        into: Register,
    },
    SetCtMark {
        from: Register,
    },
    Payload {
        base: Payload,
        offset: u32,
        length: u32,
        into: Register,
    },
    Fib {
        result: FibResult,
        into: Register,
    },
    Compare {
        register: Register,
        equal: bool,
        value: Vec<u8>,
    },
    /// `register = register & mask ^ xor`
    Bitwise {
        register: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Load {
        value: Vec<u8>,
        into: Register,
    },
    Verdict(Verdict),
    /// Goes on only if the value is a member of the set.
    Member {
        set: String,
        register: Register,
    },
    /// Goes on only if the map has an entry for the value, and loads what it stands for.
    LookUp {
        map: String,
        register: Register,
        into: Register,
    },
    /// Does what a verdict map says; goes on if it has no entry.
    VerdictMap {
        map: String,
        register: Register,
    },
    /// Rewrites an address, and the port too if given.
    Nat {
        kind: NatKind,
        family: Family,
        address: Register,
        port: Option<Register>,
    },
    Masquerade,
    Counter,
    /// Counts connections round robin: a value from 0 below `modulus`.
    RoundRobin {
        modulus: u32,
        into: Register,
    },
    Random {
        modulus: u32,
        into: Register,
    },
    /// Refuses a TCP connection with a reset.
    RejectWithReset,
    NoTrack,
}

impl Expression {
    pub(super) fn encode(&self, list: &mut Message) {
        list.nest(super::constants::LIST_ELEMENT, |element| {
            element.text(expression::NAME, self.name());
            element.nest(expression::DATA, |body| self.encode_body(body));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } | Self::SetMark { .. } => "meta",
            Self::Ct { .. } | Self::SetCtMark { .. } => "ct",
            Self::Payload { .. } => "payload",
            Self::Fib { .. } => "fib",
            Self::Compare { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Load { .. } | Self::Verdict(_) => "immediate",
            Self::Member { .. } | Self::LookUp { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Nat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Counter => "counter",
            Self::RoundRobin { .. } | Self::Random { .. } => "numgen",
            Self::RejectWithReset => "reject",
            Self::NoTrack => "notrack",
        }
    }

    /// The attribute numbers are those of `nf_tables.h` for the expression in question.
    fn encode_body(&self, body: &mut Message) {
        match self {
            Self::Meta { key, into } => {
                body.be32(1, into.0).be32(2, meta_number(*key));
            }
            Self::SetMark { from } => {
                body.be32(2, meta_number(MetaKey::Mark)).be32(3, from.0);
            }
            Self::Ct { key, into } => {
                body.be32(1, into.0).be32(2, ct_number(*key));
            }
            Self::SetCtMark { from } => {
                body.be32(2, ct_number(CtKey::Mark)).be32(4, from.0);
            }
            Self::Payload {
                base,
                offset,
                length,
                into,
            } => {
                let base = match base {
                    Payload::Link => 0,
                    Payload::Network => 1,
                    Payload::Transport => 2,
                };
                body.be32(1, into.0)
                    .be32(2, base)
                    .be32(3, *offset)
                    .be32(4, *length);
            }
            Self::Fib { result, into } => {
                // NFT_FIB_RESULT_ADDRTYPE of the NFTA_FIB_F_SADDR or NFTA_FIB_F_DADDR.
                let side = match result {
                    FibResult::SourceType => 1,
                    FibResult::DestinationType => 2,
                };
                body.be32(1, into.0).be32(2, 3).be32(3, side);
            }
            Self::Compare {
                register,
                equal,
                value,
            } => {
                body.be32(1, register.0).be32(2, u32::from(!equal));
                body.nest(3, |nest| {
                    nest.bytes(data::VALUE, value);
                });
            }
            Self::Bitwise {
                register,
                mask,
                xor,
            } => {
                body.be32(1, register.0)
                    .be32(2, register.0)
                    .be32(3, mask.len() as u32);
                body.nest(4, |nest| {
                    nest.bytes(data::VALUE, mask);
                });
                body.nest(5, |nest| {
                    nest.bytes(data::VALUE, xor);
                });
            }
            Self::Load { value, into } => {
                body.be32(1, into.0).nest(2, |nest| {
                    nest.bytes(data::VALUE, value);
                });
            }
            Self::Verdict(verdict) => {
                body.be32(1, Register::VERDICT)
                    .nest(2, |nest| verdict.encode(nest));
            }
            Self::Member { set, register } => {
                body.text(1, set).be32(2, register.0);
            }
            Self::LookUp {
                map,
                register,
                into,
            } => {
                body.text(1, map).be32(2, register.0).be32(3, into.0);
            }
            Self::VerdictMap { map, register } => {
                body.text(1, map)
                    .be32(2, register.0)
                    .be32(3, Register::VERDICT);
            }
            Self::Nat {
                kind,
                family,
                address,
                port,
            } => {
                let kind = match kind {
                    NatKind::Source => 0,
                    NatKind::Destination => 1,
                };
                body.be32(1, kind)
                    .be32(2, u32::from(family.number()))
                    .be32(3, address.0);
                if let Some(port) = port {
                    body.be32(5, port.0);
                }
            }
            Self::Masquerade | Self::Counter | Self::NoTrack => {}
            Self::RoundRobin { modulus, into } => {
                body.be32(1, into.0).be32(2, *modulus).be32(3, 0).be32(4, 0);
            }
            Self::Random { modulus, into } => {
                body.be32(1, into.0).be32(2, *modulus).be32(3, 1).be32(4, 0);
            }
            Self::RejectWithReset => {
                // NFT_REJECT_TCP_RST
                body.be32(1, 1);
            }
        }
    }
}

impl Verdict {
    /// As the content of a data attribute.
    pub(super) fn encode(&self, nest: &mut Message) {
        let (code, chain): (i32, Option<&str>) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        };
        nest.nest(data::VERDICT, |verdict| {
            verdict.be32(data::VERDICT_CODE, code as u32);
            if let Some(chain) = chain {
                verdict.text(data::VERDICT_CHAIN, chain);
            }
        });
    }
}

fn meta_number(key: MetaKey) -> u32 {
    match key {
        MetaKey::Mark => 3,
        MetaKey::InputName => 6,
        MetaKey::OutputName => 7,
        MetaKey::NfProtocol => 15,
        MetaKey::L4Protocol => 16,
    }
}

fn ct_number(key: CtKey) -> u32 {
    match key {
        CtKey::State => 0,
        CtKey::Status => 2,
        CtKey::Mark => 3,
    }
}
