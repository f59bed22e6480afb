//! Running a swarm's tasks: the agent's `Executor` and `Controller` on this engine.
//!
//! A task's container is found by its name and its task label, so that an agent that starts anew
//! goes on with the containers it finds.
//!
//! A task's image is pulled where the node has none that serves. Overlays, virtual addresses and the
//! routing mesh reach one node so far: the managers' endpoint feed does not go over the wire yet.

mod controller;
mod describe;
mod extras;
mod files;
mod networks;
mod pull;
mod request;
mod template;

use std::sync::Arc;

use skep_agent::{Controller, ControllerError, Dependencies, Executor};
use skep_model::Task;
use skep_proto as proto;

use crate::engine::Engine;
use controller::TaskController;
pub use extras::GRANTS;

/// Marks what belongs to a swarm.
pub(crate) const LABEL_PREFIX: &str = "com.docker.swarm";

/// Runs tasks on an engine.
pub struct TaskExecutor {
    engine: Arc<Engine>,
}

impl TaskExecutor {
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[async_trait::async_trait]
impl Executor for TaskExecutor {
    async fn describe(&self) -> Result<proto::NodeDescription, ControllerError> {
        Ok(describe::describe(&self.engine))
    }

    async fn configure(&self, node: &proto::Node) -> Result<(), ControllerError> {
        let node = networks::swarm_node(node);
        let configured = self.engine.networks.set_swarm_node(node).await;
        configured.map_err(ControllerError::fatal)
    }

    async fn set_endpoints(
        &self,
        update: proto::feed::EndpointUpdate,
    ) -> Result<(), ControllerError> {
        let followed = self.engine.networks.set_endpoints(update).await;
        followed.map_err(ControllerError::fatal)
    }

    async fn left(&self) -> Result<(), ControllerError> {
        let left = self.engine.networks.leave_swarm().await;
        left.map_err(ControllerError::fatal)
    }

    fn controller(
        &self,
        task: &Task,
        dependencies: Arc<Dependencies>,
    ) -> Result<Arc<dyn Controller>, ControllerError> {
        if task.container().is_none() {
            return Err(ControllerError::fatal("only container tasks are supported"));
        }
        Ok(Arc::new(TaskController::new(
            self.engine.clone(),
            task.clone(),
            dependencies,
        )))
    }

    async fn set_network_bootstrap_keys(
        &self,
        _keys: &[proto::EncryptionKey],
    ) -> Result<(), ControllerError> {
        // They encrypt gossip and encrypted overlays, of which there are none.
        Ok(())
    }
}
