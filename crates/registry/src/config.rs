use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::RegistryError;
use crate::proxy::ProxyConfig;

/// dockerd's settings, as far as they concern registries.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Directories with a registry's certificates, named `host:port`.
    pub certs_dir: PathBuf,
    /// Names (`host:port`) and networks (`10.0.0.0/8`) spoken to without verified TLS.
    pub insecure: Vec<String>,
    /// Asked before Docker Hub, for Docker Hub's names.
    pub mirrors: Vec<String>,
    pub proxy: ProxyConfig,
    pub user_agent: String,
    pub downloads: usize,
    pub uploads: usize,
    /// How often a layer's download is begun before it has failed.
    pub attempts: u32,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            certs_dir: PathBuf::from("/etc/docker/certs.d"),
            insecure: Vec::new(),
            mirrors: Vec::new(),
            proxy: ProxyConfig::default(),
            user_agent: "docker".to_owned(),
            downloads: 3,
            uploads: 5,
            attempts: 5,
        }
    }
}

/// Registries as this daemon reaches them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(crate) config: Arc<RegistryConfig>,
    pub(crate) insecure: Arc<Insecure>,
    /// Of the whole daemon, as with dockerd.
    pub(crate) downloads: Arc<Semaphore>,
    pub(crate) uploads: Arc<Semaphore>,
}

impl Registry {
    /// Fails with dockerd's text if an insecure registry or a mirror makes no sense.
    pub fn new(mut config: RegistryConfig) -> Result<Self, RegistryError> {
        config.mirrors = config
            .mirrors
            .iter()
            .map(|mirror| check_mirror(mirror))
            .collect::<Result<_, _>>()?;
        let insecure = Insecure::parse(&config.insecure)?;
        Ok(Self {
            downloads: Arc::new(Semaphore::new(config.downloads.max(1))),
            uploads: Arc::new(Semaphore::new(config.uploads.max(1))),
            insecure: Arc::new(insecure),
            config: Arc::new(config),
        })
    }
}

/// Which registries need no verified TLS. The loopback never does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Insecure {
    hosts: Vec<String>,
    networks: Vec<(IpAddr, u8)>,
}

impl Insecure {
    fn parse(given: &[String]) -> Result<Self, RegistryError> {
        let mut parsed = Self::default();
        let loopback = ["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
        for text in given.iter().chain(&loopback) {
            let bare = text
                .strip_prefix("http://")
                .or_else(|| text.strip_prefix("https://"))
                .unwrap_or(text);
            if bare.contains("://") {
                return Err(RegistryError::Invalid(format!(
                    "insecure registry {text} should not contain '://'"
                )));
            }
            if bare.starts_with('-') || bare.ends_with('-') {
                return Err(RegistryError::Invalid(format!(
                    "invalid index name ({bare}). Cannot begin or end with a hyphen"
                )));
            }
            match parse_network(bare) {
                Some(network) => parsed.networks.push(network),
                None if bare.contains(['/', ' ']) || bare.is_empty() => {
                    return Err(RegistryError::Invalid(format!(
                        "insecure registry {text} is not valid: invalid host {bare:?}"
                    )));
                }
                None => parsed.hosts.push(bare.to_owned()),
            }
        }
        Ok(parsed)
    }

    /// `host` is `name`, `name:port`, `address:port`; names are resolved to compare with networks.
    pub(crate) async fn contains(&self, host: &str) -> bool {
        if self.hosts.iter().any(|known| known == host) {
            return true;
        }
        let name = host_name(host);
        let addresses: Vec<IpAddr> = match name.parse() {
            Ok(address) => vec![address],
            Err(_) => tokio::net::lookup_host((name, 0))
                .await
                .map(|found| found.map(|address| address.ip()).collect())
                .unwrap_or_default(),
        };
        addresses.into_iter().any(|address| self.covers(address))
    }

    fn covers(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .iter()
            .any(|&(network, bits)| same_network(address, network, bits))
    }
}

/// The host without its port and brackets.
pub(crate) fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            name
        }
        _ => host,
    }
}

pub(crate) fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

pub(crate) fn same_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - u32::from(bits);
            a.to_bits().checked_shr(shift).unwrap_or(0)
                == b.to_bits().checked_shr(shift).unwrap_or(0)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - u32::from(bits);
            a.to_bits().checked_shr(shift).unwrap_or(0)
                == b.to_bits().checked_shr(shift).unwrap_or(0)
        }
        _ => false,
    }
}

/// Checks a mirror's address and gives it a slash at its end.
pub fn check_mirror(mirror: &str) -> Result<String, RegistryError> {
    let bad = |text: String| Err(RegistryError::Invalid(format!("invalid mirror: {text}")));
    let Some((scheme, rest)) = mirror
        .split_once("://")
        .filter(|(scheme, _)| !scheme.is_empty())
    else {
        return bad(format!(
            "no scheme specified for {mirror:?}: must use either 'https://' or 'http://'"
        ));
    };
    if !matches!(scheme, "http" | "https") {
        return bad(format!(
            "unsupported scheme {scheme:?} in {mirror:?}: must use either 'https://' or 'http://'"
        ));
    }
    if rest.contains(['?', '#']) {
        return bad(format!("query or fragment at end of the URI {mirror:?}"));
    }
    let host = rest.split('/').next().unwrap_or_default();
    if let Some((user, at)) = host.rsplit_once('@') {
        let user = user.split(':').next().unwrap_or_default();
        return bad(format!(
            "username/password not allowed in URI \"{scheme}://{user}:xxxxx@{at}\""
        ));
    }
    if mirror.parse::<http::Uri>().is_err() || host.is_empty() {
        return bad(format!("{mirror:?} is not a valid URI"));
    }
    Ok(format!("{}/", mirror.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_networks_and_the_loopback_are_insecure() {
        let given = ["reg.local:5000", "10.0.0.0/8", "http://plain"].map(str::to_owned);
        let insecure = Insecure::parse(&given).unwrap();
        for host in [
            "reg.local:5000",
            "plain",
            "10.1.2.3:443",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
            "localhost:5000",
        ] {
            assert!(insecure.contains(host).await, "{host}");
        }
        for host in ["11.0.0.1:5000", "192.0.2.1", "[2001:db8::1]:5000"] {
            assert!(!insecure.contains(host).await, "{host}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_in_dockers_words() {
        let insecure = |text: &str| Insecure::parse(&[text.to_owned()]).unwrap_err().to_string();
        assert_eq!(
            insecure("ftp://x"),
            "insecure registry ftp://x should not contain '://'"
        );
        assert!(insecure("a/b").starts_with("insecure registry a/b is not valid"));
        let mirror = |text: &str| check_mirror(text).unwrap_err().to_string();
        assert_eq!(
            mirror("mirror:5000"),
            "invalid mirror: no scheme specified for \"mirror:5000\": must use either 'https://' or 'http://'"
        );
        assert_eq!(
            mirror("https://me:secret@mirror"),
            "invalid mirror: username/password not allowed in URI \"https://me:xxxxx@mirror\""
        );
        assert_eq!(check_mirror("https://m").unwrap(), "https://m/");
    }
}
