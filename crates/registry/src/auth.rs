//! Authorising requests: basic, and bearer tokens that are asked for where the registry says.

use std::time::{Duration, Instant};

use http::{HeaderValue, Method, header};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Mutex as AsyncMutex;

use crate::challenge::Challenge;
use crate::credentials::Credentials;
use crate::error::{Code, RegistryError};
use crate::http_client::{Ask, Http, checked, document, go_method, transport};
use crate::redirect::without_query;

const CLIENT_ID: &str = "docker";
/// Tokens live at least this long, whatever they say: old registries counted on it.
const SHORTEST: u64 = 60;
/// A token is renewed a little before its end: the request still has to travel.
const MARGIN: Duration = Duration::from_secs(5);
const TOKEN_DOCUMENT_MAX: usize = 1 << 20;

/// One client's authorisation at one endpoint.
pub(crate) struct Auth {
    credentials: Credentials,
    /// `repository:a/b:pull,push`
    scopes: Vec<String>,
    /// Ask for a refresh token too: a login.
    offline: bool,
    challenges: Mutex<Vec<Challenge>>,
    token: AsyncMutex<Option<Token>>,
    /// What a login got.
    refresh: Mutex<Option<String>>,
}

struct Token {
    text: String,
    until: Instant,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenAnswer {
    token: String,
    access_token: String,
    refresh_token: String,
    expires_in: u64,
}

impl Auth {
    pub(crate) fn new(credentials: Credentials, scopes: Vec<String>, offline: bool) -> Self {
        Self {
            credentials,
            scopes,
            offline,
            challenges: Mutex::default(),
            token: AsyncMutex::default(),
            refresh: Mutex::default(),
        }
    }

    /// Takes over what the registry asks for.
    pub(crate) fn challenge(&self, challenges: Vec<Challenge>) {
        *self.challenges.lock() = challenges;
    }

    /// The refresh token that a login got, if any.
    pub(crate) fn refresh_token(&self) -> Option<String> {
        self.refresh.lock().clone()
    }

    /// Forgets a token that the registry does not take any more; whether there was one.
    pub(crate) async fn forget(&self) -> bool {
        self.token.lock().await.take().is_some()
    }

    /// The `Authorization` for a request; `mount_from` is a repository to be read besides.
    pub(crate) async fn header(
        &self,
        http: &Http,
        method: &Method,
        url: &str,
        mount_from: Option<&str>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let challenges = self.challenges.lock().clone();
        let by_scheme = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        let text = if let Some(bearer) = by_scheme("bearer") {
            let token = if self.credentials.registry_token.is_empty() {
                self.bearer(http, bearer, method, url, mount_from).await?
            } else {
                self.credentials.registry_token.clone()
            };
            format!("Bearer {token}")
        } else if by_scheme("basic").is_some() {
            if !self.credentials.has_password() {
                return Err(RegistryError::NoCredentials {
                    method: go_method(method),
                    url: without_query(url).to_owned(),
                });
            }
            self.credentials.basic()
        } else {
            return Ok(None);
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| transport(method, url, "invalid credentials".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn bearer(
        &self,
        http: &Http,
        challenge: &Challenge,
        method: &Method,
        url: &str,
        mount_from: Option<&str>,
    ) -> Result<String, RegistryError> {
        // Held while asking, so that many requests at once ask for one token.
        let mut cached = self.token.lock().await;
        let extra = mount_from
            .map(|path| format!("repository:{path}:pull"))
            .filter(|scope| !self.scopes.contains(scope));
        if extra.is_none()
            && let Some(token) = cached.as_ref().filter(|token| Instant::now() < token.until)
        {
            return Ok(token.text.clone());
        }
        let mut scopes = self.scopes.clone();
        let wider = extra.is_some();
        scopes.extend(extra);
        let token = self
            .fetch(http, challenge, &scopes)
            .await
            .map_err(|error| match error {
                // As Go's client wraps what its transport says.
                RegistryError::Api { code, text } => RegistryError::Api {
                    code: if code == Code::Denied {
                        Code::Other
                    } else {
                        code
                    },
                    text: format!("{} {:?}: {text}", go_method(method), without_query(url)),
                },
                other => other,
            })?;
        let text = token.text.clone();
        if !wider {
            *cached = Some(token);
        }
        Ok(text)
    }

    async fn fetch(
        &self,
        http: &Http,
        challenge: &Challenge,
        scopes: &[String],
    ) -> Result<Token, RegistryError> {
        let realm = challenge.get("realm").ok_or_else(|| {
            RegistryError::Refused("no realm specified for token auth challenge".to_owned())
        })?;
        if !realm.starts_with("https://") && !realm.starts_with("http://") {
            return Err(RegistryError::Refused(format!(
                "invalid token auth challenge realm: {realm:?}"
            )));
        }
        let service = challenge.get("service").unwrap_or_default();
        let ask = if self.credentials.identity_token.is_empty() {
            self.with_password(realm, service, scopes)
        } else {
            self.with_refresh_token(realm, service, scopes)
        };
        let answer = checked(http.send(&ask.quick()).await?).await?;
        let body = document(answer, TOKEN_DOCUMENT_MAX, "the token").await?;
        let read: TokenAnswer = serde_json::from_slice(&body).map_err(|error| {
            RegistryError::Refused(format!("unable to decode token response: {error}"))
        })?;
        if !read.refresh_token.is_empty() {
            *self.refresh.lock() = Some(read.refresh_token);
        }
        let text = if read.access_token.is_empty() {
            read.token
        } else {
            read.access_token
        };
        if text.is_empty() {
            return Err(RegistryError::Refused(
                "authorization server did not include a token in the response".to_owned(),
            ));
        }
        let lifetime = Duration::from_secs(read.expires_in.clamp(SHORTEST, 86_400));
        Ok(Token {
            text,
            until: Instant::now() + lifetime.saturating_sub(MARGIN),
        })
    }

    fn with_password(&self, realm: &str, service: &str, scopes: &[String]) -> Ask {
        let mut query: Vec<(&str, &str)> = Vec::new();
        if !service.is_empty() {
            query.push(("service", service));
        }
        query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        if self.offline {
            query.push(("offline_token", "true"));
            query.push(("client_id", CLIENT_ID));
        }
        let known = self.credentials.has_password();
        if known {
            query.push(("account", &self.credentials.username));
        }
        let query = serde_urlencoded::to_string(&query).unwrap_or_default();
        let separator = if realm.contains('?') { '&' } else { '?' };
        let mut ask = Ask::get(format!("{realm}{separator}{query}"));
        if known {
            ask = ask.header(header::AUTHORIZATION, &self.credentials.basic());
        }
        ask
    }

    fn with_refresh_token(&self, realm: &str, service: &str, scopes: &[String]) -> Ask {
        let form = [
            ("scope", scopes.join(" ")),
            ("service", service.to_owned()),
            ("client_id", CLIENT_ID.to_owned()),
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", self.credentials.identity_token.clone()),
        ];
        let mut ask = Ask::new(Method::POST, realm.to_owned())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        ask.body = serde_urlencoded::to_string(&form)
            .unwrap_or_default()
            .into();
        ask
    }
}
