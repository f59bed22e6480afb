//! What prune calls share.

use crate::error::{EngineError, Result};
use crate::filters::Filters;
use crate::time::UnixNanos;

/// The `until` filter: a point in time, or an age ("24h", "10m").
pub(crate) fn until(filters: &Filters) -> Result<Option<UnixNanos>> {
    let mut values = filters.get("until");
    let Some(text) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(EngineError::invalid("more than one until filter specified"));
    }
    if let Some(age) = duration(text) {
        return Ok(Some(UnixNanos(UnixNanos::now().0.saturating_sub(age))));
    }
    UnixNanos::parse_query(text)
}

/// Go's notation of durations ("1h30m"), in nanoseconds.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * factor;
        rest = &rest[unit..];
    }
    Some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_go_writes_durations() {
        assert_eq!(duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration("10"), None);
        assert_eq!(duration("ten"), None);
    }
}
