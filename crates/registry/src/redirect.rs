//! Where a redirect leads, if it may be followed.

use http::Uri;

use crate::error::RegistryError;

/// Go's limit.
pub(crate) const REDIRECTS_MAX: usize = 10;

/// Resolves a `Location` against the address that sent it. Only http and https are followed: a
/// registry must not make the daemon read files or speak other protocols.
pub(crate) fn resolve(from: &str, location: &str) -> Result<String, RegistryError> {
    let refused = || {
        RegistryError::Refused(format!(
            "refusing to follow a redirect to {:?}: unsupported protocol scheme",
            without_query(location)
        ))
    };
    let base: Uri = from.parse().map_err(|_| refused())?;
    let (scheme, authority) = (
        base.scheme_str().unwrap_or("https"),
        base.authority().map_or("", |authority| authority.as_str()),
    );
    let absolute = if let Some((named, _)) = scheme_of(location) {
        if !matches!(named.to_ascii_lowercase().as_str(), "http" | "https") {
            return Err(refused());
        }
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let directory = base
            .path()
            .rsplit_once('/')
            .map_or("", |(before, _)| before);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let parsed: Uri = absolute.parse().map_err(|_| refused())?;
    if parsed.host().is_none_or(str::is_empty) {
        return Err(refused());
    }
    Ok(absolute)
}

fn scheme_of(location: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = location.split_once(':')?;
    let ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    ok.then_some((scheme, rest))
}

/// Whether what was meant for one address may be told to the other.
pub(crate) fn same_origin(a: &str, b: &str) -> bool {
    let origin = |text: &str| {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri
            .port_u16()
            .unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some((scheme, uri.host()?.to_ascii_lowercase(), port))
    };
    origin(a).is_some_and(|first| Some(first) == origin(b))
}

/// Signed addresses carry secrets in their queries.
pub(crate) fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_relative_to_who_sent_them() {
        let from = "https://reg:5000/v2/a/blobs/x?y=1";
        for (location, to) in [
            ("/upload/1", "https://reg:5000/upload/1"),
            ("http://cdn/x?sig=1", "http://cdn/x?sig=1"),
            ("//cdn/x", "https://cdn/x"),
            ("z", "https://reg:5000/v2/a/blobs/z"),
            ("?z=1", "https://reg:5000/v2/a/blobs/x?z=1"),
        ] {
            assert_eq!(resolve(from, location).unwrap(), to);
        }
    }

    #[test]
    fn only_http_is_followed() {
        for location in [
            "file:///etc/passwd",
            "ftp://x/y",
            "gopher:x",
            "unix:///run/docker.sock",
            "http:///nohost",
            "FILE:/etc/passwd",
        ] {
            assert!(resolve("https://reg/v2/", location).is_err(), "{location}");
        }
    }

    #[test]
    fn another_host_port_or_scheme_is_another_origin() {
        assert!(same_origin("https://a/x", "https://A:443/y"));
        for other in ["https://b/x", "https://a:444/x", "http://a/x"] {
            assert!(!same_origin("https://a/x", other), "{other}");
        }
    }
}
