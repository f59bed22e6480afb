//! Choosing a subnet for a network that asks for none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Prefix;

/// One `--default-address-pool base=…,size=…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    pub base: Prefix,
    /// Prefix length of each network cut from it.
    pub size: u8,
}

/// Docker's own pools, in its order: 172.17-31/16 and then 192.168/16 in pieces of /20.
pub fn docker_pools() -> Vec<AddressPool> {
    let pool = |a, b, length, size| AddressPool {
        base: Prefix::new(Ipv4Addr::new(a, b, 0, 0), length).expect("an IPv4 prefix is at most 32"),
        size,
    };
    vec![
        pool(172, 17, 16, 16),
        pool(172, 18, 16, 16),
        pool(172, 19, 16, 16),
        pool(172, 20, 14, 16),
        pool(172, 24, 14, 16),
        pool(172, 28, 14, 16),
        pool(192, 168, 16, 20),
    ]
}

/// The first piece of the pools that overlaps nothing in `used`.
pub fn choose(pools: &[AddressPool], used: &[Prefix], ipv4: bool) -> Option<Prefix> {
    pools
        .iter()
        .filter(|pool| pool.base.is_ipv4() == ipv4)
        .find_map(|pool| choose_in(*pool, used))
}

fn choose_in(pool: AddressPool, used: &[Prefix]) -> Option<Prefix> {
    let width = if pool.base.is_ipv4() { 32 } else { 128 };
    let step = 1_u128.checked_shl(u32::from(width - pool.size))?;
    let mut offset = 0_u128;
    loop {
        let candidate = Prefix::new(pool.base.network().nth(offset)?, pool.size)?;
        let Some(obstacle) = used
            .iter()
            .filter(|prefix| prefix.overlaps(candidate))
            .max_by_key(|prefix| prefix.last())
        else {
            return Some(candidate);
        };
        // Jump behind what is in the way: it may be far larger than one piece.
        let past = number(obstacle.last())
            .checked_add(1)?
            .checked_sub(number(pool.base.network().address()))?;
        offset = past
            .checked_next_multiple_of(step)?
            .max(offset.checked_add(step)?);
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// A random piece of the unique local addresses (RFC 4193), for IPv6 networks without a pool.
pub fn unique_local(random: [u8; 5]) -> Prefix {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&random);
    Prefix::new(Ipv6Addr::from(octets), 64).expect("64 is at most 128")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(used: &[&str]) -> String {
        choose(&docker_pools(), &prefixes(used), true)
            .unwrap()
            .to_string()
    }

    #[test]
    fn takes_the_pools_in_dockers_order() {
        assert_eq!(chosen(&[]), "172.17.0.0/16");
        assert_eq!(chosen(&["172.17.5.0/24"]), "172.18.0.0/16");
        let used: Vec<String> = (17..=31).map(|n| format!("172.{n}.0.0/16")).collect();
        let mut used: Vec<&str> = used.iter().map(String::as_str).collect();
        assert_eq!(chosen(&used), "192.168.0.0/20");
        used.push("192.168.0.0/24");
        assert_eq!(chosen(&used), "192.168.16.0/20");
    }

    #[test]
    fn jumps_over_a_large_obstacle_and_ends_when_nothing_is_left() {
        assert_eq!(chosen(&["172.16.0.0/12"]), "192.168.0.0/20");
        assert_eq!(
            choose(&docker_pools(), &prefixes(&["0.0.0.0/0"]), true),
            None
        );
        assert_eq!(choose(&docker_pools(), &[], false), None);
    }

    #[test]
    fn unique_local_networks_start_with_fd() {
        assert_eq!(
            unique_local([1, 2, 3, 4, 5]).to_string(),
            "fd01:203:405::/64"
        );
    }
}
