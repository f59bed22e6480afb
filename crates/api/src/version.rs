//! API versions and their negotiation.

use std::fmt;

/// The newest version we speak: what our types cover.
pub const MAX_API_VERSION: ApiVersion = ApiVersion::new(1, 53);
/// The oldest version we accept. Docker 29 refuses below 1.40; old clients (Traefik, SDKs) need less.
pub const MIN_API_VERSION: ApiVersion = ApiVersion::new(1, 24);

/// A version such as 1.43.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    major: u32,
    minor: u32,
}

impl ApiVersion {
    /// `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Reads digits and dots as Docker compares them: what is missing or unreadable is zero.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
        Self {
            major: parts.next().unwrap_or(0),
            minor: parts.next().unwrap_or(0),
        }
    }

    /// Whether the client's version is at least `1.minor`.
    pub(crate) const fn at_least(self, minor: u32) -> bool {
        self.major > 1 || (self.major == 1 && self.minor >= minor)
    }

    /// Whether the client's version is older than `1.minor`.
    pub(crate) const fn before(self, minor: u32) -> bool {
        !self.at_least(minor)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A path without its version prefix, and the prefix's text if there was one.
pub(crate) fn split_prefix(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/v") else {
        return (None, path);
    };
    let Some((version, _)) = rest.split_once('/') else {
        return (None, path);
    };
    let is_version =
        !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if is_version {
        (Some(version), &rest[version.len()..])
    } else {
        (None, path)
    }
}

/// The version a request is to be answered in, or why it cannot be.
pub(crate) fn negotiate(asked: Option<&str>) -> Result<ApiVersion, String> {
    let Some(text) = asked else {
        return Ok(MAX_API_VERSION);
    };
    let version = ApiVersion::parse(text);
    if version < MIN_API_VERSION {
        return Err(format!(
            "client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, \
             please upgrade your client to a newer version"
        ));
    }
    if version > MAX_API_VERSION {
        return Err(format!(
            "client version {text} is too new. Maximum supported API version is {MAX_API_VERSION}"
        ));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_optional_and_only_digits_and_dots() {
        assert_eq!(split_prefix("/v1.43/info"), (Some("1.43"), "/info"));
        assert_eq!(split_prefix("/info"), (None, "/info"));
        assert_eq!(split_prefix("/volumes/v1"), (None, "/volumes/v1"));
        assert_eq!(split_prefix("/version"), (None, "/version"));
        assert_eq!(split_prefix("/v1.43"), (None, "/v1.43"));
    }

    #[test]
    fn versions_out_of_range_are_refused_in_dockers_words() {
        assert_eq!(negotiate(None), Ok(MAX_API_VERSION));
        assert_eq!(negotiate(Some("1.24")), Ok(MIN_API_VERSION));
        assert_eq!(
            negotiate(Some("1.99")).unwrap_err(),
            "client version 1.99 is too new. Maximum supported API version is 1.53"
        );
        assert_eq!(
            negotiate(Some("1.12")).unwrap_err(),
            "client version 1.12 is too old. Minimum supported API version is 1.24, \
             please upgrade your client to a newer version"
        );
    }
}
