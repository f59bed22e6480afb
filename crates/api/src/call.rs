//! One request on its way through a handler.

use axum::body::Body;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use http::{Extensions, HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use skep_engine::{ByteStream, Filters};

use crate::error::{ApiError, ApiResult};
use crate::gojson::{self, ReadError};
use crate::query::Query;
use crate::serve::Shutdown;
use crate::version::ApiVersion;

/// JSON bodies are specifications and options; anything near this is an attack or a mistake.
/// Configs and secrets (500 KiB, base64) fit many times.
const MAX_JSON_BODY: usize = 16 * 1024 * 1024;

/// What a handler is given.
pub(crate) struct Call<S> {
    pub(crate) state: S,
    pub(crate) method: Method,
    /// The version the client speaks; ours if it did not say.
    pub(crate) version: ApiVersion,
    pub(crate) params: Vec<(&'static str, String)>,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) body: Body,
}

/// A handler's pending answer.
pub(crate) type HandlerFuture = BoxFuture<'static, ApiResult>;

impl<S> Call<S> {
    /// Resolves when the daemon goes down: answers that never end by themselves end then.
    pub(crate) fn shutdown(&self) -> impl Future<Output = ()> + Send + 'static {
        let shutdown = self.extensions.get::<Shutdown>().cloned();
        async move {
            match shutdown {
                Some(Shutdown(token)) => token.cancelled_owned().await,
                // Not on a connection of ours: a test.
                None => std::future::pending().await,
            }
        }
    }

    /// A part of the path, decoded.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params
            .iter()
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    }

    /// The `filters` parameter.
    pub(crate) fn filters(&self) -> ApiResult<Filters> {
        Ok(Filters::from_json(self.query.get("filters"))?)
    }

    /// The body as JSON; nothing at all reads as `T`'s default, as in Docker.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> ApiResult<T> {
        let Some(text) = self.json_text().await? else {
            return Ok(T::default());
        };
        gojson::from_slice(&text).map_err(read_error)
    }

    /// The body's bytes if there is one, after the content type was checked.
    pub(crate) async fn json_text(&mut self) -> ApiResult<Option<Bytes>> {
        let length = self.content_length();
        check_content_type(&self.headers, length)?;
        if length == Some(0) {
            return Ok(None);
        }
        let body = std::mem::take(&mut self.body);
        let collected = Limited::new(body, MAX_JSON_BODY)
            .collect()
            .await
            .map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request body too large")
                } else {
                    ApiError::invalid(format!("invalid JSON: {error}"))
                }
            })?;
        Ok(Some(collected.to_bytes()))
    }

    /// The declared length; zero without any sign of a body, nothing if it is sent in chunks.
    pub(crate) fn content_length(&self) -> Option<u64> {
        if self.headers.contains_key(header::TRANSFER_ENCODING) {
            return None;
        }
        let declared = self.headers.get(header::CONTENT_LENGTH);
        Some(
            declared
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .unwrap_or(0),
        )
    }

    /// The body as it arrives, for archives.
    pub(crate) fn byte_stream(&mut self) -> ByteStream {
        let body = std::mem::take(&mut self.body);
        Box::pin(TryStreamExt::map_err(
            body.into_data_stream(),
            std::io::Error::other,
        ))
    }
}

/// Go's rule: no content type is fine without a body, otherwise it has to be JSON.
fn check_content_type(headers: &HeaderMap, length: Option<u64>) -> ApiResult<()> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if kind.is_empty() && length == Some(0) {
        return Ok(());
    }
    let mime = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if mime.is_empty() {
        return Err(ApiError::invalid(format!(
            "malformed Content-Type header ({kind}): mime: no media type"
        )));
    }
    if mime != "application/json" {
        return Err(ApiError::invalid(format!(
            "unsupported Content-Type header ({kind}): must be 'application/json'"
        )));
    }
    Ok(())
}

fn read_error(error: ReadError) -> ApiError {
    ApiError::invalid(match error {
        ReadError::Empty => "invalid JSON: got EOF while reading request body".to_owned(),
        ReadError::Trailing => error.to_string(),
        other => format!("invalid JSON: {other}"),
    })
}
