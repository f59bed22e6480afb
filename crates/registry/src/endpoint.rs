//! Where a registry's name leads.

use std::collections::{BTreeSet, VecDeque};

use skep_reference::Reference;

use crate::config::Registry;
use crate::error::RegistryError;

/// The domain of names without one.
const HUB: &str = "docker.io";
/// Where people log in to Docker Hub.
pub(crate) const HUB_INDEX: &str = "index.docker.io";
const HUB_REGISTRY: &str = "registry-1.docker.io";

/// One place to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `https` or `http`
    pub(crate) scheme: &'static str,
    /// `name`, `name:port`
    pub(crate) host: String,
    /// What stands before `/v2/`; empty or starting with a slash.
    pub(crate) prefix: String,
    pub(crate) mirror: bool,
    /// Whether its certificate must be good.
    pub(crate) verify: bool,
}

impl Endpoint {
    /// An address below the endpoint's root; `path` starts with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{}{path}", self.scheme, self.host, self.prefix)
    }
}

impl Registry {
    /// The endpoints of a domain, in the order in which they are to be tried.
    pub(crate) async fn endpoints(&self, domain: &str, with_mirrors: bool) -> VecDeque<Endpoint> {
        let mut found = VecDeque::new();
        if domain == HUB || domain == HUB_INDEX {
            if with_mirrors {
                for mirror in &self.config.mirrors {
                    found.extend(self.mirror(mirror).await);
                }
            }
            found.push_back(Endpoint {
                scheme: "https",
                host: HUB_REGISTRY.to_owned(),
                prefix: String::new(),
                mirror: false,
                verify: true,
            });
            return found;
        }
        let verify = !self.insecure.contains(domain).await;
        let https = Endpoint {
            scheme: "https",
            host: domain.to_owned(),
            prefix: String::new(),
            mirror: false,
            verify,
        };
        let http = (!verify).then(|| Endpoint {
            scheme: "http",
            ..https.clone()
        });
        found.push_back(https);
        found.extend(http);
        found
    }

    async fn mirror(&self, address: &str) -> Option<Endpoint> {
        let (scheme, rest) = address.split_once("://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        Some(Endpoint {
            scheme: if scheme == "http" { "http" } else { "https" },
            host: host.to_owned(),
            prefix: if path.is_empty() {
                String::new()
            } else {
                format!("/{path}")
            },
            mirror: true,
            verify: !self.insecure.contains(host).await,
        })
    }

    /// The endpoints for pulling (with mirrors) or pushing (without).
    pub async fn attempts(&self, reference: &Reference, with_mirrors: bool) -> Attempts {
        Attempts {
            left: self.endpoints(reference.domain(), with_mirrors).await,
            speaks_tls: BTreeSet::new(),
            last: None,
            name: reference.familiar(),
        }
    }
}

/// The endpoints still to be tried, and what the last one said.
#[derive(Debug)]
pub struct Attempts {
    left: VecDeque<Endpoint>,
    /// Hosts that answered over TLS: those are never asked in the clear.
    speaks_tls: BTreeSet<String>,
    last: Option<RegistryError>,
    name: String,
}

impl Attempts {
    /// The next endpoint, or the reason why the last one was not good enough.
    pub fn take_next(&mut self) -> Result<Endpoint, RegistryError> {
        while let Some(endpoint) = self.left.pop_front() {
            if endpoint.scheme == "https" || !self.speaks_tls.contains(&endpoint.host) {
                return Ok(endpoint);
            }
        }
        Err(self.last.take().unwrap_or_else(|| {
            RegistryError::Invalid(format!("no endpoints found for {}", self.name))
        }))
    }

    /// Takes note of a failure; fails with it if no other endpoint can do better.
    pub fn failed(
        &mut self,
        endpoint: &Endpoint,
        error: RegistryError,
    ) -> Result<(), RegistryError> {
        if !error.allows_next_endpoint(endpoint.mirror) {
            return Err(error);
        }
        if endpoint.scheme == "https" && !matches!(error, RegistryError::Transport { .. }) {
            self.speaks_tls.insert(endpoint.host.clone());
        }
        tracing::info!(
            registry = endpoint.host,
            scheme = endpoint.scheme,
            %error,
            "trying the registry's next endpoint"
        );
        self.last = Some(error);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RegistryConfig;

    fn registry(mirrors: &[&str]) -> Registry {
        Registry::new(RegistryConfig {
            mirrors: mirrors.iter().map(|&text| text.to_owned()).collect(),
            ..RegistryConfig::default()
        })
        .unwrap()
    }

    fn urls(endpoints: &VecDeque<Endpoint>) -> Vec<String> {
        endpoints.iter().map(|at| at.url("/v2/")).collect()
    }

    #[tokio::test]
    async fn mirrors_come_before_docker_hub_and_only_for_it() {
        let registry = registry(&["https://192.0.2.1/hub", "http://127.0.0.1:5000"]);
        let hub = registry.endpoints("docker.io", true).await;
        assert_eq!(
            urls(&hub),
            [
                "https://192.0.2.1/hub/v2/",
                "http://127.0.0.1:5000/v2/",
                "https://registry-1.docker.io/v2/"
            ]
        );
        assert!(hub[0].verify && !hub[1].verify);
        assert_eq!(
            urls(&registry.endpoints("docker.io", false).await),
            ["https://registry-1.docker.io/v2/"]
        );
        assert_eq!(
            urls(&registry.endpoints("192.0.2.9:5000", true).await),
            ["https://192.0.2.9:5000/v2/"]
        );
    }

    #[tokio::test]
    async fn an_insecure_registry_is_asked_in_the_clear_only_if_it_speaks_no_tls() {
        let reference: Reference = "127.0.0.1:5000/a".parse().unwrap();
        let transport = RegistryError::Transport {
            method: "Get",
            url: String::new(),
            reason: "refused".to_owned(),
        };
        let mut attempts = registry(&[]).attempts(&reference, true).await;
        let https = attempts.take_next().unwrap();
        assert_eq!((https.scheme, https.verify), ("https", false));
        attempts.failed(&https, transport).unwrap();
        assert_eq!(attempts.take_next().unwrap().scheme, "http");

        let mut attempts = registry(&[]).attempts(&reference, true).await;
        let https = attempts.take_next().unwrap();
        let answered = RegistryError::Status("500 Internal Server Error".to_owned());
        attempts.failed(&https, answered).unwrap();
        assert_eq!(
            attempts.take_next().unwrap_err().to_string(),
            "received unexpected HTTP status: 500 Internal Server Error"
        );
    }
}
