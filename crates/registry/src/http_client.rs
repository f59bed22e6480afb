//! Requests to one endpoint and to where it redirects.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::challenge;
use crate::config::RegistryConfig;
use crate::connect::{ConnectFailure, Connector, os_text};
use crate::endpoint::Endpoint;
use crate::error::{Code, RegistryError};
use crate::redirect::{REDIRECTS_MAX, resolve, same_origin, without_query};
use crate::tls;

/// For pings, tokens and other small questions; dockerd's.
pub(crate) const QUICK: Duration = Duration::from_secs(15);
/// For an answer to begin, and for each next piece of it.
pub(crate) const PATIENT: Duration = Duration::from_secs(60);
/// A registry that moves an upload to its storage may take its time.
pub(crate) const UPLOAD: Duration = Duration::from_secs(900);
/// Error documents are short; a longer one is cut.
const ERROR_BODY_MAX: usize = 64 << 10;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Talks HTTP as one endpoint needs it.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<Connector, Body>,
    connector: Connector,
    user_agent: String,
}

/// A request that can be sent again after a redirect.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) patience: Duration,
}

impl Ask {
    pub(crate) fn new(method: Method, url: String) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            patience: PATIENT,
        }
    }

    pub(crate) fn get(url: String) -> Self {
        Self::new(Method::GET, url)
    }

    pub(crate) fn quick(mut self) -> Self {
        self.patience = QUICK;
        self
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}

impl Http {
    pub(crate) fn new(config: &RegistryConfig, endpoint: &Endpoint) -> Result<Self, RegistryError> {
        let tls = tls::client_config(&config.certs_dir, &endpoint.host, endpoint.verify)?;
        let connector = Connector {
            tls: Arc::new(tls),
            proxy: config.proxy.clone(),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector.clone());
        Ok(Self {
            client,
            connector,
            user_agent: config.user_agent.clone(),
        })
    }

    /// Sends a request and follows redirects of those that only read. What authorises at one
    /// origin is not told to another.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Response<Incoming>, RegistryError> {
        let mut url = ask.url.clone();
        let mut headers = ask.headers.clone();
        let reads = matches!(ask.method, Method::GET | Method::HEAD);
        for _ in 0..=REDIRECTS_MAX {
            let body = if ask.body.is_empty() {
                empty()
            } else {
                Full::new(ask.body.clone())
                    .map_err(|never| match never {})
                    .boxed_unsync()
            };
            let answer = self
                .once(&ask.method, &url, &headers, body, ask.patience)
                .await?;
            let moved = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = answer.headers().get(header::LOCATION);
            let Some(location) = location.filter(|_| moved && reads) else {
                return Ok(answer);
            };
            let next = resolve(&url, &String::from_utf8_lossy(location.as_bytes()))?;
            if !same_origin(&url, &next) {
                headers.remove(header::AUTHORIZATION);
            }
            url = next;
        }
        Err(transport(
            &ask.method,
            &ask.url,
            format!("stopped after {REDIRECTS_MAX} redirects"),
        ))
    }

    /// Sends one request, whatever its body, and follows nothing.
    pub(crate) async fn once(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        body: Body,
        patience: Duration,
    ) -> Result<Response<Incoming>, RegistryError> {
        let invalid = |error: String| transport(method, url, error);
        let mut request = Request::builder()
            .method(method.clone())
            .uri(url)
            .header(header::USER_AGENT, &self.user_agent)
            .body(body)
            .map_err(|error| invalid(error.to_string()))?;
        request.headers_mut().extend(headers.clone());
        self.authorize_at_proxy(&mut request);
        match tokio::time::timeout(patience, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(transport(method, url, reason(&error))),
            Err(_) => Err(transport(
                method,
                url,
                "net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
                    .to_owned(),
            )),
        }
    }

    fn authorize_at_proxy(&self, request: &mut Request<Body>) {
        let uri = request.uri();
        if uri.scheme_str() != Some("http") {
            return;
        }
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
        if let Ok(Some(proxy)) = self.connector.proxy.choose("http", host, port)
            && let Some(value) = proxy.authorization
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            request
                .headers_mut()
                .insert(header::PROXY_AUTHORIZATION, value);
        }
    }
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn transport(method: &Method, url: &str, reason: String) -> RegistryError {
    RegistryError::Transport {
        method: go_method(method),
        url: without_query(url).to_owned(),
        reason,
    }
}

