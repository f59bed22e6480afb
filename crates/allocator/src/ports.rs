//! Ports of the routing mesh.

use std::collections::BTreeMap;

use skep_proto as proto;
use skep_proto::port_config::PublishMode;

use crate::AllocationError;

/// What a service gets that names no port.
const DYNAMIC: std::ops::RangeInclusive<u32> = 30_000..=32_767;

/// Published ports by protocol and number, with the service that has each.
#[derive(Debug, Default, Clone)]
pub(crate) struct PortTable {
    taken: BTreeMap<(i32, u32), (String, String)>,
}

impl PortTable {
    pub(crate) fn release(&mut self, service: &str) {
        self.taken.retain(|_, (holder, _)| holder != service);
    }

    pub(crate) fn take(&mut self, service: &str, name: &str, ports: &[proto::PortConfig]) {
        for port in ports
            .iter()
            .filter(|port| is_mesh(port) && port.published_port != 0)
        {
            let key = (port.protocol, port.published_port);
            self.taken
                .entry(key)
                .or_insert_with(|| (service.to_owned(), name.to_owned()));
        }
    }

    /// The ports of a service with a number each. Those it had already stay the same.
    pub(crate) fn allocate(
        &self,
        service: &str,
        wanted: &[proto::PortConfig],
        before: &[proto::PortConfig],
    ) -> Result<Vec<proto::PortConfig>, AllocationError> {
        let mut given: Vec<proto::PortConfig> = Vec::new();
        for port in wanted {
            let mut port = port.clone();
            if is_mesh(&port) && port.published_port == 0 {
                let same = |one: &&proto::PortConfig| {
                    is_mesh(one)
                        && (one.protocol, one.target_port) == (port.protocol, port.target_port)
                        && !given.contains(one)
                        && !wanted
                            .iter()
                            .any(|other| other.published_port == one.published_port)
                };
                let earlier = before.iter().find(same).map(|one| one.published_port);
                let free = |number: &u32| {
                    !self.taken.contains_key(&(port.protocol, *number))
                        && !given.iter().chain(wanted).any(|one| {
                            (one.protocol, one.published_port) == (port.protocol, *number)
                        })
                };
                let chosen = earlier.or_else(|| DYNAMIC.clone().find(free));
                port.published_port = chosen.ok_or(AllocationError::NoPort)?;
            } else if is_mesh(&port)
                && let Some((holder, name)) = self.taken.get(&(port.protocol, port.published_port))
                && holder != service
            {
                return Err(AllocationError::PortInUse {
                    port: port.published_port,
                    name: name.clone(),
                    service: holder.clone(),
                });
            }
            given.push(port);
        }
        Ok(given)
    }
}

pub(crate) fn is_mesh(port: &proto::PortConfig) -> bool {
    port.publish_mode() == PublishMode::Ingress
}
