//! Blobs to a registry.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use skep_reference::Digest;
use tokio_util::io::ReaderStream;

use crate::error::RegistryError;
use crate::http_client::{Ask, UPLOAD, checked};
use crate::repository::Repository;

const CHUNK: usize = 64 << 10;

/// A blob in a file.
#[derive(Debug, Clone)]
pub struct BlobSource {
    pub path: PathBuf,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Told how many bytes have been sent.
pub type UploadBody = Arc<dyn Fn(u64) + Send + Sync>;

/// What a registry did when asked to take a blob from another repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    Yes,
    /// It wants the content, and said where to.
    No {
        upload: String,
    },
}

impl Repository {
    /// Asks for a place to upload to; with `from`, first for the blob of another repository of the
    /// same registry.
    pub async fn begin_upload(
        &self,
        digest: &Digest,
        from: Option<&str>,
    ) -> Result<Mounted, RegistryError> {
        let mut url = self.url("blobs/uploads/");
        if let Some(from) = from {
            let query = [("from", from), ("mount", digest.as_str())];
            url = format!(
                "{url}?{}",
                serde_urlencoded::to_string(query).unwrap_or_default()
            );
        }
        let mut ask = Ask::new(Method::POST, url.clone());
        ask.patience = UPLOAD;
        let ask = ask.header(http::header::CONTENT_LENGTH, "0");
        let answer = checked(self.ask(ask, from).await?).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(Mounted::Yes);
        }
        Ok(Mounted::No {
            upload: Self::location(&url, &answer)?,
        })
    }

    /// Sends a blob to the place that [`Repository::begin_upload`] was told, and closes it.
    pub async fn upload(
        &self,
        place: &str,
        blob: &BlobSource,
        tell: UploadBody,
    ) -> Result<(), RegistryError> {
        let file = tokio::fs::File::open(&blob.path)
            .await
            .map_err(|error| RegistryError::io(format!("open {}", blob.path.display()), error))?;
        let mut sent = 0;
        let stream = ReaderStream::with_capacity(file, CHUNK)
            .inspect_ok(move |chunk: &Bytes| {
                sent += chunk.len() as u64;
                tell(sent);
            })
            .map(|chunk| chunk.map(Frame::data));
        let body = StreamBody::new(stream).boxed_unsync();
        let answer = self
            .send_body(Method::PATCH, place.to_owned(), blob.size, body)
            .await?;
        let answer = checked(answer).await?;
        let next = Self::location(place, &answer)?;
        let separator = if next.contains('?') { '&' } else { '?' };
        let query =
            serde_urlencoded::to_string([("digest", blob.digest.as_str())]).unwrap_or_default();
        let mut ask = Ask::new(Method::PUT, format!("{next}{separator}{query}"))
            .header(http::header::CONTENT_LENGTH, "0");
        ask.patience = UPLOAD;
        checked(self.ask(ask, None).await?).await.map(drop)
    }

    /// Sends a small document.
    pub async fn upload_bytes(&self, digest: &Digest, bytes: Bytes) -> Result<(), RegistryError> {
        if self.blob_size(digest).await.ok().flatten().is_some() {
            return Ok(());
        }
        let Mounted::No { upload } = self.begin_upload(digest, None).await? else {
            return Ok(());
        };
        let separator = if upload.contains('?') { '&' } else { '?' };
        let query = serde_urlencoded::to_string([("digest", digest.as_str())]).unwrap_or_default();
        let mut ask = Ask::new(Method::PUT, format!("{upload}{separator}{query}"))
            .header(http::header::CONTENT_TYPE, "application/octet-stream");
        ask.body = bytes;
        ask.patience = UPLOAD;
        checked(self.ask(ask, None).await?).await.map(drop)
    }
}
