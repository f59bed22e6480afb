//! A certificate authority outside of the swarm: cfssl's signing protocol over HTTPS, as SwarmKit
//! speaks it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use skep_ca::{CaError, CrossSignRequest, NodeCertificate, NodeIdentity, ROOT_CN};
use skep_manager::ExternalAuthorities;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::NodeSecurity;
use crate::connect::chain;

/// SwarmKit's limit for each authority.
const PATIENCE: Duration = Duration::from_secs(5);
/// SwarmKit's limit for an answer.
const LARGEST_ANSWER: usize = 256 << 10;
const HTTPS_PORT: u16 = 443;
/// The profile that the authority must have for certificates of authorities.
const CROSS_SIGN_PROFILE: &str = "CA";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExternalError {
    /// It may answer later.
    #[error("{0}")]
    Unreachable(String),
    /// It has answered: no.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Certificate(#[from] CaError),
}

/// The authorities of a swarm, tried one after the other.
pub(crate) struct ExternalAuthority<'a> {
    pub(crate) urls: &'a [String],
    /// Who has certified the authorities' servers, PEM.
    pub(crate) roots_pem: &'a str,
    /// This node, as their client.
    pub(crate) client: &'a NodeCertificate,
}

#[derive(Serialize)]
struct SignRequest<'a> {
    hosts: Vec<&'a str>,
    certificate_request: &'a str,
    subject: Subject<'a>,
    profile: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<Extension<'a>>,
}

#[derive(Serialize)]
struct Subject<'a> {
    #[serde(rename = "CN")]
    common_name: &'a str,
    names: Vec<Name<'a>>,
}

/// By cfssl's keys: `O`, `OU` and so on.
type Name<'a> = BTreeMap<&'a str, &'a str>;

#[derive(Serialize)]
struct Extension<'a> {
    id: &'a str,
    critical: bool,
    /// Hexadecimal.
    value: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    result: Option<serde_json::Value>,
    #[serde(default)]
    errors: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl ExternalAuthority<'_> {
    /// A certificate for a node, PEM: whatever the request says, it is for this identity.
    pub(crate) async fn sign(
        &self,
        csr: &str,
        identity: &NodeIdentity,
    ) -> Result<String, ExternalError> {
        let unit = identity.role.organizational_unit();
        let mut hosts = vec![unit, identity.node_id.as_str()];
        if identity.role == skep_ca::NodeRole::Manager {
            hosts.push(ROOT_CN);
        }
        let name = Name::from([("O", identity.organization.as_str()), ("OU", unit)]);
        let request = SignRequest {
            hosts,
            certificate_request: csr,
            subject: Subject {
                common_name: &identity.node_id,
                names: vec![name],
            },
            profile: "",
            extensions: Vec::new(),
        };
        self.ask(&request).await
    }

    /// The certificate of another root under this authority's name, PEM.
    pub(crate) async fn cross_sign(
        &self,
        request: &CrossSignRequest,
    ) -> Result<String, ExternalError> {
        let name = request.name.iter();
        let name: Name<'_> = name.map(|(key, value)| (*key, value.as_str())).collect();
        let request = SignRequest {
            hosts: Vec::new(),
            certificate_request: &request.csr_pem,
            subject: Subject {
                common_name: &request.common_name,
                names: vec![name],
            },
            profile: CROSS_SIGN_PROFILE,
            // cfssl does not look at those of the request.
            extensions: vec![Extension {
                id: "2.5.29.19",
                critical: true,
                value: &request.basic_constraints_hex,
            }],
        };
        self.ask(&request).await
    }

    async fn ask(&self, request: &SignRequest<'_>) -> Result<String, ExternalError> {
        let body = serde_json::to_vec(request).map_err(|error| {
            let text = format!("unable to JSON-encode CFSSL signing request: {error}");
            ExternalError::Refused(text)
        })?;
        let config = self.config()?;
        let mut last = ExternalError::Unreachable("no external CA URLs".into());
        for url in self.urls {
            let answer = tokio::time::timeout(PATIENCE, post(&config, url, body.clone())).await;
            let answer =
                answer.unwrap_or_else(|_| Err(unreachable_at(url, "context deadline exceeded")));
            match answer {
                Ok(certificate) => return Ok(certificate),
                Err(error) => {
                    tracing::debug!(url, %error, "an external CA does not sign");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Whether there is a server that the roots have certified.
    pub(crate) async fn check(&self, url: &str) -> Result<(), ExternalError> {
        let config = self.config()?;
        let place = Place::of(url)?;
        tokio::time::timeout(PATIENCE, place.connect(&config))
            .await
            .unwrap_or_else(|_| Err("i/o timeout".into()))
            .map(drop)
            .map_err(|reason| unreachable_at(url, &reason))
    }

    fn config(&self) -> Result<Arc<ClientConfig>, ExternalError> {
        let config = skep_ca::external_client_config(self.roots_pem, self.client)?;
        Ok(Arc::new(config))
    }
}

/// This node as the client of external authorities, for the control API.
pub struct ExternalClient(Arc<NodeSecurity>);

impl ExternalClient {
    pub fn new(security: Arc<NodeSecurity>) -> Self {
        Self(security)
    }
}

impl std::fmt::Debug for ExternalClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExternalClient")
    }
}

impl ExternalAuthorities for ExternalClient {
    fn check<'a>(&'a self, url: &'a str, roots_pem: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let credentials = self.0.current();
            let authority = ExternalAuthority {
                urls: &[],
                roots_pem,
                client: credentials.certificate(),
            };
            authority.check(url).await.map_err(|error| chain(&error))
        }
        .boxed()
    }

    fn cross_sign<'a>(
        &'a self,
        urls: &'a [String],
        roots_pem: &'a str,
        request: &'a CrossSignRequest,
    ) -> BoxFuture<'a, Result<String, String>> {
        async move {
            let credentials = self.0.current();
            let authority = ExternalAuthority {
                urls,
                roots_pem,
                client: credentials.certificate(),
            };
            let crossed = authority.cross_sign(request).await;
            crossed.map_err(|error| chain(&error))
        }
        .boxed()
    }
}

