use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A moment, to the nanosecond, in UTC. Displays as Go prints RFC 3339 with nanoseconds, which is how
/// Docker prints every date: trailing zeros of the fraction are left out.
///
/// Wide enough for Go's zero time (year 1), which dockerd sends for "never".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

/// Text that is no RFC 3339 date.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 timestamp: {0:?}")]
pub struct ParseTimestampError(String);

impl Timestamp {
    pub const UNIX_EPOCH: Self = Self {
        seconds: 0,
        nanos: 0,
    };

    /// Go's `time.Time{}`: the first instant of the year 1.
    pub const GO_ZERO: Self = Self {
        seconds: -62_135_596_800,
        nanos: 0,
    };

    /// Nanoseconds since the Unix epoch. Moments that do not fit (292 billion years) are cut to the
    /// nearest that does.
    pub fn from_nanos(nanos: i128) -> Self {
        let seconds = nanos.div_euclid(NANOS_PER_SECOND);
        match i64::try_from(seconds) {
            Ok(seconds) => Self {
                seconds,
                nanos: nanos.rem_euclid(NANOS_PER_SECOND) as u32,
            },
            Err(_) if seconds < 0 => Self {
                seconds: i64::MIN,
                nanos: 0,
            },
            Err(_) => Self {
                seconds: i64::MAX,
                nanos: 999_999_999,
            },
        }
    }

    pub const fn from_secs(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }

    /// Nanoseconds since the Unix epoch.
    pub fn as_nanos(self) -> i128 {
        i128::from(self.seconds) * NANOS_PER_SECOND + i128::from(self.nanos)
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.seconds
    }

    pub const fn subsec_nanos(self) -> u32 {
        self.nanos
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let nanos = (self.as_nanos() - earlier.as_nanos()).max(0);
        Duration::new(
            u64::try_from(nanos / NANOS_PER_SECOND).unwrap_or(u64::MAX),
            (nanos % NANOS_PER_SECOND) as u32,
        )
    }

    /// Saturates at the ends of the range, as a deadline of "for ever" should.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self::from_nanos(self.as_nanos().saturating_add(duration.as_nanos() as i128))
    }

    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self::from_nanos(self.as_nanos().saturating_sub(duration.as_nanos() as i128))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.saturating_add(duration)
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        self.saturating_sub(duration)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self::UNIX_EPOCH + after,
            Err(before) => Self::UNIX_EPOCH - before.duration(),
        }
    }
}

impl From<prost_types::Timestamp> for Timestamp {
    fn from(time: prost_types::Timestamp) -> Self {
        Self::from_nanos(i128::from(time.seconds) * NANOS_PER_SECOND + i128::from(time.nanos))
    }
}

impl From<Timestamp> for prost_types::Timestamp {
    fn from(time: Timestamp) -> Self {
        Self {
            seconds: time.seconds,
            nanos: time.nanos as i32,
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(SECONDS_PER_DAY));
        let of_day = self.seconds.rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let mut text = String::with_capacity(30);
        write!(
            text,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if self.nanos != 0 {
            write!(text, ".{:09}", self.nanos)?;
            text.truncate(text.trim_end_matches('0').len());
        }
        text.push('Z');
        f.pad(&text)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_rfc3339(text).ok_or_else(|| ParseTimestampError(text.to_owned()))
    }
}

fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| {
            digits
                .iter()
                .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
        })
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !separators
        .iter()
        .all(|&(at, byte)| bytes.get(at) == Some(&byte))
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(fraction.len());
        if digits == 0 {
            return None;
        }
        // Go reads any number of digits and keeps nine.
        nanos = format!("{:0<9.9}", &fraction[..digits])
            .parse::<u32>()
            .ok()?;
        rest = &fraction[digits..];
    }
    let offset = parse_offset(rest)?;
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
    Some(Timestamp { seconds, nanos })
}

/// Seconds east of UTC.
fn parse_offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    let two_digits = |part: &str| -> Option<i64> {
        (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse().ok())
            .flatten()
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar. Years are counted from
/// March, so that the leap day comes last.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_as_go_does() {
        let at = |nanos: i128| Timestamp::from_nanos(nanos).to_string();
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(
            at(1_700_000_000_123_456_789),
            "2023-11-14T22:13:20.123456789Z"
        );
        assert_eq!(at(1_700_000_000_120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(at(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(at(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(Timestamp::GO_ZERO.to_string(), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn reads_fractions_and_offsets() {
        let read = |text: &str| text.parse::<Timestamp>().map(Timestamp::as_nanos);
        assert_eq!(read("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(read("1969-12-31T23:30:00.5-00:30"), Ok(500_000_000));
        assert_eq!(read("1970-01-01T00:00:00.0000000019Z"), Ok(1));
        for bad in [
            "",
            "1970-01-01",
            "1970-02-30T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01 00:00:00Z",
            "+970-01-01T00:00:00Z",
            "1970-01-01T00:00:00Zx",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_and_wire_keep_every_nanosecond(seconds in -62_135_596_800_i64..253_402_300_800, nanos in 0_u32..1_000_000_000) {
            let time = Timestamp { seconds, nanos };
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            prop_assert_eq!(Timestamp::from(prost_types::Timestamp::from(time)), time);
            prop_assert_eq!(Timestamp::from_nanos(time.as_nanos()), time);
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let late = Timestamp::from_secs(i64::MAX) + Duration::MAX;
        assert_eq!(late.as_secs(), i64::MAX);
        assert_eq!(Timestamp::UNIX_EPOCH.saturating_since(late), Duration::ZERO);
    }
}
