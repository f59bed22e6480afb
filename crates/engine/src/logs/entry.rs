//! One line of a json-file log.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use crate::time::UnixNanos;
use crate::types::{LogFrame, StdStream};

/// One piece of output: a line, or a part of one that was too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) stream: StdStream,
    pub(crate) time: UnixNanos,
    pub(crate) attributes: BTreeMap<String, String>,
    /// With its newline, if it ends a line.
    pub(crate) line: Bytes,
}

#[derive(Deserialize)]
struct Raw {
    log: String,
    stream: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: String,
}

impl Entry {
    /// Parses a line of the file; `None` if it is damaged.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let raw: Raw = serde_json::from_slice(line).ok()?;
        Some(Self {
            stream: if raw.stream == "stderr" {
                StdStream::Stderr
            } else {
                StdStream::Stdout
            },
            time: UnixNanos(
                i64::try_from(raw.time.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()?,
            ),
            attributes: raw.attrs,
            line: Bytes::from(raw.log),
        })
    }

    /// What `docker logs` prints of it.
    pub(crate) fn render(self, timestamps: bool, details: bool) -> LogFrame {
        let mut prefix = String::new();
        if timestamps {
            prefix.push_str(&self.time.rfc3339_fixed());
            prefix.push(' ');
        }
        if details {
            let pairs: Vec<_> = self
                .attributes
                .iter()
                .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
                .collect();
            prefix.push_str(&pairs.join(","));
            prefix.push(' ');
        }
        let bytes = if prefix.is_empty() {
            self.line
        } else {
            let mut bytes = prefix.into_bytes();
            bytes.extend_from_slice(&self.line);
            Bytes::from(bytes)
        };
        LogFrame {
            stream: self.stream,
            timestamp: self.time,
            bytes,
        }
    }
}

/// Query escaping, as clients undo it.
fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_parsed_and_printed() {
        let line = br#"{"log":"hi\n","stream":"stderr","attrs":{"a b":"1/2"},"time":"2024-01-02T03:04:05.6Z"}"#;
        let entry = Entry::parse(line).unwrap();
        assert_eq!(entry.stream, StdStream::Stderr);
        let frame = entry.clone().render(true, true);
        assert_eq!(frame.bytes, "2024-01-02T03:04:05.600000000Z a+b=1%2F2 hi\n");
        assert_eq!(entry.render(false, false).bytes, "hi\n");
        assert!(Entry::parse(b"{\"log\":").is_none());
    }
}
