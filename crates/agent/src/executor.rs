//! What runs tasks on this node. The engine implements it.

use crate::{Controller, ControllerError, Dependencies};
use skep_model::Task;
use skep_proto as proto;
use std::sync::Arc;

#[async_trait::async_trait]
pub trait Executor: Send + Sync + 'static {
    /// What this node is and has: reported at registration, and again when it changes.
    async fn describe(&self) -> Result<proto::NodeDescription, ControllerError>;

    /// The managers' view of this node changed (its labels, availability, attachments).
    async fn configure(&self, node: &proto::Node) -> Result<(), ControllerError>;

    /// A controller for a task. Must only look, not touch: it is also made for a task that is only to
    /// be removed. An error rejects (or, once started, fails) the task.
    fn controller(
        &self,
        task: &Task,
        dependencies: Arc<Dependencies>,
    ) -> Result<Arc<dyn Controller>, ControllerError>;

    /// Who is where on the networks of this node changed. What is not in the update is as it was.
    async fn set_endpoints(
        &self,
        _update: proto::feed::EndpointUpdate,
    ) -> Result<(), ControllerError> {
        Ok(())
    }

    /// The node is in no swarm any more, and the tasks are gone: what the managers said is void.
    async fn left(&self) -> Result<(), ControllerError> {
        Ok(())
    }

    async fn set_network_bootstrap_keys(
        &self,
        keys: &[proto::EncryptionKey],
    ) -> Result<(), ControllerError>;
}