fn unreachable_at(url: &str, reason: &str) -> ExternalError {
    ExternalError::Unreachable(format!(
        "unable to perform certificate signing request: Post {url:?}: {reason}"
    ))
}

struct Place {
    host: String,
    port: u16,
    uri: Uri,
}

impl Place {
    fn of(url: &str) -> Result<Self, ExternalError> {
        let bad = |reason: &str| ExternalError::Unreachable(reason.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad("invalid URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(bad("invalid HTTP scheme"));
        }
        let host = uri.host().ok_or_else(|| bad("invalid URL"))?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(HTTPS_PORT),
            uri,
        })
    }

    async fn connect(&self, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
        let tcp = tcp.map_err(|error| error.to_string())?;
        let tls = TlsConnector::from(Arc::clone(config));
        let connected = tls.connect(name, tcp).await;
        connected.map_err(|error| error.to_string())
    }
}

/// SwarmKit's reading of an answer: whatever is no answer of cfssl's may become one later.
async fn post(
    config: &Arc<ClientConfig>,
    url: &str,
    body: Vec<u8>,
) -> Result<String, ExternalError> {
    let place = Place::of(url)?;
    let failed = |error: hyper::Error| unreachable_at(url, &error.to_string());
    let tls = place.connect(config).await;
    let tls = tls.map_err(|reason| unreachable_at(url, &reason))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
        .await
        .map_err(failed)?;
    let path = place.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = place.uri.authority().map_or("", |host| host.as_str());
    let request = Request::post(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(hyper::body::Bytes::from(body)))
        .map_err(|error| unreachable_at(url, &error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER);
        let body = body.collect().await.map_err(|error| {
            ExternalError::Unreachable(format!("unable to read CSR response body: {error}"))
        })?;
        Ok::<_, ExternalError>((status, body.to_bytes()))
    };
    // The connection does its work beside the exchange, and ends with it.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let (status, body) = tokio::select! {
        answer = exchange.as_mut() => answer?,
        ended = connection.as_mut() => {
            ended.map_err(failed)?;
            exchange.await?
        }
    };
    read_answer(status, &body)
}

fn read_answer(status: u16, body: &[u8]) -> Result<String, ExternalError> {
    if status != 200 {
        let text = String::from_utf8_lossy(body);
        return Err(ExternalError::Unreachable(format!(
            "unexpected status code in CSR response: {status} - {text}"
        )));
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|error| {
        ExternalError::Unreachable(format!("unable to parse JSON response: {error}"))
    })?;
    let refused = |text: String| Err(ExternalError::Refused(text));
    let Some(result) = answer.result.filter(|_| answer.success) else {
        if answer.errors.is_empty() {
            return refused("certificate signing request failed".into());
        }
        let errors = answer.errors.iter();
        let errors: Vec<_> = errors
            .map(|e| format!("{{{} {}}}", e.code, e.message))
            .collect();
        return refused(format!("response errors: [{}]", errors.join(" ")));
    };
    match result.get("certificate").and_then(|pem| pem.as_str()) {
        Some(certificate) => Ok(certificate.to_owned()),
        None => refused("invalid result certificate field type: <nil>".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_cfssls_is_the_certificate_or_a_refusal() {
        let read = |status, body: &str| read_answer(status, body.as_bytes());
        let signed = read(200, r#"{"success":true,"result":{"certificate":"PEM"}}"#);
        assert_eq!(signed.unwrap(), "PEM");
        let refusals = [
            (
                r#"{"success":false,"errors":[{"code":1100,"message":"no"}]}"#,
                "response errors: [{1100 no}]",
            ),
            (r#"{"success":false}"#, "certificate signing request failed"),
            (
                r#"{"success":true,"result":{}}"#,
                "invalid result certificate field type: <nil>",
            ),
        ];
        for (body, text) in refusals {
            let error = read(200, body).unwrap_err();
            assert!(matches!(error, ExternalError::Refused(_)));
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_answer_may_become_one() {
        for (status, body) in [(500, "down"), (200, "<html>")] {
            let error = read_answer(status, body.as_bytes()).unwrap_err();
            assert!(matches!(error, ExternalError::Unreachable(_)), "{error}");
        }
        assert_eq!(
            Place::of("http://ca/").err().unwrap().to_string(),
            "invalid HTTP scheme"
        );
        let place = Place::of("https://[::1]/sign").unwrap();
        assert_eq!((place.host.as_str(), place.port), ("::1", 443));
    }
}
