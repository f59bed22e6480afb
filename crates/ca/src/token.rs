//! Join tokens: `SWMTKN-1-<digest of the root certificate>-<secret>`.

use crate::{CaError, RootCa};
use num_bigint::BigUint;
use std::{fmt, str::FromStr};

const BASE: u32 = 36;
/// Digits that 256 bits need in base 36.
const DIGEST_DIGITS: usize = 50;
/// Digits that 128 bits need in base 36.
const SECRET_DIGITS: usize = 25;
const SECRET_BYTES: usize = 16;

/// A parsed join token. The whole string is what the cluster compares: whether it is the
/// manager's or the worker's token decides the role of who joins with it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    root_digest: [u8; 32],
    secret: String,
    /// Tokens of version 2 say whether the cluster demands FIPS; version 1 says nothing.
    fips: Option<bool>,
}

impl JoinToken {
    pub fn generate(root: &RootCa) -> Self {
        let secret: [u8; SECRET_BYTES] = rand::random();
        Self {
            root_digest: root.digest(),
            secret: base36(&secret, SECRET_DIGITS),
            fips: None,
        }
    }

    pub fn root_digest(&self) -> &[u8; 32] {
        &self.root_digest
    }

    /// A cluster that demands FIPS cannot be joined by this node.
    pub fn demands_fips(&self) -> bool {
        self.fips == Some(true)
    }

    /// Checks the root certificates that a not yet trusted manager sent against the token.
    pub fn verify(&self, root_certificates_pem: &[u8]) -> Result<(), CaError> {
        if crate::root::digest(root_certificates_pem) == self.root_digest {
            return Ok(());
        }
        Err(CaError::FingerprintMismatch {
            expected: hex::encode(self.root_digest),
        })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = base36(&self.root_digest, DIGEST_DIGITS);
        match self.fips {
            None => write!(f, "SWMTKN-1-{digest}-{}", self.secret),
            Some(fips) => write!(f, "SWMTKN-2-{}-{digest}-{}", u8::from(fips), self.secret),
        }
    }
}

/// The secret is as good as a password; only the digest is printed.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("root_digest", &hex::encode(self.root_digest))
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = CaError;

    fn from_str(token: &str) -> Result<Self, CaError> {
        let parts: Vec<&str> = token.split('-').collect();
        let (fips, digest, secret) = match parts.as_slice() {
            ["SWMTKN", "1", digest, secret] => (None, digest, secret),
            ["SWMTKN", "2", fips @ ("0" | "1"), digest, secret] => {
                (Some(*fips == "1"), digest, secret)
            }
            _ => return Err(CaError::InvalidJoinToken),
        };
        if secret.len() != SECRET_DIGITS || !is_base36(secret) {
            return Err(CaError::InvalidJoinToken);
        }
        let root_digest = parse_digest(digest).ok_or(CaError::InvalidJoinToken)?;
        Ok(Self {
            root_digest,
            secret: (*secret).to_owned(),
            fips,
        })
    }
}

fn parse_digest(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != DIGEST_DIGITS || !is_base36(digits) {
        return None;
    }
    let bytes = BigUint::parse_bytes(digits.as_bytes(), BASE)?.to_bytes_be();
    let mut digest = [0; 32];
    // Fifty digits can say more than 256 bits: such a number is no digest.
    let start = digest.len().checked_sub(bytes.len())?;
    digest[start..].copy_from_slice(&bytes);
    Some(digest)
}

fn is_base36(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

fn base36(bytes: &[u8], digits: usize) -> String {
    let text = BigUint::from_bytes_be(bytes).to_str_radix(BASE);
    format!("{text:0>digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_token_has_dockers_shape_and_verifies_its_root_only() {
        let root = RootCa::generate(OffsetDateTime::now_utc()).unwrap();
        let token = JoinToken::generate(&root);
        let text = token.to_string();
        let parts: Vec<&str> = text.split('-').collect();
        assert_eq!(&parts[..2], ["SWMTKN", "1"]);
        assert_eq!((parts[2].len(), parts[3].len()), (50, 25));
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);

        token.verify(root.certificate_pem().as_bytes()).unwrap();
        let other = RootCa::generate(OffsetDateTime::now_utc()).unwrap();
        let error = token
            .verify(other.certificate_pem().as_bytes())
            .unwrap_err()
            .to_string();
        let expected = hex::encode(root.digest());
        assert_eq!(
            error,
            format!("remote CA does not match fingerprint. Expected: {expected}")
        );
    }

    #[test]
    fn two_tokens_of_a_root_differ_only_in_the_secret() {
        let root = RootCa::generate(OffsetDateTime::now_utc()).unwrap();
        let (one, two) = (JoinToken::generate(&root), JoinToken::generate(&root));
        assert_eq!(one.root_digest, two.root_digest);
        assert_ne!(one.secret, two.secret);
    }

    #[test]
    fn refuses_what_is_not_a_token() {
        let zeros = "0".repeat(50);
        let secret = "a".repeat(25);
        assert!(
            format!("SWMTKN-1-{zeros}-{secret}")
                .parse::<JoinToken>()
                .is_ok()
        );
        assert!(
            format!("SWMTKN-2-1-{zeros}-{secret}")
                .parse::<JoinToken>()
                .unwrap()
                .demands_fips()
        );
        for bad in [
            String::new(),
            "SWMTKN-1-x".to_owned(),
            format!("SWMTKN-3-{zeros}-{secret}"),
            format!("SWMTKN-2-{zeros}-{secret}"),
            format!("SWMTKN-2-2-{zeros}-{secret}"),
            format!("SWMTKN-1-{zeros}0-{secret}"),
            format!("SWMTKN-1-{zeros}-{}", "A".repeat(25)),
            format!("SWMTKN-1-{}-{secret}", "+".repeat(50)),
            format!("SWMTKN-1-{}-{secret}", "z".repeat(50)),
            format!("SWMTKN-1-{zeros}-{secret}-"),
        ] {
            let error = bad.parse::<JoinToken>().unwrap_err();
            assert_eq!(error.to_string(), "invalid join token", "{bad}");
        }
    }

    use time::OffsetDateTime;
}
