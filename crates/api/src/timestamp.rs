//! `since` and `until`: seconds since 1970 with an optional fraction, with moby's error texts.

use skep_engine::UnixNanos;

use crate::error::{ApiError, ApiResult};
use crate::query::{Query, go_quote};

/// The parameter's time; nothing if it is missing.
pub(crate) fn parameter(query: &Query, name: &str, quote: bool) -> ApiResult<Option<UnixNanos>> {
    let text = query.get(name);
    if text.is_empty() {
        return Ok(None);
    }
    let label = if quote {
        go_quote(name)
    } else {
        format!("'{name}'")
    };
    parse(text).map(Some).map_err(|reason| {
        ApiError::invalid(format!(
            "invalid value for {label}: invalid timestamp {}: {reason}",
            go_quote(text)
        ))
    })
}

fn parse(text: &str) -> Result<UnixNanos, String> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = seconds.strip_prefix(['-', '+']).unwrap_or(seconds);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "invalid seconds {}: invalid syntax",
            go_quote(seconds)
        ));
    }
    let out_of_range = || format!("invalid seconds {}: value out of range", go_quote(seconds));
    let whole: i64 = seconds.parse().map_err(|_| out_of_range())?;
    if fraction.len() > 20 {
        return Err(format!(
            "invalid nanoseconds: length {} exceeds maximum 20",
            fraction.len()
        ));
    }
    if let Some((position, bad)) = fraction.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        return Err(format!(
            "invalid nanoseconds: invalid character '{bad}' at position {position}"
        ));
    }
    let nanos: i64 = format!("{fraction:0<9}")[..9]
        .parse()
        .map_err(|_| out_of_range())?;
    whole
        .checked_mul(1_000_000_000)
        .and_then(|n| n.checked_add(nanos))
        .map(UnixNanos)
        .ok_or_else(out_of_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(text: &str) -> Result<Option<UnixNanos>, String> {
        let query = Query::parse(Some(&format!("since={text}"))).unwrap();
        parameter(&query, "since", true).map_err(|error| error.message)
    }

    #[test]
    fn seconds_and_fractions_are_read_and_anything_else_named() {
        assert_eq!(since(""), Ok(None));
        assert_eq!(since("1.5"), Ok(Some(UnixNanos(1_500_000_000))));
        assert_eq!(since("2.000000001999"), Ok(Some(UnixNanos(2_000_000_001))));
        assert_eq!(
            since("x").unwrap_err(),
            r#"invalid value for "since": invalid timestamp "x": invalid seconds "x": invalid syntax"#
        );
        assert!(
            since("1.-")
                .unwrap_err()
                .ends_with("invalid character '-' at position 0")
        );
    }
}
