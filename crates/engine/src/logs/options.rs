//! Log drivers and their options.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard_stubs::models as m;
use skep_runtime::LogTarget;

use crate::config::ReloadableConfig;
use crate::container::Record;
use crate::error::{EngineError, Result};

/// Drivers that Docker has and this daemon does not, yet.
const KNOWN_ELSEWHERE: &[&str] = &[
    "syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "etwlogs", "gcplogs",
];

/// What dockerd's ring keeps without `max-buffer-size`.
const DEFAULT_BUFFER: u64 = 1_000_000;

/// Refuses drivers and options that are not there.
pub(crate) fn check(driver: &str, options: &HashMap<String, String>) -> Result<()> {
    if KNOWN_ELSEWHERE.contains(&driver) {
        return Err(EngineError::not_implemented(format!(
            "log driver '{driver}' is not supported yet"
        )));
    }
    match driver {
        "none" => Ok(()),
        "json-file" | "local" => {
            buffer(options)?;
            check_names(driver, options)?;
            super::attributes::check(options)?;
            limits(driver, options).map(drop)
        }
        other => Err(EngineError::invalid(format!(
            "error looking up logging plugin {other}: plugin {other:?} not found"
        ))),
    }
}

fn check_names(driver: &str, options: &HashMap<String, String>) -> Result<()> {
    let known = [
        "max-size",
        "max-file",
        "compress",
        "mode",
        "max-buffer-size",
    ];
    let mut unknown: Vec<_> = options
        .keys()
        .map(String::as_str)
        .filter(|key| !known.contains(key) && !super::attributes::OPTIONS.contains(key))
        .collect();
    unknown.sort_unstable();
    match unknown.first() {
        None => Ok(()),
        Some(key) if driver == "local" => Err(EngineError::invalid(format!(
            "unknown log opt '{key}' for log driver local"
        ))),
        Some(key) => Err(EngineError::invalid(format!(
            "unknown log opt '{key}' for json-file log driver"
        ))),
    }
}

/// Refuses a default that every container would be refused for.
pub(crate) fn check_default(config: &ReloadableConfig) -> Result<()> {
    let driver = match config.log_driver.as_str() {
        "" => "json-file",
        driver => driver,
    };
    let options = config.log_opts.clone().into_iter().collect();
    check(driver, &options).map_err(|error| error.context("failed to set log opts"))
}

/// How large the files of a log may get.
struct Limits {
    max_size: Option<u64>,
    max_file: u32,
    compress: bool,
}

fn limits(driver: &str, options: &HashMap<String, String>) -> Result<Limits> {
    let given = |name: &str| options.get(name).map(String::as_str);
    let local = driver == "local";
    let default = if local { Some(20 << 20) } else { None };
    let limits = Limits {
        max_size: given("max-size").map_or(Ok(default), size)?,
        max_file: given("max-file").map_or(Ok(if local { 5 } else { 1 }), max_file)?,
        compress: given("compress").map_or(Ok(local), truth)?,
    };
    let unlimited = limits.max_size.is_none();
    if local && limits.compress && limits.max_file < 2 {
        return Err(EngineError::invalid(
            "compression cannot be enabled when max file count is 1",
        ));
    }
    if !local && unlimited && limits.max_file > 1 {
        return Err(EngineError::invalid(
            "max-size must be set if max-file is greater than 1",
        ));
    }
    if !local && limits.compress && (limits.max_file == 1 || unlimited) {
        return Err(EngineError::invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ));
    }
    Ok(limits)
}

/// `mode` and `max-buffer-size`: how much is kept in memory rather than waited for; `None`: lines
/// wait for the disk.
fn buffer(options: &HashMap<String, String>) -> Result<Option<u64>> {
    let given = options.get("max-buffer-size");
    match options.get("mode").map_or("", String::as_str) {
        "non-blocking" => given.map_or(Ok(Some(DEFAULT_BUFFER)), |text| {
            memory(text)
                .map(Some)
                .map_err(|error| error.context("error parsing option max-buffer-size"))
        }),
        "" | "blocking" if given.is_some() => Err(EngineError::invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        )),
        "" | "blocking" => Ok(None),
        other => Err(EngineError::invalid(format!(
            "logger: logging mode not supported: {other}"
        ))),
    }
}

/// What the shim shall do with this container's output.
pub(crate) fn target(record: &Record, host: &str, path: PathBuf) -> Result<LogTarget> {
    let driver = record.log_driver();
    if driver == "none" {
        return Ok(LogTarget::Discard);
    }
    let empty = HashMap::new();
    let options = record
        .host_config
        .log_config
        .as_ref()
        .and_then(|config: &m::HostConfigLogConfig| config.config.as_ref())
        .unwrap_or(&empty);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let Limits {
        max_size,
        max_file,
        compress,
    } = limits(driver, options)?;
    Ok(LogTarget::JsonFile {
        path,
        max_size,
        max_file,
        compress,
        attrs: super::attributes::of(record, host, options)?,
        buffer: buffer(options)?,
    })
}

