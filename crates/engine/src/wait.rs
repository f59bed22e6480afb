//! Waiting for a container's end.

use bollard_stubs::models as m;

use crate::container::Progress;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::types::{WaitCondition, WaitHandle};

impl Engine {
    /// Registers a wait. No end that comes after this returns is missed.
    pub async fn wait_container(&self, id: &str, condition: WaitCondition) -> Result<WaitHandle> {
        let container = self.containers.get(id)?;
        let mut progress = container.progress.subscribe();
        let seen = progress.borrow_and_update().exits;
        let id = container.id.clone();
        Ok(Box::pin(async move {
            let done = |now: &Progress| match condition {
                WaitCondition::NotRunning => !now.running,
                WaitCondition::NextExit => now.exits > seen || now.removed,
                WaitCondition::Removed => now.removed,
            };
            match progress.wait_for(done).await {
                Ok(now) => Ok(response(&now, condition)),
                Err(_) => Err(EngineError::system(format!("container {id} is gone"))),
            }
        }))
    }
}

/// A removal that was waited for has succeeded, whatever the start before it said.
fn response(progress: &Progress, condition: WaitCondition) -> m::ContainerWaitResponse {
    let failed = condition != WaitCondition::Removed && !progress.error.is_empty();
    m::ContainerWaitResponse {
        status_code: i64::from(progress.exit_code),
        error: failed.then(|| m::ContainerWaitExitError {
            message: Some(progress.error.clone()),
        }),
    }
}
