//! `HEALTHCHECK [--interval=…] CMD …` and `HEALTHCHECK NONE`.

use bollard_stubs::models::HealthConfig;

use crate::error::ImageError;
use crate::instructions::{invalid, json_list};

pub(crate) fn parse(text: &str) -> Result<HealthConfig, ImageError> {
    let mut health = HealthConfig::default();
    let mut rest = text.trim();
    while let Some(flag) = rest.strip_prefix("--") {
        let end = flag.find(char::is_whitespace).unwrap_or(flag.len());
        let (name, value) = flag[..end]
            .split_once('=')
            .ok_or_else(|| invalid(format!("Missing a value on flag: --{}", &flag[..end])))?;
        match name {
            "interval" => health.interval = Some(duration(name, value)?),
            "timeout" => health.timeout = Some(duration(name, value)?),
            "start-period" => health.start_period = Some(duration(name, value)?),
            "start-interval" => health.start_interval = Some(duration(name, value)?),
            "retries" => {
                let retries: i64 = value
                    .parse()
                    .map_err(|_| invalid(format!("--retries: invalid number {value:?}")))?;
                if retries < 0 {
                    return Err(invalid(format!("--retries cannot be negative ({retries})")));
                }
                health.retries = Some(retries);
            }
            _ => return Err(invalid(format!("unknown flag: --{name}"))),
        }
        rest = flag[end..].trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    health.test = Some(match kind.to_ascii_uppercase().as_str() {
        "" => {
            return Err(invalid(
                "HEALTHCHECK requires at least one argument".to_owned(),
            ));
        }
        "NONE" if command.is_empty() => vec!["NONE".to_owned()],
        "NONE" => return Err(invalid("HEALTHCHECK NONE takes no arguments".to_owned())),
        "CMD" if command.is_empty() => {
            return Err(invalid("Missing command after HEALTHCHECK CMD".to_owned()));
        }
        "CMD" => match json_list(command) {
            Some(list) => ["CMD".to_owned()].into_iter().chain(list).collect(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => {
            return Err(invalid(format!(
                "Unknown type {kind:?} in HEALTHCHECK (try CMD)"
            )));
        }
    });
    Ok(health)
}

/// Go's durations (`1m30s`, `500ms`) in nanoseconds; 0 means the default, less than 1 ms is refused.
fn duration(name: &str, text: &str) -> Result<i64, ImageError> {
    let bad = || invalid(format!("time: invalid duration {text:?}"));
    if text == "0" {
        return Ok(0);
    }
    let mut total = 0.0_f64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        total += number * unit;
        rest = &rest[end..];
    }
    if total != 0.0 && total < 1e6 {
        return Err(invalid(format!(
            "Interval {name:?} cannot be less than 1ms"
        )));
    }
    Ok(total as i64)
}
