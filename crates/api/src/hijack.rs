//! Attach and exec: the HTTP connection becomes a pipe to a process.
//!
//! ```text
//! client ── stdin ──▶ input          (end of the client's half: the input is closed)
//!        ◀── frames ── output        (end of the output: the connection is closed)
//! ```

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use skep_engine::{Attach, StdStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{ApiError, ApiResult};
use crate::reply::{self, MULTIPLEXED_STREAM, RAW_STREAM};
use crate::stdcopy::{self, Channel};
use crate::takeover::{Io, Takeover};
use crate::version::ApiVersion;

/// How the connection will be taken over, decided before anything is started.
pub(crate) enum Hijack {
    /// The client asked with `Upgrade: tcp`: it gets `101 UPGRADED`.
    Upgrade(OnUpgrade),
    /// It did not: a bare `200 OK`, then raw bytes.
    Raw(Takeover),
}

impl Hijack {
    /// Looks at what the client asked for and what the connection can do.
    pub(crate) fn new(headers: &HeaderMap, extensions: &mut Extensions) -> ApiResult<Self> {
        if headers.contains_key(header::UPGRADE)
            && let Some(upgrade) = extensions.remove::<OnUpgrade>()
        {
            return Ok(Self::Upgrade(upgrade));
        }
        let takeover = extensions.remove::<Takeover>();
        takeover
            .map(Self::Raw)
            .ok_or_else(|| ApiError::internal("this connection cannot be hijacked"))
    }

    /// Joins the connection to the process and answers accordingly.
    pub(crate) async fn join(self, attach: Attach, version: ApiVersion) -> Response {
        let tty = attach.tty;
        self.join_after_head(tty, version, async { attach }).await
    }

    /// As [`Self::join`], for a process that is only started once the head of the response is on its
    /// way. Some clients (docker-py) look for output on the bare socket and lose what their HTTP
    /// parser has read along with the head.
    pub(crate) async fn join_after_head(
        self,
        tty: bool,
        version: ApiVersion,
        start: impl Future<Output = Attach> + Send + 'static,
    ) -> Response {
        match self {
            Self::Upgrade(upgrade) => {
                tokio::spawn(async move {
                    match upgrade.await {
                        Ok(io) => pump(Box::new(TokioIo::new(io)), start.await).await,
                        Err(error) => tracing::debug!(%error, "the client left before the upgrade"),
                    }
                });
                upgraded(stream_type(tty, version))
            }
            Self::Raw(takeover) => {
                if let Some(mut io) = takeover.seize() {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n\r\n");
                    if io.write_all(head.as_bytes()).await.is_ok() && io.flush().await.is_ok() {
                        pump(io, start.await).await;
                    }
                    takeover.end();
                }
                closing()
            }
        }
    }
}

/// The content type that tells a client whether to expect frames.
pub(crate) fn stream_type(tty: bool, version: ApiVersion) -> &'static str {
    if !tty && version.at_least(42) {
        MULTIPLEXED_STREAM
    } else {
        RAW_STREAM
    }
}

fn upgraded(kind: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    reply::content_type(&mut response, kind);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    response
        .extensions_mut()
        .insert(ReasonPhrase::from_static(b"UPGRADED"));
    response
}

/// What hyper is told after the handler used the connection up; it reaches nobody.
fn closing() -> Response {
    let mut response = Response::new(Body::empty());
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Copies both ways until the output ends or the client is gone.
async fn pump(io: Box<dyn Io>, attach: Attach) {
    let Attach {
        tty,
        input,
        mut output,
    } = attach;
    let (mut from_client, mut to_client) = tokio::io::split(io);

    let stdin = async {
        let Some(mut input) = input else { return };
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match from_client.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    if input.write_all(&buffer[..count]).await.is_err()
                        || input.flush().await.is_err()
                    {
                        // The process is gone or has closed its stdin; output may still come.
                        return;
                    }
                }
            }
        }
        // The client's CloseWrite: the process sees the end of its input.
        let _ = input.shutdown().await;
    };
    let stdout = async {
        while let Some(frame) = output.next().await {
            let channel = match frame.stream {
                StdStream::Stdout => Channel::Stdout,
                StdStream::Stderr => Channel::Stderr,
            };
            if to_client
                .write_all(&stdcopy::encode(tty, channel, frame.bytes))
                .await
                .is_err()
            {
                return;
            }
            if to_client.flush().await.is_err() {
                return;
            }
        }
        let _ = to_client.shutdown().await;
    };

    // The output's end ends the session; the input's end does not.
    tokio::pin!(stdin, stdout);
    tokio::select! {
        () = &mut stdout => {}
        () = &mut stdin => stdout.await,
    }
}

#[cfg(test)]
mod tests;