/// "10m" in bytes, decimal as dockerd's log files have it; -1 is no limit.
fn size(text: &str) -> Result<Option<u64>> {
    if text == "-1" {
        return Ok(None);
    }
    let bytes = in_units(text, 1000.0)?;
    if bytes < 1.0 {
        return Err(EngineError::invalid("max-size must be a positive number"));
    }
    Ok(Some(bytes as u64))
}

/// "10m" in bytes, binary as everything is that is counted in memory.
pub(crate) fn memory(text: &str) -> Result<u64> {
    in_units(text, 1024.0).map(|bytes| bytes as u64)
}

fn in_units(text: &str, base: f64) -> Result<f64> {
    let bad = || EngineError::invalid(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower
        .strip_suffix("ib")
        .or_else(|| lower.strip_suffix('b'))
        .unwrap_or(&lower);
    let power = match lower.as_bytes().last() {
        Some(b'k') => 1,
        Some(b'm') => 2,
        Some(b'g') => 3,
        Some(b't') => 4,
        _ => 0,
    };
    let digits = if power == 0 {
        lower
    } else {
        &lower[..lower.len() - 1]
    };
    let number: f64 = digits.trim().parse().map_err(|_| bad())?;
    let bytes = number * base.powi(power);
    if bytes.is_finite() && bytes >= 0.0 {
        Ok(bytes)
    } else {
        Err(bad())
    }
}

fn max_file(text: &str) -> Result<u32> {
    let number: i64 = text.parse().map_err(|_| {
        EngineError::invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
    })?;
    u32::try_from(number)
        .ok()
        .filter(|&number| number >= 1)
        .ok_or_else(|| EngineError::invalid("max-file cannot be less than 1"))
}

fn truth(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(EngineError::invalid(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("10").unwrap(), Some(10));
        assert_eq!(size("10k").unwrap(), Some(10_000));
        assert_eq!(size("1.5MB").unwrap(), Some(1_500_000));
        assert_eq!(size("-1").unwrap(), None);
        assert!(size("ten").is_err() && size("0").is_err());
        assert_eq!(memory("10k").unwrap(), 10 << 10);
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        assert!(
            check(
                "json-file",
                &options(&[("max-size", "1m"), ("max-file", "3"), ("compress", "true")])
            )
            .is_ok()
        );
        assert!(check("json-file", &options(&[("max-file", "3")])).is_err());
        assert!(check("json-file", &options(&[("compress", "true")])).is_err());
        assert_eq!(
            check("json-file", &options(&[("colour", "red")]))
                .unwrap_err()
                .message,
            "unknown log opt 'colour' for json-file log driver"
        );
        assert_eq!(
            check("nope", &options(&[])).unwrap_err().message,
            "error looking up logging plugin nope: plugin \"nope\" not found"
        );
    }

    #[test]
    fn the_local_driver_has_limits_of_its_own() {
        let none = limits("local", &options(&[])).unwrap();
        assert_eq!(
            (none.max_size, none.max_file, none.compress),
            (Some(20 << 20), 5, true)
        );
        assert!(
            check(
                "local",
                &options(&[("max-file", "1"), ("compress", "false")])
            )
            .is_ok()
        );
        assert_eq!(
            check("local", &options(&[("max-file", "1")]))
                .unwrap_err()
                .message,
            "compression cannot be enabled when max file count is 1"
        );
        assert_eq!(
            check("local", &options(&[("colour", "red")]))
                .unwrap_err()
                .message,
            "unknown log opt 'colour' for log driver local"
        );
    }

    #[test]
    fn a_buffer_belongs_to_the_mode_that_uses_it() {
        let of = |pairs: &[(&str, &str)]| buffer(&options(pairs));
        assert_eq!(of(&[("mode", "blocking")]).unwrap(), None);
        assert_eq!(
            of(&[("mode", "non-blocking")]).unwrap(),
            Some(DEFAULT_BUFFER)
        );
        assert_eq!(
            of(&[("mode", "non-blocking"), ("max-buffer-size", "4m")]).unwrap(),
            Some(4 << 20)
        );
        assert_eq!(
            of(&[("max-buffer-size", "1m")]).unwrap_err().message,
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        );
        assert_eq!(
            of(&[("mode", "fast")]).unwrap_err().message,
            "logger: logging mode not supported: fast"
        );
    }
}