pub(crate) fn go_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "Get",
        "HEAD" => "Head",
        "POST" => "Post",
        "PUT" => "Put",
        "PATCH" => "Patch",
        "DELETE" => "Delete",
        _ => "Request",
    }
}

/// Why a request got no answer, in Go's words where it has some.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut next = Some(error);
    let mut deepest = error.to_string();
    while let Some(at) = next {
        if let Some(ConnectFailure(text)) = at.downcast_ref::<ConnectFailure>() {
            return text.clone();
        }
        if let Some(io) = at.downcast_ref::<io::Error>() {
            // Our own bodies fail with io errors that have a cause of ours.
            return match io.kind() {
                io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
                io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
                io::ErrorKind::InvalidData => tls::go_text(io),
                _ => os_text(io),
            };
        }
        if let Some(hyper) = at.downcast_ref::<hyper::Error>() {
            if hyper.is_incomplete_message() || hyper.is_closed() {
                "EOF".clone_into(&mut deepest);
            } else if hyper.is_parse() {
                "net/http: malformed HTTP response".clone_into(&mut deepest);
            }
        } else {
            deepest = at.to_string();
        }
        next = at.source();
    }
    deepest
}

/// A whole answer of at most `limit` bytes.
pub(crate) async fn document(
    answer: Response<Incoming>,
    limit: usize,
    what: &str,
) -> Result<Bytes, RegistryError> {
    let mut body = answer.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) =
        next_frame(&mut body)
            .await
            .map_err(|error| RegistryError::Transport {
                method: "Get",
                url: what.to_owned(),
                reason: error,
            })?
    {
        if bytes.len() + frame.len() > limit {
            return Err(RegistryError::Refused(format!(
                "{what} is larger than {limit} bytes"
            )));
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes.freeze())
}

/// The next bytes of a body; an error if they do not come in time.
pub(crate) async fn next_frame(body: &mut Incoming) -> Result<Option<Bytes>, String> {
    loop {
        return match tokio::time::timeout(PATIENT, body.frame()).await {
            Err(_) => Err("read: i/o timeout".to_owned()),
            Ok(None) => Ok(None),
            Ok(Some(Err(error))) => Err(match error.source() {
                Some(_) => reason(&error),
                None => "unexpected EOF".to_owned(),
            }),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Ok(Some(data)),
                Err(_trailers) => continue,
            },
        };
    }
}

/// Passes a success on and turns everything else into the error it means.
pub(crate) async fn checked(
    answer: Response<Incoming>,
) -> Result<Response<Incoming>, RegistryError> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    Err(failure(answer).await)
}

/// What an unsuccessful answer says.
pub(crate) async fn failure(answer: Response<Incoming>) -> RegistryError {
    let status = answer.status();
    if !status.is_client_error() {
        return RegistryError::Status(status_text(status));
    }
    for challenge in challenge::challenges(answer.headers()) {
        let code = match (challenge.scheme.as_str(), challenge.get("error")) {
            ("bearer", Some("invalid_token")) => "UNAUTHORIZED",
            ("bearer", Some("insufficient_scope")) => "DENIED",
            _ => continue,
        };
        let message = challenge.get("error_description").unwrap_or_default();
        return coded(code, message);
    }
    let json = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            let kind = value.split(';').next().unwrap_or_default().trim();
            matches!(kind, "application/json" | "application/vnd.api+json")
        });
    let body = cut_body(answer).await;
    parse_failure(status, json, &body)
}

