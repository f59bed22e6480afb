//! The Control API: what users may ask of the swarm, as SwarmKit's messages, with its refusals.
//!
//! Works on the leader only, since it writes. Reads are from the local store.

mod cluster;
mod config;
mod filter;
mod network;
mod node;
mod ports;
mod root;
mod secret;
mod service;
mod task;
mod validate;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use skep_model::Timestamp;
use skep_store::Store;

use crate::members::Members;
pub use root::ExternalAuthorities;

/// SwarmKit's Control service.
#[derive(Clone, Debug)]
pub struct Control {
    store: Store,
    members: Members,
    external: Option<Arc<dyn ExternalAuthorities>>,
}

impl Control {
    pub fn new(store: Store, members: Members) -> Self {
        Self {
            store,
            members,
            external: None,
        }
    }

    pub(crate) fn reach(&mut self, external: Arc<dyn ExternalAuthorities>) {
        self.external = Some(external);
    }
}

fn now() -> prost_types::Timestamp {
    Timestamp::from(SystemTime::now()).into()
}
