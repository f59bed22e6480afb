//! nf_tables: tables, chains, rules, sets and maps, changed in atomic batches.
//!
//! A [`Batch`] is built up and then applied as a whole or not at all: packets see either the old
//! rules or the new ones. Rules are lists of [`Expression`]s, nf_tables' own little machine
//! language; [`rule`] has the combinations that `nft` users would write in one word.
//!
//! Not here: reading rules back as text (tests use `nft -j list ruleset`), and every expression
//! that skep does not use.

mod batch;
mod constants;
mod expression;
pub mod rule;

pub use batch::{Batch, NftSocket};
pub use expression::{CtKey, Expression, FibResult, MetaKey, NatKind, Payload, Register, Verdict};

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    Ipv4,
    Ipv6,
    Bridge,
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Bridge => 7,
            Self::Ipv6 => 10,
        }
    }
}

/// Where in a packet's way a base chain sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// What kind of base chain it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
    /// Filter that makes the packet be routed again when it changed.
    Route,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChain {
    pub kind: ChainKind,
    pub hook: Hook,
    /// Lower runs earlier; `nft`'s `dstnat` is -100, `filter` 0, `srcnat` 100, `raw` -300.
    pub priority: i32,
    /// Whether packets that no rule decides are dropped.
    pub drop_by_default: bool,
}

/// The type of a part of a key or value. The kernel only knows lengths; these are what `nft`
/// prints them as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    Ipv4Address,
    Ipv6Address,
    InetProtocol,
    InetService,
    InterfaceName,
    Mark,
    Integer,
    EtherAddress,
}

impl DataType {
    /// `nft`'s own numbering (`datatype.h` of the nft program).
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Integer => 4,
            Self::Ipv4Address => 7,
            Self::Ipv6Address => 8,
            Self::EtherAddress => 9,
            Self::InetProtocol => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::InterfaceName => 41,
        }
    }

    pub(crate) fn length(self) -> u32 {
        match self {
            Self::InetProtocol => 1,
            Self::InetService => 2,
            Self::Ipv4Address | Self::Mark | Self::Integer => 4,
            Self::EtherAddress => 6,
            Self::InterfaceName | Self::Ipv6Address => 16,
        }
    }
}

/// What the elements of a map stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapsTo {
    /// Nothing: it is a set.
    Nothing,
    /// A value of these parts.
    Data(&'static [DataType]),
    /// A verdict.
    Verdict,
}

/// A named set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    pub key: &'static [DataType],
    pub value: MapsTo,
}

/// A member of a set, or an entry of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The parts of the key, each padded to four bytes: see [`concatenate`].
    pub key: Vec<u8>,
    pub value: ElementValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementValue {
    None,
    Data(Vec<u8>),
    Verdict(Verdict),
}

/// Joins the parts of a key or value as nf_tables registers hold them: each padded to four bytes.
/// A single part stays as it is.
pub fn concatenate(parts: &[&[u8]]) -> Vec<u8> {
    if let [single] = parts {
        return single.to_vec();
    }
    let mut joined = Vec::new();
    for part in parts {
        joined.extend_from_slice(part);
        joined.resize(joined.len().next_multiple_of(4), 0);
    }
    joined
}

/// An interface's name as nf_tables compares it: 16 bytes, zero-filled.
pub fn interface_name(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    // The kernel's limit is 15; a longer name cannot exist, so it must not match a shorter one.
    let length = name.len().min(16);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    padded
}