async fn cut_body(answer: Response<Incoming>) -> String {
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Ok(Some(frame)) = next_frame(&mut body).await {
        bytes.extend_from_slice(&frame);
        if bytes.len() > ERROR_BODY_MAX {
            bytes.truncate(ERROR_BODY_MAX);
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn parse_failure(status: StatusCode, json: bool, body: &str) -> RegistryError {
    let by_status = |text: &str| match status.as_u16() {
        401 => coded("UNAUTHORIZED", text),
        403 => coded("DENIED", text),
        429 => coded("TOOMANYREQUESTS", text),
        _ => coded("UNKNOWN", text),
    };
    if !json {
        return by_status(body);
    }
    let unparsable = |reason: &str| {
        if status == StatusCode::UNAUTHORIZED {
            return coded("UNAUTHORIZED", "");
        }
        RegistryError::Body {
            status: status.as_u16(),
            reason: reason.to_owned(),
            body: body.to_owned(),
        }
    };
    let parsed: serde_json::Value = match serde_json::from_str(body) {
        Ok(parsed) => parsed,
        Err(error) => return unparsable(&error.to_string()),
    };
    if let Some(details) = parsed["details"].as_str().filter(|text| !text.is_empty()) {
        return by_status(details);
    }
    let errors: Vec<RegistryError> = parsed["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| {
            let text = |key: &str| error[key].as_str().unwrap_or_default();
            coded(text("code"), text("message"))
        })
        .collect();
    let Some(first) = errors.first() else {
        return unparsable("no error details found in HTTP response body");
    };
    first.clone()
}

/// An error as the distribution API names it, printed as dockerd prints it.
fn coded(code: &str, message: &str) -> RegistryError {
    let (known, default) = match code {
        "UNAUTHORIZED" => (Code::Unauthorized, "authentication required"),
        "DENIED" => (Code::Denied, "requested access to the resource is denied"),
        "MANIFEST_UNKNOWN" => (Code::ManifestUnknown, "manifest unknown"),
        "NAME_UNKNOWN" => (Code::NameUnknown, "repository name not known to registry"),
        "BLOB_UNKNOWN" => (Code::BlobUnknown, "blob unknown to registry"),
        "TOOMANYREQUESTS" => (Code::TooManyRequests, "too many requests"),
        "UNSUPPORTED" => (Code::Unsupported, "The operation is unsupported."),
        _ => (Code::Other, "unknown error"),
    };
    let name = if code.is_empty() { "UNKNOWN" } else { code };
    let name = name.to_ascii_lowercase().replace('_', " ");
    let message = if message.is_empty() { default } else { message };
    RegistryError::Api {
        code: known,
        text: format!("{name}: {message}"),
    }
}

/// `500 Internal Server Error`
pub(crate) fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(status: u16, json: bool, body: &str) -> String {
        parse_failure(StatusCode::from_u16(status).unwrap(), json, body).to_string()
    }

    #[test]
    fn errors_are_printed_as_dockerd_prints_them() {
        let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied","detail":[]}]}"#;
        assert_eq!(
            parse(403, true, denied),
            "denied: requested access to the resource is denied"
        );
        assert_eq!(
            parse(404, true, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
            "manifest unknown: manifest unknown"
        );
        assert_eq!(
            parse(
                429,
                true,
                r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#
            ),
            "toomanyrequests: You have reached your pull rate limit."
        );
        assert_eq!(
            parse(401, true, r#"{"details":"incorrect username or password"}"#),
            "unauthorized: incorrect username or password"
        );
        assert_eq!(parse(429, false, "slow down"), "toomanyrequests: slow down");
        assert_eq!(
            parse(401, true, "{}"),
            "unauthorized: authentication required"
        );
        assert_eq!(
            parse(400, true, "{}"),
            "error parsing HTTP 400 response body: no error details found in HTTP response body: \"{}\""
        );
    }
}
