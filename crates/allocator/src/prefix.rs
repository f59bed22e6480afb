//! An address with a prefix length, as in `172.17.0.1/16`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address and the length of its network part. The host bits may be set (`--bip 172.17.0.1/16`);
/// [`Prefix::network`] clears them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// The text is not an address, a slash and a prefix length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidPrefix(pub String);

impl Prefix {
    /// `None` if `length` is longer than the address.
    pub fn new(address: impl Into<IpAddr>, length: u8) -> Option<Self> {
        let address = address.into();
        (length <= width(address)).then_some(Self { address, length })
    }

    pub fn address(self) -> IpAddr {
        self.address
    }

    pub fn length(self) -> u8 {
        self.length
    }

    /// The same network with the host bits cleared.
    #[must_use]
    pub fn network(self) -> Self {
        Self {
            address: self.at(self.bits() & self.mask()),
            length: self.length,
        }
    }

    /// The highest address of the network (IPv4: its broadcast address).
    pub fn last(self) -> IpAddr {
        self.at(self.bits() | !self.mask() & self.full())
    }

    /// The address `offset` above the network's lowest one; `None` beyond the end.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        let address = (self.bits() & self.mask()).checked_add(offset)?;
        let inside = address & self.mask() == self.bits() & self.mask() && address <= self.full();
        inside.then(|| self.at(address))
    }

    /// The inverse of [`Prefix::nth`]; `None` for an address outside.
    pub fn offset_of(self, address: IpAddr) -> Option<u128> {
        self.contains(address)
            .then(|| bits(address) - (self.bits() & self.mask()))
    }

    pub fn contains(self, address: IpAddr) -> bool {
        width(address) == width(self.address)
            && bits(address) & self.mask() == self.bits() & self.mask()
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network().address) || other.contains(self.network().address)
    }

    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    fn bits(self) -> u128 {
        bits(self.address)
    }

    fn full(self) -> u128 {
        if self.is_ipv4() {
            u128::from(u32::MAX)
        } else {
            u128::MAX
        }
    }

    fn mask(self) -> u128 {
        let host_bits = u32::from(width(self.address) - self.length);
        self.full() & u128::MAX.checked_shl(host_bits).unwrap_or(0)
    }

    fn at(self, bits: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(bits as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(bits)),
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPrefix(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        // `u8::from_str` would take `+16`.
        if !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        Self::new(address, length.parse().map_err(|_| invalid())?).ok_or_else(invalid)
    }
}

impl TryFrom<String> for Prefix {
    type Error = InvalidPrefix;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn clears_host_bits_and_finds_both_ends() {
        let bip = prefix("172.17.0.1/16");
        assert_eq!(bip.network().to_string(), "172.17.0.0/16");
        assert_eq!(bip.last().to_string(), "172.17.255.255");
        assert_eq!(
            prefix("fd00::5/64").last().to_string(),
            "fd00::ffff:ffff:ffff:ffff"
        );
        assert_eq!(prefix("0.0.0.0/0").last().to_string(), "255.255.255.255");
    }

    #[test]
    fn counts_addresses_up_to_the_last_one_and_no_further() {
        let net = prefix("10.0.0.0/30");
        assert_eq!(net.nth(3), Some("10.0.0.3".parse().unwrap()));
        assert_eq!(net.nth(4), None);
        assert_eq!(
            prefix("::/0").nth(u128::MAX),
            Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap())
        );
    }

    #[test]
    fn families_never_overlap() {
        assert!(prefix("10.0.0.0/8").overlaps(prefix("10.1.0.0/16")));
        assert!(prefix("10.1.0.0/16").overlaps(prefix("10.0.0.0/8")));
        assert!(!prefix("10.0.0.0/16").overlaps(prefix("10.1.0.0/16")));
        assert!(!prefix("::/0").overlaps(prefix("0.0.0.0/0")));
    }

    #[test]
    fn refuses_what_is_not_an_address_with_a_length() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/+8",
            "fd00::/129",
            "a/1",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
