//! `HEALTHCHECK [--interval=…] CMD …` and `HEALTHCHECK NONE`.

use bollard_stubs::models::HealthConfig;

use crate::flags::{Flags, Takes};
use crate::words::json_list;

pub(crate) fn parse(flags: &[String], rest: &str) -> Result<HealthConfig, String> {
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let test = match kind.to_ascii_uppercase().as_str() {
        "" => return Err("HEALTHCHECK requires at least one argument".to_owned()),
        "NONE" if command.is_empty() => {
            return Ok(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            });
        }
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" if command.is_empty() => {
            return Err("Missing command after HEALTHCHECK CMD".to_owned());
        }
        "CMD" => match json_list(command)? {
            Some(list) if list.is_empty() => {
                return Err("Missing command after HEALTHCHECK CMD".to_owned());
            }
            Some(list) => ["CMD".to_owned()].into_iter().chain(list).collect(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        kind => return Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")),
    };
    let times = ["interval", "timeout", "start-period", "start-interval"];
    let known: Vec<_> = times
        .iter()
        .chain(&["retries"])
        .map(|name| (*name, Takes::Text))
        .collect();
    let flags = Flags::parse(flags, &known)?;
    let time = |name: &str| {
        flags
            .text(name)
            .map(|text| duration(name, &text))
            .transpose()
    };
    Ok(HealthConfig {
        test: Some(test),
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries: flags
            .text("retries")
            .map(|text| retries(&text))
            .transpose()?,
    })
}

fn retries(text: &str) -> Result<i64, String> {
    let retries: i32 = text
        .parse()
        .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?;
    if retries < 0 {
        return Err(format!("--retries cannot be negative ({retries})"));
    }
    Ok(retries.into())
}

/// Go's durations (`1m30s`, `500ms`) in nanoseconds; 0 means the default, less than 1 ms is refused.
fn duration(name: &str, text: &str) -> Result<i64, String> {
    let bad = || format!("time: invalid duration {text:?}");
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
        return Err(format!("Interval {name:?} cannot be less than 1ms"));
    }
    Ok(total as i64)
}
