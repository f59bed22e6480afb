//! SwarmKit's rules for the names users give to objects.

/// Why a name is refused. The texts are SwarmKit's; they reach the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("meta: name must be provided")]
    Missing,
    #[error("name must be valid as a DNS name component")]
    NotADnsLabel,
    #[error("name must be 63 characters or fewer")]
    TooLong,
    #[error("name must be provided")]
    FileMissing,
    #[error(
        "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
    )]
    InvalidFile,
}

const MAX_DNS_LABEL: usize = 63;
const MAX_FILE_NAME: usize = 64;

/// Names of services, networks and most other objects: they become DNS names.
pub fn validate(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Missing);
    }
    if !is_bounded_by_alphanumerics(name, b"-_") {
        return Err(NameError::NotADnsLabel);
    }
    if name.len() > MAX_DNS_LABEL {
        return Err(NameError::TooLong);
    }
    Ok(())
}

/// Names of secrets and configs: they become file names, so dots are fine.
pub fn validate_file(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::FileMissing);
    }
    if name.len() > MAX_FILE_NAME || !is_bounded_by_alphanumerics(name, b"-_.") {
        return Err(NameError::InvalidFile);
    }
    Ok(())
}

fn is_bounded_by_alphanumerics(name: &str, inner: &[u8]) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || inner.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_is_one_dns_label() {
        for good in ["a", "web", "web-1", "a_b", "A--b", "0"] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        assert_eq!(validate(""), Err(NameError::Missing));
        for bad in ["-a", "a-", "a.b", "a b", "_", "ä", "a/b", "a\n"] {
            assert_eq!(validate(bad), Err(NameError::NotADnsLabel), "{bad:?}");
        }
        assert_eq!(validate(&"a".repeat(63)), Ok(()));
        assert_eq!(validate(&"a".repeat(64)), Err(NameError::TooLong));
    }

    #[test]
    fn a_secret_name_may_have_dots_inside() {
        for good in ["a", "site.key", "a-._b"] {
            assert_eq!(validate_file(good), Ok(()), "{good}");
        }
        assert_eq!(validate_file(""), Err(NameError::FileMissing));
        for bad in [".a", "a.", "a b", &"a".repeat(65)] {
            assert_eq!(validate_file(bad), Err(NameError::InvalidFile), "{bad:?}");
        }
    }
}
