//! Which proxy a request goes through: Go's `ProxyFromEnvironment` rules.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::{host_name, parse_network, same_network};

/// As in daemon.json's `proxies`; empty texts are nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    pub http: String,
    pub https: String,
    /// Hosts reached without: names, `.suffixes`, addresses, networks, each perhaps with a port; `*`.
    pub no_proxy: String,
}

impl std::fmt::Debug for ProxyConfig {
    // Proxy addresses may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyConfig")
            .field("no_proxy", &self.no_proxy)
            .finish_non_exhaustive()
    }
}

/// A proxy to connect to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(crate) authorization: Option<String>,
}

impl ProxyConfig {
    /// The environment's proxies where the configuration has none.
    #[must_use]
    pub fn or_environment(mut self) -> Self {
        let set = |field: &mut String, names: [&str; 2]| {
            if field.is_empty() {
                *field = names
                    .iter()
                    .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
                    .unwrap_or_default();
            }
        };
        set(&mut self.http, ["HTTP_PROXY", "http_proxy"]);
        set(&mut self.https, ["HTTPS_PROXY", "https_proxy"]);
        set(&mut self.no_proxy, ["NO_PROXY", "no_proxy"]);
        self
    }

    /// The proxy for `host` (with or without port), or why the configured one can not be used.
    pub(crate) fn choose(
        &self,
        scheme: &str,
        host: &str,
        port: u16,
    ) -> Result<Option<Proxy>, String> {
        let address = if scheme == "https" {
            &self.https
        } else {
            &self.http
        };
        if address.is_empty() || self.bypasses(host, port) {
            return Ok(None);
        }
        parse(address).map(Some)
    }

    fn bypasses(&self, host: &str, port: u16) -> bool {
        let name = host_name(host).trim_end_matches('.').to_ascii_lowercase();
        let address: Option<std::net::IpAddr> = name.parse().ok();
        if name == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        self.no_proxy
            .split(',')
            .map(|entry| entry.trim().to_ascii_lowercase())
            .filter(|entry| !entry.is_empty())
            .any(|entry| {
                if entry == "*" {
                    return true;
                }
                if let Some((network, bits)) = parse_network(&entry) {
                    return address.is_some_and(|address| same_network(address, network, bits));
                }
                let entry_name = host_name(&entry);
                let entry_port = entry
                    .strip_prefix(entry_name)
                    .and_then(|rest| rest.strip_prefix(':'))
                    .and_then(|text| text.parse::<u16>().ok());
                if entry_port.is_some_and(|wanted| wanted != port) {
                    return false;
                }
                let suffix = entry_name.trim_start_matches('*');
                match suffix.strip_prefix('.') {
                    // `.example.com` is what lies below, `example.com` is that and itself.
                    Some(_) => name.ends_with(suffix),
                    None => name == suffix || name.ends_with(&format!(".{suffix}")),
                }
            })
    }
}

fn parse(address: &str) -> Result<Proxy, String> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("http", address));
    if scheme != "http" {
        return Err(format!(
            "proxyconnect tcp: unsupported proxy scheme {scheme:?}"
        ));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let name = host_name(host);
    let port = host
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .unwrap_or(80);
    if name.is_empty() {
        return Err("proxyconnect tcp: invalid proxy address".to_owned());
    }
    let authorization = user.map(|user| {
        let decoded = percent_encoding::percent_decode_str(user).decode_utf8_lossy();
        let pair = if decoded.contains(':') {
            decoded.into_owned()
        } else {
            format!("{decoded}:")
        };
        format!("Basic {}", STANDARD.encode(pair))
    });
    Ok(Proxy {
        host: name.to_owned(),
        port,
        authorization,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ProxyConfig {
        ProxyConfig {
            http: "http://user:p%40ss@proxy:3128".to_owned(),
            https: "secure-proxy".to_owned(),
            no_proxy: "example.com, .inner.net,10.0.0.0/8,ported:5000,192.0.2.7".to_owned(),
        }
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let http = config().choose("http", "reg", 80).unwrap().unwrap();
        assert_eq!((http.host.as_str(), http.port), ("proxy", 3128));
        assert_eq!(http.authorization.unwrap(), "Basic dXNlcjpwQHNz");
        let https = config().choose("https", "reg", 443).unwrap().unwrap();
        assert_eq!((https.host.as_str(), https.port), ("secure-proxy", 80));
        assert!(!format!("{:?}", config()).contains("p%40ss"));
    }

    #[test]
    fn exceptions_and_the_loopback_are_reached_without() {
        let direct = |host: &str, port| config().choose("https", host, port).unwrap().is_none();
        for (host, port) in [
            ("example.com", 443),
            ("sub.example.com", 443),
            ("a.inner.net", 443),
            ("10.9.8.7", 443),
            ("192.0.2.7:5000", 5000),
            ("ported:5000", 5000),
            ("localhost", 5000),
            ("127.0.0.1:5000", 5000),
        ] {
            assert!(direct(host, port), "{host}");
        }
        for (host, port) in [
            ("inner.net", 443),
            ("badexample.com", 443),
            ("ported:443", 443),
            ("11.0.0.1", 443),
        ] {
            assert!(!direct(host, port), "{host}");
        }
    }

    #[test]
    fn a_proxy_that_can_not_be_spoken_to_is_an_error() {
        let config = ProxyConfig {
            https: "socks5://x:1".to_owned(),
            ..ProxyConfig::default()
        };
        assert!(config.choose("https", "reg", 443).is_err());
    }
}
