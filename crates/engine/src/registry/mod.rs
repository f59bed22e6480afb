//! Registries: pull, push, login, search.
//!
//! `skep-registry` speaks with them and `skep-image` keeps the images; here is what lies between:
//! which layers are fetched, Docker's progress messages and its error texts.

mod ask;
mod lookup;
mod progress;
mod pull;
mod push;
mod transfer;

use std::time::Duration;

use skep_image::Reference;
use skep_registry::{Code, Registry, RegistryConfig, RegistryError};

use crate::config::EngineConfig;
use crate::error::{EngineError, ErrorKind, Result};
use transfer::Transfers;

pub use pull::PullOptions;
pub use push::PushOptions;

/// The way to registries, shared by all pulls and pushes.
pub(crate) struct Registries {
    pub(crate) client: Registry,
    transfers: Transfers,
    lookups: lookup::Lookups,
    /// Names are found by somebody else then.
    indirect: bool,
}

impl Registries {
    pub(crate) fn new(config: &EngineConfig) -> Result<Self> {
        let client = Registry::new(RegistryConfig {
            insecure: config.insecure_registries.clone(),
            mirrors: config.registry_mirrors.clone(),
            proxy: config.registry.proxy.clone(),
            user_agent: format!("docker/{} skep", crate::SERVER_VERSION),
            downloads: config.registry.downloads,
            uploads: config.registry.uploads,
            attempts: config.registry.attempts,
            ..RegistryConfig::default()
        })?;
        let proxy = &config.registry.proxy;
        let proxied = [&proxy.http, &proxy.https]
            .iter()
            .any(|url| !url.is_empty());
        Ok(Self {
            client,
            transfers: Transfers::default(),
            lookups: lookup::Lookups::default(),
            indirect: proxied || !config.registry_mirrors.is_empty(),
        })
    }
}

/// How long a second attempt waits after the first.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

impl From<RegistryError> for EngineError {
    fn from(error: RegistryError) -> Self {
        let kind = match error.kind() {
            skep_registry::ErrorKind::NotFound => ErrorKind::NotFound,
            skep_registry::ErrorKind::Unauthorized => ErrorKind::Unauthorized,
            skep_registry::ErrorKind::Forbidden => ErrorKind::Forbidden,
            skep_registry::ErrorKind::InvalidParameter => ErrorKind::InvalidParameter,
            skep_registry::ErrorKind::System => ErrorKind::System,
        };
        Self::new(kind, error.to_string())
    }
}

/// A pull's failure as dockerd tells it.
fn pull_error(error: RegistryError, reference: &Reference) -> EngineError {
    let name = reference.familiar_name();
    let what = match error.code() {
        Some(Code::Denied) => format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login'"
        ),
        Some(Code::ManifestUnknown) => format!("manifest for {} not found", reference.familiar()),
        Some(Code::NameUnknown) => format!("repository {name} not found"),
        _ => return error.into(),
    };
    EngineError::not_found(format!("{what}: {error}"))
}

/// A reference from the two parameters that clients send; the tag may be a digest.
pub fn reference(name: &str, tag: &str) -> Result<Reference> {
    let invalid = |error: skep_image::ReferenceError| EngineError::invalid(error.to_string());
    let reference = Reference::parse(name.trim_end_matches(':')).map_err(invalid)?;
    if tag.is_empty() {
        return Ok(reference);
    }
    match tag.parse() {
        Ok(digest) => Ok(reference.trimmed().with_digest(digest)),
        Err(_) => reference.with_tag(tag).map_err(invalid),
    }
}
