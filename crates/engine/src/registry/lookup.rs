//! Whether a registry's name can be found at all, without the resolver's own patience.
//!
//! The CLI asks for an image's digest before each `service create` and only warns if it gets none. On a
//! machine without a way out that question would take as long as the resolver tries, some ten seconds
//! each time; here the first answer comes after three, and is remembered for a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use skep_image::Reference;

use crate::error::{EngineError, Result};

const PATIENCE: Duration = Duration::from_secs(3);
const MEMORY: Duration = Duration::from_secs(30);
/// Docker Hub's images are named `docker.io`, its registry is not.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// Names that could not be found lately.
#[derive(Default)]
pub(super) struct Lookups {
    failed: Mutex<HashMap<String, (Instant, EngineError)>>,
}

impl Lookups {
    /// Fails if the registry of an image has a name that nobody knows, or nobody tells in time.
    pub(super) async fn check(&self, reference: &Reference) -> Result<()> {
        let host = match reference.domain() {
            "docker.io" => DOCKER_HUB,
            other => other,
        };
        if let Some((since, error)) = self.failed.lock().get(host)
            && since.elapsed() < MEMORY
        {
            return Err(error.clone());
        }
        let target = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:443")
        };
        let reason = match tokio::time::timeout(PATIENCE, tokio::net::lookup_host(target)).await {
            Ok(Ok(_)) => {
                self.failed.lock().remove(host);
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "i/o timeout".to_owned(),
        };
        let error = EngineError::system(format!(
            "Get \"https://{host}/v2/\": dial tcp: lookup {host}: {reason}"
        ));
        let mut failed = self.failed.lock();
        failed.retain(|_, (since, _)| since.elapsed() < MEMORY);
        failed.insert(host.to_owned(), (Instant::now(), error.clone()));
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_known_and_failures_are_remembered() {
        let lookups = Lookups::default();
        let known = Reference::parse("127.0.0.1:5000/app").unwrap();
        lookups.check(&known).await.unwrap();
        let unknown = Reference::parse("no-such-registry.invalid/app").unwrap();
        let error = lookups.check(&unknown).await.unwrap_err();
        assert!(
            error
                .message
                .starts_with("Get \"https://no-such-registry.invalid/v2/\": dial tcp: lookup "),
            "{error}"
        );
        let before = Instant::now();
        assert_eq!(lookups.check(&unknown).await.unwrap_err(), error);
        assert!(before.elapsed() < PATIENCE / 2);
    }
}
