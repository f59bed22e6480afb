//! One line of the log, byte for byte as dockerd writes it.

use std::collections::BTreeMap;

/// `"attrs":{…},` or nothing.
pub(super) fn attributes(attributes: &BTreeMap<String, String>) -> String {
    if attributes.is_empty() {
        return String::new();
    }
    let json = serde_json::to_string(attributes).expect("a map of strings is JSON");
    // Go escapes these in strings, serde does not; outside of strings they do not occur.
    let escaped = json
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026");
    format!("\"attrs\":{escaped},")
}

pub(super) fn entry(out: &mut Vec<u8>, line: &[u8], stream: &str, attributes: &str, time: &[u8]) {
    out.extend_from_slice(b"{");
    if !line.is_empty() {
        out.extend_from_slice(b"\"log\":");
        string(out, line);
        out.push(b',');
    }
    out.extend_from_slice(b"\"stream\":\"");
    out.extend_from_slice(stream.as_bytes());
    out.extend_from_slice(b"\",");
    out.extend_from_slice(attributes.as_bytes());
    out.extend_from_slice(b"\"time\":\"");
    out.extend_from_slice(time);
    out.extend_from_slice(b"\"}\n");
}

/// A JSON string of bytes that need not be UTF-8.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        valid(out, chunk.valid());
        // Go puts one replacement for each byte that is wrong.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

fn valid(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut start = 0;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let separator = byte == 0xe2
            && bytes[at + 1] == 0x80
            && (bytes[at + 2] == 0xa8 || bytes[at + 2] == 0xa9);
        let plain =
            byte >= 0x20 && !matches!(byte, b'\\' | b'"' | b'<' | b'>' | b'&') && !separator;
        if plain {
            at += 1;
            continue;
        }
        out.extend_from_slice(&bytes[start..at]);
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ if separator => {
                out.extend_from_slice(b"\\u202");
                out.push(HEX[usize::from(bytes[at + 2] & 0xf)]);
                at += 2;
            }
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 0xf)]);
            }
        }
        at += 1;
        start = at;
    }
    out.extend_from_slice(&bytes[start..]);
}
