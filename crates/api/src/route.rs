//! Routes: a path pattern, a method, and what becomes of a request that matches.

use crate::call::{Call, HandlerFuture};
use crate::version::ApiVersion;

/// What answers a request.
pub(crate) enum Action<S> {
    /// It works; the text says what of it does not yet, or is empty.
    Works(
        fn(Call<S>) -> HandlerFuture,
        #[cfg_attr(
            not(test),
            expect(dead_code, reason = "for the document that a test checks")
        )]
        &'static str,
    ),
    /// Not there yet: 501. The text tells users what to do instead, or is empty.
    NotYet(&'static str),
    /// Not without an experimental daemon: 501 with this text, which is Docker's own for it.
    Refused(&'static str),
}

/// One row of the route table.
pub(crate) struct Route<S> {
    pub(crate) method: &'static str,
    /// `{name}` is one segment, `{name:*}` may contain slashes (image names do).
    pub(crate) path: &'static str,
    /// Clients older than this are refused.
    pub(crate) since: Option<ApiVersion>,
    pub(crate) action: Action<S>,
}

/// The values of a pattern's parameters if the (decoded) path matches it.
pub(crate) fn matches(pattern: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut params = Vec::new();
    let mut rest = path.strip_prefix('/')?;
    let mut parts = pattern.strip_prefix('/')?.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        if let Some(name) = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix(":*}"))
        {
            // Everything up to the fixed tail; patterns have one such parameter at most.
            let tail: String = parts.flat_map(|part| ["/", part]).collect();
            let value = rest.strip_suffix(tail.as_str())?;
            params.push((name, value.to_owned()));
            return Some(params);
        }
        let (segment, after) = match rest.split_once('/') {
            Some((segment, after)) if !last => (segment, after),
            None if last => (rest, ""),
            _ => return None,
        };
        match part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
        {
            Some(name) if !segment.is_empty() => params.push((name, segment.to_owned())),
            None if part == segment => {}
            _ => return None,
        }
        rest = after;
    }
    Some(params)
}

/// A pattern as Docker's own documentation writes it.
pub(crate) fn documented(pattern: &str) -> String {
    pattern.replace(":*}", "}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(pattern: &'static str, path: &str) -> Option<String> {
        matches(pattern, path).map(|params| {
            params
                .first()
                .map_or(String::new(), |(_, value)| value.clone())
        })
    }

    #[test]
    fn image_names_may_contain_slashes() {
        assert_eq!(
            value(
                "/images/{name:*}/json",
                "/images/localhost:5000/me/echo:1/json"
            ),
            Some("localhost:5000/me/echo:1".to_owned())
        );
        assert_eq!(
            value("/images/{name:*}", "/images/a/b"),
            Some("a/b".to_owned())
        );
        assert_eq!(value("/images/{name:*}/json", "/images/a/b/tag"), None);
    }

    #[test]
    fn plain_parameters_are_one_segment() {
        assert_eq!(
            value("/services/{id}", "/services/web"),
            Some("web".to_owned())
        );
        assert_eq!(value("/services/{id}", "/services/web/logs"), None);
        assert_eq!(value("/services/{id}", "/services/"), None);
        assert_eq!(
            value("/services/{id}/logs", "/services/web/logs"),
            Some("web".to_owned())
        );
        assert_eq!(value("/services", "/services"), Some(String::new()));
        assert_eq!(value("/services", "/servicesx"), None);
        assert_eq!(value("/networks/", "/networks/"), Some(String::new()));
    }
}
