//! Delays and losses as people write them.

use std::time::Duration;

use crate::LabError;

/// `50ms`, `1.5s`, `200us`.
pub fn parse_delay(text: &str) -> Result<Duration, LabError> {
    const UNITS: [(&str, f64); 3] = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    UNITS
        .iter()
        .find_map(|(unit, seconds)| {
            let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
            Some(number * seconds)
        })
        .filter(|seconds| (0.0..=60.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| {
            LabError::BadUnit(format!(
                "\"{text}\" is no delay of at most a minute: write it as 50ms, 1.5s or 200us"
            ))
        })
}

/// `5%`, `0.5%`: the share of frames that vanish, from 0 to 1.
pub fn parse_loss(text: &str) -> Result<f64, LabError> {
    text.strip_suffix('%')
        .and_then(|number| number.parse::<f64>().ok())
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| {
            LabError::BadUnit(format!(
                "\"{text}\" is no loss: write it as 5% (0% to 100%)"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_have_a_unit() {
        assert_eq!(parse_delay("50ms").unwrap(), Duration::from_millis(50));
        assert_eq!(parse_delay("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_delay("200us").unwrap(), Duration::from_micros(200));
        for text in ["", "50", "ms", "-1s", "61s", "NaNs", "1h"] {
            let error = parse_delay(text).unwrap_err().to_string();
            assert!(error.contains("write it as 50ms"), "{error}");
        }
    }

    #[test]
    fn losses_are_percentages() {
        assert!((parse_loss("5%").unwrap() - 0.05).abs() < 1e-9);
        assert!((parse_loss("100%").unwrap() - 1.0).abs() < 1e-9);
        for text in ["", "5", "%", "101%", "-1%", "NaN%"] {
            assert!(parse_loss(text).is_err(), "{text}");
        }
    }
}
