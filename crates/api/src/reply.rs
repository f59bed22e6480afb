//! The shapes of answers: JSON, nothing, text, and streams that flush each item at once.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// What Docker calls a stream without framing (a TTY, or any stream before API 1.42).
pub(crate) const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// What Docker calls a stream with an 8-byte header before each chunk.
pub(crate) const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";
/// Ordinary JSON.
pub(crate) const JSON: &str = "application/json";

/// 200 with JSON.
pub(crate) fn json(value: &impl Serialize) -> Response {
    json_with(StatusCode::OK, value)
}

/// JSON with any status. Ends in a line feed, as Go's encoder does.
pub(crate) fn json_with(status: StatusCode, value: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(json_line(value)));
    *response.status_mut() = status;
    content_type(&mut response, JSON);
    response
}

/// One value as JSON with a line feed behind it.
pub(crate) fn json_line(value: &impl Serialize) -> Bytes {
    let mut line =
        serde_json::to_vec(value).expect("our answers have string keys and finite numbers");
    line.push(b'\n');
    line.into()
}

/// A status without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    content_type(&mut response, "text/plain; charset=utf-8");
    response
}

/// 200 with a body that is sent as it comes. The stream is dropped when the client goes away,
/// which is how work for it is cancelled.
pub(crate) fn stream<S>(kind: &str, body: S) -> Response
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(
        body.map(Ok::<_, std::convert::Infallible>),
    ));
    content_type(&mut response, kind);
    response
}

/// Sets the content type.
pub(crate) fn content_type(response: &mut Response, kind: &str) {
    let value = HeaderValue::from_str(kind).expect("content types are constants of ours");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
}
