use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use serde::Deserialize;

/// Clients send both alphabets, with and without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// Who asks. Printing it shows nothing.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// `user:password` in base64, as the CLI's configuration has it.
    pub auth: String,
    #[serde(rename = "serveraddress")]
    pub server_address: String,
    /// A refresh token: exchanged for access tokens.
    #[serde(rename = "identitytoken")]
    pub identity_token: String,
    /// An access token to be used as it is.
    #[serde(rename = "registrytoken")]
    pub registry_token: String,
}

impl Credentials {
    /// Reads the value of `X-Registry-Auth`: JSON in base64. Nothing and nonsense are nobody, as
    /// with dockerd: the registry will say what it thinks of that.
    pub fn from_header(value: &str) -> Self {
        Self::decode(value.as_bytes()).unwrap_or_default()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let json = URL_SAFE
            .decode(value)
            .or_else(|_| STANDARD.decode(value))
            .ok()?;
        Self::from_json(&json)
    }

    /// Reads the value of `X-Registry-Config`, which a build sends: credentials by host.
    pub fn by_host(value: &str) -> BTreeMap<String, Self> {
        let json = URL_SAFE.decode(value).or_else(|_| STANDARD.decode(value));
        json.ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }

    /// Reads the body of `POST /auth`.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let mut read: Self = serde_json::from_slice(json).ok()?;
        if read.username.is_empty()
            && let Ok(pair) = STANDARD.decode(&read.auth)
            && let Ok(pair) = String::from_utf8(pair)
            && let Some((user, password)) = pair.split_once(':')
        {
            user.clone_into(&mut read.username);
            password
                .trim_end_matches('\0')
                .clone_into(&mut read.password);
        }
        Some(read)
    }

    pub(crate) fn has_password(&self) -> bool {
        !self.username.is_empty() && !self.password.is_empty()
    }

    pub(crate) fn basic(&self) -> String {
        let pair = format!("{}:{}", self.username, self.password);
        format!("Basic {}", STANDARD.encode(pair))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_in_both_alphabets_and_nonsense_is_nobody() {
        let json = br#"{"username":"me","password":"a?b>c","serveraddress":"x"}"#;
        for text in [
            URL_SAFE.encode(json),
            STANDARD.encode(json),
            STANDARD.encode(json).trim_end_matches('=').to_owned(),
        ] {
            let read = Credentials::from_header(&text);
            assert_eq!(
                (read.username.as_str(), read.password.as_str()),
                ("me", "a?b>c")
            );
        }
        assert_eq!(Credentials::from_header("%%%"), Credentials::default());
        assert_eq!(Credentials::from_header(""), Credentials::default());
    }

    #[test]
    fn a_pair_in_base64_is_taken_apart() {
        let json = format!(r#"{{"auth":"{}"}}"#, STANDARD.encode("me:pa:ss"));
        let read = Credentials::from_json(json.as_bytes()).unwrap();
        assert_eq!(
            (read.username.as_str(), read.password.as_str()),
            ("me", "pa:ss")
        );
    }

    #[test]
    fn printing_shows_no_secret() {
        let credentials = Credentials {
            password: "hunter2".to_owned(),
            ..Credentials::default()
        };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
