//! Points in time as Docker writes them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};

/// What Docker shows for a time that never was.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixNanos(pub i64);

impl UnixNanos {
    /// The current time.
    pub fn now() -> Self {
        Self::from_system(std::time::SystemTime::now())
    }

    /// From the standard library's clock type; before 1970 is zero.
    pub fn from_system(time: std::time::SystemTime) -> Self {
        let since = time
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Whole seconds.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// RFC 3339 in UTC with as many fractional digits as needed, as Docker's JSON has it.
    pub fn rfc3339(self) -> String {
        Timestamp::from_nanosecond(i128::from(self.0))
            .map_or_else(|_| ZERO_TIME.to_owned(), |at| at.to_string())
    }

    /// RFC 3339 with always nine digits, as `docker logs --timestamps` has it.
    pub fn rfc3339_fixed(self) -> String {
        Timestamp::from_nanosecond(i128::from(self.0))
            .map_or_else(|_| ZERO_TIME.to_owned(), |at| format!("{at:.9}"))
    }

    /// Parses what clients send as `since` and `until`: seconds with an optional fraction, or
    /// RFC 3339. Empty and `0` mean "not given".
    pub fn parse_query(text: &str) -> Result<Option<Self>> {
        if text.is_empty() || text == "0" {
            return Ok(None);
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(i64::try_from(at.as_nanosecond()).ok().map(Self));
        }
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let bad = || {
            EngineError::invalid(format!(
                "failed to parse value as time or duration: {text:?}"
            ))
        };
        let seconds: i64 = seconds.parse().map_err(|_| bad())?;
        if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let nanos: i64 = format!("{fraction:0<9}")[..9].parse().map_err(|_| bad())?;
        seconds
            .checked_mul(1_000_000_000)
            .and_then(|s| s.checked_add(nanos))
            .map(|n| Some(Self(n)))
            .ok_or_else(bad)
    }

    /// The time elapsed from an earlier point; zero if it is later.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_nanos(
            u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0),
        )
    }
}

/// A time, or Docker's zero time.
pub fn rfc3339_or_zero(at: Option<UnixNanos>) -> String {
    at.map_or_else(|| ZERO_TIME.to_owned(), UnixNanos::rfc3339)
}

/// A duration in words, as `docker ps` shows it ("5 minutes", "About an hour").
pub fn human_duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Docker rounds hours, so that 1h59m is "2 hours".
    let hours = (duration.as_secs_f64() / 3600.0).round() as u64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / (3600 * 24 * 365)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_read_as_docker_writes_them() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (300, "5 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 24 * 3600, "3 days"),
            (21 * 24 * 3600, "3 weeks"),
            (90 * 24 * 3600, "3 months"),
            (3 * 365 * 24 * 3600, "3 years"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn since_takes_seconds_fractions_and_dates() {
        assert_eq!(UnixNanos::parse_query("").unwrap(), None);
        assert_eq!(
            UnixNanos::parse_query("12").unwrap(),
            Some(UnixNanos(12_000_000_000))
        );
        assert_eq!(
            UnixNanos::parse_query("12.5").unwrap(),
            Some(UnixNanos(12_500_000_000))
        );
        assert_eq!(
            UnixNanos::parse_query("1970-01-01T00:00:01Z").unwrap(),
            Some(UnixNanos(1_000_000_000))
        );
        assert!(UnixNanos::parse_query("yesterday").is_err());
        assert!(UnixNanos::parse_query("1.x").is_err());
    }

    #[test]
    fn log_times_always_have_nine_digits() {
        assert_eq!(
            UnixNanos(1_500_000_000).rfc3339_fixed(),
            "1970-01-01T00:00:01.500000000Z"
        );
        assert_eq!(UnixNanos(1_500_000_000).rfc3339(), "1970-01-01T00:00:01.5Z");
    }
}
