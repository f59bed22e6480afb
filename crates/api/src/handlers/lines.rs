//! Streams of JSON values: which media type, and how one value is written.

use bytes::Bytes;
use http::{HeaderMap, header};
use serde::Serialize;

use crate::reply;

const LINES: &str = "application/jsonl";
const NDJSON: &str = "application/x-ndjson";
const SEQUENCE: &str = "application/json-seq";

/// How the values of a stream are separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) media_type: &'static str,
}

impl Lines {
    /// What the client accepts by name, or the default.
    pub(crate) fn negotiate(headers: &HeaderMap, default: &'static str) -> Self {
        let accepted: Vec<&str> = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|range| range.split(';').next())
            .map(str::trim)
            .collect();
        let offered = [LINES, NDJSON, SEQUENCE]
            .into_iter()
            .find(|offer| accepted.contains(offer));
        Self {
            media_type: offered.unwrap_or(default),
        }
    }

    /// The default of newer clients.
    pub(crate) const fn default_type(lines: bool) -> &'static str {
        // Older clients were told a stream of values is one: it is not, but they expect it.
        if lines { LINES } else { reply::JSON }
    }

    /// One value.
    pub(crate) fn encode(self, value: &impl Serialize) -> Bytes {
        let line = reply::json_line(value);
        if self.media_type == SEQUENCE {
            [b"\x1e", &line[..]].concat().into()
        } else {
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_types_accepted_by_name_change_the_framing() {
        let mut headers = HeaderMap::new();
        assert_eq!(
            Lines::negotiate(&headers, reply::JSON).media_type,
            reply::JSON
        );
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        assert_eq!(Lines::negotiate(&headers, LINES).media_type, LINES);
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("text/html, application/json-seq;q=0.5"),
        );
        let sequence = Lines::negotiate(&headers, LINES);
        assert_eq!(&sequence.encode(&1)[..], b"\x1e1\n");
    }
}
