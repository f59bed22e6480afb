//! `docker search`: the v1 index, which is all that Docker's clients search.

use http::{StatusCode, header};
use serde::Deserialize;

use crate::auth::Auth;
use crate::config::Registry;
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, HUB_INDEX};
use crate::error::RegistryError;
use crate::http_client::{Ask, Http, document};
use crate::repository::ping;

const RESULTS_MAX: usize = 16 << 20;
const DEFAULT_LIMIT: i64 = 25;

/// One repository that a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    pub name: String,
    pub description: String,
    pub star_count: i64,
    pub is_official: bool,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    results: Option<Vec<SearchResult>>,
}

impl Registry {
    /// Searches Docker Hub, or the registry that the term begins with.
    pub async fn search(
        &self,
        term: &str,
        limit: i64,
        credentials: &Credentials,
    ) -> Result<Vec<SearchResult>, RegistryError> {
        if term.contains("://") {
            return Err(RegistryError::Invalid(format!(
                "invalid repository name: repository name ({term}) should not have a scheme"
            )));
        }
        let limit = if limit == 0 { DEFAULT_LIMIT } else { limit };
        if !(1..=100).contains(&limit) {
            return Err(RegistryError::Invalid(format!(
                "limit {limit} is outside the range of [1, 100]"
            )));
        }
        let (index, name) = split(term);
        let (endpoint, name) = match index {
            None => (hub(), name.strip_prefix("library/").unwrap_or(name)),
            Some(host) => (self.v1_endpoint(host).await?, name),
        };
        let limit = limit.to_string();
        let query = serde_urlencoded::to_string([("q", name), ("n", &limit)]).unwrap_or_default();
        let mut ask = Ask::get(endpoint.url(&format!("/v1/search?{query}"))).quick();
        let http = Http::new(&self.config, &endpoint)?;
        if !credentials.identity_token.is_empty() && !credentials.username.is_empty() {
            let scope = "registry:catalog:search".to_owned();
            let auth = Auth::new(credentials.clone(), vec![scope], false);
            ping(&http, &endpoint, &auth).await?;
            if let Some(value) = auth.header(&http, &ask.method, &ask.url, None).await? {
                ask.headers.insert(header::AUTHORIZATION, value);
            }
        } else if credentials.has_password() {
            ask = ask.header(header::AUTHORIZATION, &credentials.basic());
        }
        let answer = http.send(&ask).await?;
        if answer.status() != StatusCode::OK {
            return Err(RegistryError::Refused(format!(
                "unexpected status code {}",
                answer.status().as_u16()
            )));
        }
        let bytes = document(answer, RESULTS_MAX, "the search's result").await?;
        let found: Results = serde_json::from_slice(&bytes).map_err(|error| {
            RegistryError::Refused(format!("error decoding registry search results: {error}"))
        })?;
        Ok(found.results.unwrap_or_default())
    }

    /// Which scheme a registry's index answers to.
    async fn v1_endpoint(&self, host: &str) -> Result<Endpoint, RegistryError> {
        let mut https = None;
        for endpoint in self.endpoints(host, false).await {
            let http = Http::new(&self.config, &endpoint)?;
            let ping = Ask::get(endpoint.url("/v1/_ping")).quick();
            let Err(error) = http.send(&ping).await else {
                return Ok(endpoint);
            };
            let Some(first) = https.take() else {
                if endpoint.verify {
                    return Err(RegistryError::Invalid(format!(
                        "invalid registry endpoint https://{host}/v1/: {error}. If this private registry supports only HTTP or HTTPS with an unknown CA certificate, add `--insecure-registry {host}` to the daemon's arguments. In the case of HTTPS, if you have access to the registry's CA certificate, no need for the flag; place the CA certificate at /etc/docker/certs.d/{host}/ca.crt"
                    )));
                }
                https = Some(error);
                continue;
            };
            return Err(RegistryError::Invalid(format!(
                "invalid registry endpoint \"http://{host}/v1/\". HTTPS attempt: {first}. HTTP attempt: {error}"
            )));
        }
        Err(RegistryError::Invalid(format!(
            "no endpoints found for {host}"
        )))
    }
}

fn hub() -> Endpoint {
    Endpoint {
        scheme: "https",
        host: HUB_INDEX.to_owned(),
        prefix: String::new(),
        mirror: false,
        verify: true,
    }
}

/// `reg:5000/name` is a registry's, `user/name` is Docker Hub's.
fn split(term: &str) -> (Option<&str>, &str) {
    match term.split_once('/') {
        Some((host, name))
            if (host.contains(['.', ':']) || host == "localhost")
                && host != "docker.io"
                && host != HUB_INDEX =>
        {
            (Some(host), name)
        }
        Some(("docker.io" | "index.docker.io", name)) => (None, name),
        _ => (None, term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_can_not_be_searched_is_refused_in_dockers_words() {
        let registry = Registry::new(crate::RegistryConfig::default()).unwrap();
        let nobody = Credentials::default();
        let error = registry.search("https://x", 0, &nobody).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid repository name: repository name (https://x) should not have a scheme"
        );
        let error = registry.search("x", 101, &nobody).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "limit 101 is outside the range of [1, 100]"
        );
    }

    #[test]
    fn a_term_may_begin_with_a_registry() {
        assert_eq!(split("reg:5000/a/b"), (Some("reg:5000"), "a/b"));
        assert_eq!(split("me/a"), (None, "me/a"));
        assert_eq!(split("docker.io/a"), (None, "a"));
    }
}
