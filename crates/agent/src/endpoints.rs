//! Follows the managers' endpoint feed and hands it to the executor.

use std::time::Duration;

use futures::StreamExt as _;
use skep_proto as proto;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{DispatcherClient, Executor};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A manager without a feed may be followed by one that has it.
const WITHOUT_FEED: Duration = Duration::from_secs(10);

/// Runs until stopped. Whatever the node knows stays while no manager can be reached.
pub(crate) async fn follow(
    dispatcher: &dyn DispatcherClient,
    executor: &dyn Executor,
    stop: &CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let followed = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            followed = follow_one(dispatcher, executor) => followed,
        };
        pause = match followed {
            Followed::Some => FIRST_PAUSE,
            Followed::Nothing => (pause * 2).min(LONGEST_PAUSE),
            Followed::NotThere => WITHOUT_FEED,
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

enum Followed {
    Some,
    Nothing,
    NotThere,
}

async fn follow_one(dispatcher: &dyn DispatcherClient, executor: &dyn Executor) -> Followed {
    let request = proto::feed::WatchEndpointsRequest::default();
    let mut updates = match dispatcher.endpoints(request).await {
        Ok(updates) => updates,
        Err(status) if status.code() == Code::Unimplemented => return Followed::NotThere,
        Err(status) => {
            tracing::debug!(%status, "no endpoint feed");
            return Followed::Nothing;
        }
    };
    let mut followed = Followed::Nothing;
    while let Some(update) = updates.next().await {
        match update {
            Ok(update) => {
                followed = Followed::Some;
                if let Err(error) = executor.set_endpoints(update).await {
                    tracing::error!(%error, "could not follow the networks' endpoints");
                    // From the beginning: what is here may be half of it.
                    return Followed::Nothing;
                }
            }
            Err(status) => {
                tracing::debug!(%status, "the endpoint feed ended");
                return followed;
            }
        }
    }
    followed
}
