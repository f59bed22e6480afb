//! What the handlers work on.

use std::sync::Arc;

use skep_engine::Engine;
use skep_swarm::Cluster;

/// The daemon's parts that the API speaks for. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Containers, images, networks, volumes.
    pub(crate) engine: Arc<Engine>,
    /// This node's swarm membership, if any, and the way to its manager.
    pub(crate) cluster: Arc<Cluster>,
    /// Whether clients are told that experimental features are on.
    pub(crate) experimental: bool,
}

impl ApiState {
    /// The API's view of a running daemon.
    pub fn new(engine: Arc<Engine>, cluster: Arc<Cluster>, experimental: bool) -> Self {
        Self {
            engine,
            cluster,
            experimental,
        }
    }
}
