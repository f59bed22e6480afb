//! Which addresses of a subnet are taken.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::Prefix;

/// The addresses of one subnet. Free ones are given out lowest first, as Docker does, so that a
/// container that is stopped and started alone gets its address back.
#[derive(Debug, Clone)]
pub struct AddressSet {
    subnet: Prefix,
    /// The part of the subnet that is given out when nobody asks for a certain address.
    range: Prefix,
    taken: BTreeSet<IpAddr>,
    /// No free address of the range is below this one.
    lowest: u128,
}

/// The wanted address cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    Taken,
    OutsideSubnet,
}

impl AddressSet {
    pub fn new(subnet: Prefix, range: Option<Prefix>) -> Self {
        let subnet = subnet.network();
        let mut taken = BTreeSet::new();
        let host_bits = (if subnet.is_ipv4() { 32 } else { 128 }) - subnet.length();
        // RFC 3021: a /31 has neither network nor broadcast address; nor has a single address.
        if host_bits > 1 {
            taken.insert(subnet.address());
            if subnet.is_ipv4() {
                taken.insert(subnet.last());
            }
        }
        let range = range.map_or(subnet, Prefix::network);
        Self {
            subnet,
            range,
            taken,
            lowest: 0,
        }
    }

    /// Takes the lowest free address of the range.
    pub fn allocate(&mut self) -> Option<IpAddr> {
        let mut offset = self.lowest;
        loop {
            let address = self.range.nth(offset)?;
            if self.taken.insert(address) {
                self.lowest = offset + 1;
                return Some(address);
            }
            offset += 1;
            self.lowest = offset;
        }
    }

    /// Takes the first free address of the range behind `last`, and begins again at its end: a freed
    /// one is not given out again at once.
    pub fn allocate_after(&mut self, last: Option<IpAddr>) -> Option<IpAddr> {
        let next = last
            .and_then(|last| self.range.offset_of(last))
            .map_or(0, |offset| offset + 1);
        let mut offset = next;
        while let Some(address) = self.range.nth(offset) {
            if self.taken.insert(address) {
                return Some(address);
            }
            offset += 1;
        }
        (0..next).find_map(|offset| {
            let address = self.range.nth(offset)?;
            self.taken.insert(address).then_some(address)
        })
    }

    /// How many addresses the range has that can be given out.
    pub fn size(&self) -> u128 {
        let bits = (if self.range.is_ipv4() { 32 } else { 128 }) - self.range.length();
        let all = 1_u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX);
        all.saturating_sub(if bits > 1 { 2 } else { 0 })
    }

    /// Takes a certain address of the subnet, in the range or not.
    pub fn take(&mut self, address: IpAddr) -> Result<(), Unavailable> {
        if !self.subnet.contains(address) {
            return Err(Unavailable::OutsideSubnet);
        }
        if self.taken.insert(address) {
            Ok(())
        } else {
            Err(Unavailable::Taken)
        }
    }

    pub fn release(&mut self, address: IpAddr) {
        if self.taken.remove(&address) {
            // Searching again from the bottom is right whatever was freed, and rare.
            self.lowest = 0;
        }
    }

    #[cfg(test)]
    fn taken(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(subnet: &str, range: Option<&str>) -> AddressSet {
        AddressSet::new(
            subnet.parse().unwrap(),
            range.map(|text| text.parse().unwrap()),
        )
    }

    #[test]
    fn gives_out_the_lowest_free_address_and_never_the_ends() {
        let mut set = set("10.0.0.0/29", None);
        let all: Vec<_> = std::iter::from_fn(|| set.allocate())
            .map(|ip| ip.to_string())
            .collect();
        assert_eq!(
            all,
            [
                "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"
            ]
        );
        set.release("10.0.0.3".parse().unwrap());
        assert_eq!(set.allocate().unwrap().to_string(), "10.0.0.3");
        assert_eq!(set.allocate(), None);
    }

    #[test]
    fn a_range_limits_what_is_given_out_but_not_what_can_be_asked_for() {
        let mut set = set("10.0.0.0/24", Some("10.0.0.128/31"));
        assert_eq!(set.allocate().unwrap().to_string(), "10.0.0.128");
        assert_eq!(set.take("10.0.0.5".parse().unwrap()), Ok(()));
        assert_eq!(
            set.take("10.0.0.5".parse().unwrap()),
            Err(Unavailable::Taken)
        );
        assert_eq!(
            set.take("10.0.1.5".parse().unwrap()),
            Err(Unavailable::OutsideSubnet)
        );
        assert_eq!(set.allocate().unwrap().to_string(), "10.0.0.129");
        assert_eq!(set.allocate(), None);
    }

    #[test]
    fn a_pair_network_uses_both_addresses() {
        let mut set = set("10.0.0.0/31", None);
        assert_eq!(set.allocate().unwrap().to_string(), "10.0.0.0");
        assert_eq!(set.allocate().unwrap().to_string(), "10.0.0.1");
    }

    proptest! {
        #[test]
        fn no_address_is_doubled_or_lost(steps in proptest::collection::vec((any::<bool>(), 0_usize..40), 0..300)) {
            let mut set = set("10.0.0.0/27", None);
            let empty = set.taken();
            let mut held: Vec<IpAddr> = Vec::new();
            for (allocate, pick) in steps {
                if allocate {
                    if let Some(address) = set.allocate() {
                        prop_assert!(!held.contains(&address));
                        held.push(address);
                    } else {
                        prop_assert_eq!(held.len(), 30);
                    }
                } else if !held.is_empty() {
                    set.release(held.swap_remove(pick % held.len()));
                }
            }
            for address in held {
                set.release(address);
            }
            prop_assert_eq!(set.taken(), empty);
        }
    }
}
