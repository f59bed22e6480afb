//! Log drivers and their options.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bollard_stubs::models as m;
use skep_runtime::LogTarget;

use crate::config::ReloadableConfig;
use crate::container::Record;
use crate::error::{EngineError, Result};

/// Drivers that Docker has and this daemon does not, yet.
const KNOWN_ELSEWHERE: &[&str] = &[
    "local", "syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "etwlogs", "gcplogs",
];

/// Options that say what else goes into each line.
const ATTRIBUTE_OPTIONS: &[&str] = &["labels", "labels-regex", "env", "env-regex", "tag"];

/// Refuses drivers and options that are not there.
pub(crate) fn check(driver: &str, options: &HashMap<String, String>) -> Result<()> {
    match driver {
        "none" => Ok(()),
        "json-file" => check_json_file(options),
        other if KNOWN_ELSEWHERE.contains(&other) => Err(EngineError::not_implemented(format!(
            "log driver '{other}' is not supported yet"
        ))),
        other => Err(EngineError::invalid(format!(
            "error looking up logging plugin {other}: plugin {other:?} not found"
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

fn check_json_file(options: &HashMap<String, String>) -> Result<()> {
    check_mode(options.get("mode").map_or("", String::as_str))?;
    for (key, value) in options {
        match key.as_str() {
            "max-size" => {
                size(value)?;
            }
            "max-file" => {
                max_file(value)?;
            }
            "max-buffer-size" => {
                return Err(EngineError::invalid(
                    "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
                ));
            }
            "compress" => {
                truth(value)?;
            }
            "labels-regex" | "env-regex" => {
                return Err(EngineError::not_implemented(format!(
                    "log opt '{key}' is not supported yet"
                )));
            }
            "tag" if value.contains("{{") => {
                return Err(EngineError::not_implemented(
                    "templates in log opt 'tag' are not supported yet",
                ));
            }
            // The mode was looked at first.
            key if key == "mode" || ATTRIBUTE_OPTIONS.contains(&key) => {}
            _ => {
                return Err(EngineError::invalid(format!(
                    "unknown log opt '{key}' for json-file log driver"
                )));
            }
        }
    }
    let files = options
        .get("max-file")
        .map_or(Ok(1), |value| max_file(value))?;
    let unlimited = options
        .get("max-size")
        .map_or(Ok(None), |value| size(value))?
        .is_none();
    if unlimited && files > 1 {
        return Err(EngineError::invalid(
            "max-size must be set if max-file is greater than 1",
        ));
    }
    let compress = options
        .get("compress")
        .map_or(Ok(false), |value| truth(value))?;
    if compress && (files == 1 || unlimited) {
        return Err(EngineError::invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ));
    }
    Ok(())
}

/// A file on this machine's disk takes lines as they come, so that there is no buffer to fill up.
fn check_mode(mode: &str) -> Result<()> {
    match mode {
        "" | "blocking" => Ok(()),
        "non-blocking" => Err(EngineError::not_implemented(
            "log opt 'mode=non-blocking' is not supported yet: the log mode that works is 'blocking'",
        )),
        other => Err(EngineError::invalid(format!(
            "logger: logging mode not supported: {other}"
        ))),
    }
}

/// What the shim shall do with this container's output.
pub(crate) fn target(record: &Record, path: PathBuf) -> Result<LogTarget> {
    if record.log_driver() == "none" {
        return Ok(LogTarget::Discard);
    }
    let empty = HashMap::new();
    let options = record
        .host_config
        .log_config
        .as_ref()
        .and_then(|config: &m::HostConfigLogConfig| config.config.as_ref())
        .unwrap_or(&empty);
    Ok(LogTarget::JsonFile {
        path,
        max_size: options
            .get("max-size")
            .map_or(Ok(None), |value| size(value))?,
        max_file: options
            .get("max-file")
            .map_or(Ok(1), |value| max_file(value))?,
        compress: options
            .get("compress")
            .map_or(Ok(false), |value| truth(value))?,
        attrs: attributes(record, options),
    })
}

/// `labels`, `env` and `tag`.
fn attributes(record: &Record, options: &HashMap<String, String>) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let names = |key: &str| {
        options
            .get(key)
            .map(String::as_str)
            .unwrap_or_default()
            .split(',')
            .map(str::to_owned)
    };
    for label in names("labels") {
        if let Some(value) = record.labels().get(&label) {
            attributes.insert(label, value.clone());
        }
    }
    let env: HashMap<_, _> = record
        .config
        .env
        .iter()
        .flatten()
        .filter_map(|pair| pair.split_once('='))
        .collect();
    for name in names("env") {
        if let Some(value) = env.get(name.as_str()) {
            attributes.insert(name, (*value).to_owned());
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        attributes.insert("tag".to_owned(), tag.clone());
    }
    attributes
}

/// "10m" in bytes; -1 is no limit.
pub(crate) fn size(text: &str) -> Result<Option<u64>> {
    if text == "-1" {
        return Ok(None);
    }
    let bad = || EngineError::invalid(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower
        .strip_suffix("ib")
        .or_else(|| lower.strip_suffix('b'))
        .unwrap_or(&lower);
    let (digits, factor) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 1_u64 << 10),
        Some(b'm') => (&lower[..lower.len() - 1], 1 << 20),
        Some(b'g') => (&lower[..lower.len() - 1], 1 << 30),
        Some(b't') => (&lower[..lower.len() - 1], 1 << 40),
        _ => (lower, 1),
    };
    let number: f64 = digits.trim().parse().map_err(|_| bad())?;
    let bytes = number * factor as f64;
    if !bytes.is_finite() || bytes < 1.0 {
        return Err(EngineError::invalid("max-size must be a positive number"));
    }
    Ok(Some(bytes as u64))
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
        assert_eq!(size("10k").unwrap(), Some(10 << 10));
        assert_eq!(size("1.5MB").unwrap(), Some(3 << 19));
        assert_eq!(size("-1").unwrap(), None);
        assert!(size("ten").is_err() && size("0").is_err());
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
    fn a_log_that_may_drop_lines_is_refused_rather_than_promised() {
        let refused = |pairs: &[(&str, &str)]| check("json-file", &options(pairs)).unwrap_err();
        assert!(check("json-file", &options(&[("mode", "blocking")])).is_ok());
        let non_blocking = refused(&[("mode", "non-blocking"), ("max-buffer-size", "1m")]);
        assert!(
            non_blocking
                .message
                .contains("'mode=non-blocking' is not supported yet")
        );
        assert_eq!(
            refused(&[("max-buffer-size", "1m")]).message,
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        );
        assert_eq!(
            refused(&[("mode", "fast")]).message,
            "logger: logging mode not supported: fast"
        );
    }
}
