//! Gets a task's image before its container is made.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use skep_agent::ControllerError;
use skep_model::Task;
use skep_registry::Credentials;

use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind};
use crate::registry::PullOptions;
use skep_image::{AnyReference, Reference};

/// A registry that is busy or restarting gets this many chances before the task is rejected; the
/// orchestrator tries anew after that.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Set, nothing is pulled: as with dockerd.
const OFFLINE: &str = "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE";

/// Pulls the image unless what is here will do. A tag that is here is asked for anew where the
/// registry is the user's own, and used as it is if that does not answer.
pub(super) async fn ensure(engine: &Arc<Engine>, task: &Task) -> Result<(), ControllerError> {
    let Some(spec) = task.container() else {
        return Ok(());
    };
    let Ok(AnyReference::Named(reference)) = AnyReference::parse(&spec.image) else {
        // An id, or nonsense that creating the container refuses with its own text.
        return Ok(());
    };
    let here = engine.images.get(&spec.image).is_ok();
    let offline = std::env::var_os(OFFLINE).is_some_and(|value| value == "1");
    if offline {
        return Ok(());
    }
    let credentials = spec
        .pull_options
        .as_ref()
        .map(|options| Credentials::from_header(&options.registry_auth))
        .unwrap_or_default();
    let anonymous = credentials == Credentials::default();
    if here && !may_have_moved(&reference, anonymous) {
        return Ok(());
    }
    let Err(error) = pull(engine, &reference.with_default_tag(), &credentials).await else {
        return Ok(());
    };
    if engine.images.get(&spec.image).is_ok() {
        tracing::info!(image = spec.image, %error, "can't ask for a newer image, using the one that is here");
        return Ok(());
    }
    tracing::error!(task.id = %task.id, image = spec.image, %error, "pulling an image failed");
    let why = EngineError::not_found(format!(
        "No such image: {}: {error}",
        Reference::parse(&spec.image)
            .map_or_else(|_| spec.image.clone(), |r| r.with_default_tag().familiar())
    ));
    Err(ControllerError::fatal(why))
}

/// Whether another image may have the name by now. A digest names one for ever. A public tag of
/// Docker Hub came without a digest because nobody could ask Docker Hub: without a way out each task
/// would wait for the resolver's timeout before it starts with what it has.
fn may_have_moved(reference: &Reference, anonymous: bool) -> bool {
    reference.digest().is_none() && !(anonymous && reference.domain() == "docker.io")
}

async fn pull(
    engine: &Arc<Engine>,
    reference: &Reference,
    credentials: &Credentials,
) -> Result<(), EngineError> {
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    loop {
        let options = PullOptions {
            reference: reference.clone(),
            platform: None,
            credentials: credentials.clone(),
        };
        let mut progress = engine.pull_image(options).await?;
        let mut outcome = Ok(());
        while let Some(message) = progress.next().await {
            if let Err(error) = message {
                outcome = Err(error);
            }
        }
        match outcome {
            Err(error) if attempt < ATTEMPTS && may_pass(&error) => {
                tracing::info!(image = %reference, attempt, %error, "can't pull yet");
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Whether the same question may be answered otherwise in a moment. A registry that is not there at
/// all is told at once: the task's restart policy asks again.
fn may_pass(error: &EngineError) -> bool {
    error.kind == ErrorKind::System
        && [
            "received unexpected HTTP status: 5",
            "toomanyrequests",
            "connection reset",
            "EOF",
            "timeout",
        ]
        .iter()
        .any(|sign| error.message.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_tag_that_is_here_is_not_asked_for_again() {
        let moved =
            |name: &str, anonymous| may_have_moved(&Reference::parse(name).unwrap(), anonymous);
        assert!(!moved("busybox:latest", true));
        assert!(moved("me/private:latest", false));
        assert!(moved("10.0.0.1:5000/app:latest", true));
        let digest = "a".repeat(64);
        assert!(!moved(&format!("10.0.0.1:5000/app@sha256:{digest}"), false));
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
        let system = |text: &str| EngineError::system(text);
        assert!(may_pass(&system(
            "received unexpected HTTP status: 503 Service Unavailable"
        )));
        assert!(may_pass(&system("Get \"https://r/v2/\": unexpected EOF")));
        assert!(!may_pass(&system(
            "Get \"https://r/v2/\": dial tcp: lookup r: no such host"
        )));
        assert!(!may_pass(&EngineError::not_found(
            "manifest for r/a:1 not found"
        )));
    }
}
