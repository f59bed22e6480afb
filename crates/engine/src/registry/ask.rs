//! Questions that registries answer at once: login, search, what a name stands for.

use std::pin::Pin;
use std::task::{Context, Poll};

use bollard_stubs::models as m;
use futures::{Stream, StreamExt as _};
use serde_json::json;
use skep_image::Reference;
use skep_registry::{Access, Credentials, ManifestBody, Platform};
use tokio::task::JoinHandle;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::filters::Filters;
use crate::types::ProgressStream;

impl Engine {
    /// Tries credentials; the identity token to keep instead of a password, if there is one.
    pub async fn login(&self, credentials: &Credentials) -> Result<String> {
        let token = self.registries.client.login(credentials).await?;
        Ok(token.unwrap_or_default())
    }

    /// `docker search`
    pub async fn search_images(
        &self,
        term: &str,
        limit: i64,
        filters: &Filters,
        credentials: &Credentials,
    ) -> Result<Vec<m::ImageSearchResponseItem>> {
        filters.check(&["is-automated", "is-official", "stars"])?;
        if filters.boolean("is-automated")? == Some(true) {
            return Ok(Vec::new());
        }
        let official = filters.boolean("is-official")?;
        let mut stars = 0;
        for text in filters.get("stars") {
            let wanted: i64 = text.parse().map_err(|_| {
                EngineError::invalid(format!(
                    "invalid filter 'stars={text}': strconv.Atoi: parsing {text:?}: invalid syntax"
                ))
            })?;
            stars = stars.max(wanted);
        }
        let found = self
            .registries
            .client
            .search(term, limit, credentials)
            .await?;
        Ok(found
            .into_iter()
            .filter(|result| official.is_none_or(|wanted| wanted == result.is_official))
            .filter(|result| result.star_count >= stars)
            .map(|result| m::ImageSearchResponseItem {
                name: Some(result.name),
                description: Some(result.description),
                star_count: Some(result.star_count),
                is_official: Some(result.is_official),
                is_automated: Some(false),
            })
            .collect())
    }

    /// What a name stands for at its registry: digest, size and platforms.
    pub async fn inspect_distribution(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<serde_json::Value> {
        let reference = reference.clone().with_default_tag();
        if !self.registries.indirect {
            self.registries.lookups.check(&reference).await?;
        }
        let client = &self.registries.client;
        let mut attempts = client.attempts(&reference, true).await;
        loop {
            let endpoint = attempts.take_next()?;
            let asked = async {
                let repository = client
                    .connect(&endpoint, &reference, Access::Pull, credentials)
                    .await?;
                let manifest = repository.manifest(&reference).await?;
                let platforms = match &manifest.body {
                    ManifestBody::Index(entries) => entries
                        .iter()
                        .map(|entry| entry.platform.clone().unwrap_or_default())
                        .collect(),
                    ManifestBody::Image(image) => repository
                        .config(&image.config.digest)
                        .await
                        .ok()
                        .and_then(|config| serde_json::from_slice::<Platform>(&config).ok())
                        .filter(|p| !p.os.is_empty() || !p.architecture.is_empty())
                        .into_iter()
                        .collect::<Vec<_>>(),
                };
                Ok((manifest, platforms))
            };
            match asked.await {
                Ok((manifest, platforms)) => {
                    return Ok(json!({
                        "Descriptor": {
                            "mediaType": manifest.media_type,
                            "digest": manifest.digest,
                            "size": manifest.bytes.len(),
                        },
                        "Platforms": platforms,
                    }));
                }
                Err(error) => attempts.failed(&endpoint, error)?,
            }
        }
    }
}

/// A stream whose work ends with it.
pub(super) fn cancelling(stream: ProgressStream, task: JoinHandle<()>) -> ProgressStream {
    Cancelling { stream, task }.boxed()
}

struct Cancelling {
    stream: ProgressStream,
    task: JoinHandle<()>,
}

impl Stream for Cancelling {
    type Item = <ProgressStream as Stream>::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(context)
    }
}

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.task.abort();
    }
}
