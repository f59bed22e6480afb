//! `WWW-Authenticate`, as registries send it.

use std::collections::BTreeMap;

use http::{HeaderMap, header};

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case.
    pub(crate) scheme: String,
    pub(crate) parameters: BTreeMap<String, String>,
}

impl Challenge {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.parameters.get(key).map(String::as_str)
    }
}

/// All challenges of an answer, in its order; what can not be read is left out.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| parse(value.to_str().ok()?))
        .collect()
}

fn parse(value: &str) -> Option<Challenge> {
    let (scheme, mut rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if scheme.is_empty() {
        return None;
    }
    let mut parameters = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let Some((key, after)) = rest.split_once('=') else {
            break;
        };
        let (text, after) = value_of(after)?;
        parameters.insert(key.trim().to_ascii_lowercase(), text);
        rest = after;
    }
    Some(Challenge {
        scheme: scheme.to_ascii_lowercase(),
        parameters,
    })
}

/// A token or a quoted string, and what comes after it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_challenge_names_realm_service_and_scope() {
        let challenge = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        )
        .unwrap();
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(challenge.get("scope"), Some("repository:a/b:pull,push"));
    }

    #[test]
    fn odd_spellings_are_read_and_broken_ones_are_not() {
        let challenge = parse(r#"BASIC Realm=plain, charset="UTF\"8""#).unwrap();
        assert_eq!(challenge.scheme, "basic");
        assert_eq!(challenge.get("realm"), Some("plain"));
        assert_eq!(challenge.get("charset"), Some("UTF\"8"));
        assert!(parse("Basic").unwrap().parameters.is_empty());
        assert_eq!(parse(r#"Bearer realm="no end"#), None);
        assert_eq!(parse(""), None);
    }
}
