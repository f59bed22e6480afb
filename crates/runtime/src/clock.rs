//! Wall-clock times as Docker writes them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, as Go's `time.RFC3339Nano` prints it in UTC: trailing zeros of the fraction are cut.
pub(crate) fn now_rfc3339() -> String {
    let mut text = [0; MAX_LENGTH];
    let length = write_now(&mut text);
    String::from_utf8_lossy(&text[..length]).into_owned()
}

pub(crate) const MAX_LENGTH: usize = 30;

/// Writes the time into `text` without allocating and returns its length.
pub(crate) fn write_now(text: &mut [u8; MAX_LENGTH]) -> usize {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    write_time(since.as_secs(), since.subsec_nanos(), text)
}

fn write_time(seconds: u64, nanoseconds: u32, text: &mut [u8; MAX_LENGTH]) -> usize {
    let (year, month, day) = civil_from_days((seconds / 86_400) as i64);
    let rest = seconds % 86_400;
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        text[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&digits::<4>(year as u64));
    put(b"-");
    put(&digits::<2>(month));
    put(b"-");
    put(&digits::<2>(day));
    put(b"T");
    put(&digits::<2>(rest / 3600));
    put(b":");
    put(&digits::<2>(rest / 60 % 60));
    put(b":");
    put(&digits::<2>(rest % 60));
    if nanoseconds != 0 {
        let fraction = digits::<9>(u64::from(nanoseconds));
        let kept = fraction
            .iter()
            .rposition(|&digit| digit != b'0')
            .map_or(0, |last| last + 1);
        put(b".");
        put(&fraction[..kept]);
    }
    put(b"Z");
    at
}

fn digits<const N: usize>(mut value: u64) -> [u8; N] {
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    text
}

/// Proleptic Gregorian date of a day counted from 1970-01-01 (Howard Hinnant's algorithm).
fn civil_from_days(days: i64) -> (i64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u64, day as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(seconds: u64, nanoseconds: u32) -> String {
        let mut text = [0; MAX_LENGTH];
        let length = write_time(seconds, nanoseconds, &mut text);
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[test]
    fn times_are_printed_as_go_prints_them() {
        assert_eq!(written(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(written(951_782_399, 120_000_000), "2000-02-28T23:59:59.12Z");
        assert_eq!(written(951_782_400, 1), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(
            written(4_102_444_799, 999_999_999),
            "2099-12-31T23:59:59.999999999Z"
        );
    }
}
