//! The unlock key of a locked swarm, as people copy it: `SWMKEY-1-<base64>`.

use crate::{CaError, SecretKey};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use std::{fmt, str::FromStr};

const PREFIX: &str = "SWMKEY-1-";

/// The key encryption key: it seals the node key and the data encryption key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnlockKey(SecretKey);

impl UnlockKey {
    pub fn generate() -> Self {
        Self(SecretKey::generate())
    }

    /// `None` when the cluster object holds something that is not a key (no autolock: empty).
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        SecretKey::from_slice(bytes).map(Self)
    }

    pub fn key(&self) -> &SecretKey {
        &self.0
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl FromStr for UnlockKey {
    type Err = CaError;

    fn from_str(text: &str) -> Result<Self, CaError> {
        let digits = text.strip_prefix(PREFIX).ok_or(CaError::InvalidUnlockKey)?;
        let bytes = STANDARD_NO_PAD
            .decode(digits)
            .map_err(|_| CaError::InvalidUnlockKey)?;
        Self::from_slice(&bytes).ok_or(CaError::InvalidUnlockKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints() {
        let key = UnlockKey::generate();
        let text = key.to_string();
        assert!(
            text.starts_with("SWMKEY-1-") && text.len() == 9 + 43,
            "{text}"
        );
        assert_eq!(text.parse::<UnlockKey>().unwrap(), key);
    }

    #[test]
    fn refuses_other_text() {
        for bad in [
            "",
            "SWMKEY-1-",
            "SWMKEY-1-!!!",
            "SWMKEY-2-AAAA",
            "SWMKEY-1-AAAA",
        ] {
            let error = bad.parse::<UnlockKey>().unwrap_err();
            assert_eq!(error.to_string(), "invalid key string");
        }
    }
}
