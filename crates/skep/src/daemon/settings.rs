//! Reads flags and daemon.json into one set of values, with dockerd's rules: a key may be given in
//! one of the two, not both; unknown keys are errors; an empty file is fine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::{Map, Value};

use super::options::{self, Kind, OPTIONS, OptionSpec, Support};

/// Why the settings could not be read. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("unable to configure the Docker daemon with file {}: {reason}", file.display())]
    File { file: PathBuf, reason: String },
    #[error("\"{name}\" can not be used: {reason}")]
    Refused {
        name: &'static str,
        reason: &'static str,
    },
}

/// Keys whose value is an object with meaning of its own; other objects in daemon.json only group keys.
const OBJECT_KEYS: &[&str] = &[
    "default-network-opts",
    "log-opts",
    "runtimes",
    "default-ulimits",
    "features",
    "builder",
    "nri-opts",
    "proxies",
];

/// Values by option name (the flag's name, or the key's where there is no flag).
#[derive(Debug, Default, Clone)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, Value>,
    /// `--tls`/`--tlsverify` decide differently when they were said out loud.
    explicit: Vec<&'static str>,
}

impl Settings {
    /// Merges the command line with the configuration file it names.
    pub(crate) fn load(matches: &ArgMatches) -> Result<Self, SettingsError> {
        let mut settings = Self::from_flags(matches);
        let file = PathBuf::from(settings.text("config-file"));
        let named = settings.explicit.contains(&"config-file");
        let text = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => Vec::new(),
            Err(error) => return Err(file_error(&file, open_error(&file, &error))),
        };
        settings.merge_file(&file, &text)?;
        settings.refuse_unsupported()?;
        Ok(settings)
    }

    fn from_flags(matches: &ArgMatches) -> Self {
        let mut settings = Self::default();
        for spec in OPTIONS.iter().filter(|spec| !spec.flag.is_empty()) {
            if matches.value_source(spec.flag) == Some(ValueSource::CommandLine) {
                settings.values.insert(spec.flag, flag_value(spec, matches));
                settings.explicit.push(spec.flag);
            }
        }
        settings
    }

    fn merge_file(&mut self, file: &Path, bytes: &[u8]) -> Result<(), SettingsError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| {
                file_error(
                    file,
                    format!(
                        "failed to decode configuration JSON at offset {}",
                        error.valid_up_to()
                    ),
                )
            })?
            .trim_start_matches('\u{feff}')
            .trim();
        if text.is_empty() {
            return Ok(());
        }
        let parsed: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| file_error(file, format!("invalid JSON: {error}")))?;
        let flat = flatten(parsed);

        let unknown: Vec<&str> = flat
            .keys()
            .map(String::as_str)
            .filter(|key| options::by_key(key).is_none())
            .collect();
        if !unknown.is_empty() {
            let reason = format!(
                "the following directives don't match any configuration option: {}",
                unknown.join(", ")
            );
            return Err(file_error(file, reason));
        }
        let conflicts: Vec<String> = flat
            .iter()
            .filter(|(key, _)| key.as_str() != "runtimes")
            .filter_map(|(key, from_file)| {
                let spec = options::by_key(key)?;
                let from_flag = self.values.get(name(spec))?;
                Some(format!(
                    "{key}: (from flag: {}, from file: {})",
                    go(from_flag),
                    go(from_file)
                ))
            })
            .collect();
        if !conflicts.is_empty() {
            let reason = format!(
                "the following directives are specified both as a flag and in the configuration file: {}",
                conflicts.join(", ")
            );
            return Err(file_error(file, reason));
        }
        for (key, value) in flat {
            let Some(spec) = options::by_key(&key) else {
                continue;
            };
            check_shape(spec, &value).map_err(|reason| file_error(file, reason))?;
            match (self.values.get_mut(name(spec)), value) {
                (Some(Value::Object(flags)), Value::Object(more)) => flags.extend(more),
                (_, value) => {
                    self.values.insert(name(spec), value);
                }
            }
        }
        Ok(())
    }

    fn refuse_unsupported(&self) -> Result<(), SettingsError> {
        for (name, value) in &self.values {
            let spec = spec_of(name);
            if let Support::Refused(reason) = spec.support
                && go(value) != spec.default
                && !is_empty(value)
            {
                return Err(SettingsError::Refused {
                    name: spec_of(name).label(),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// Options that were given but mean nothing to skep, with the reason, for the log.
    pub(crate) fn unused(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.values
            .keys()
            .filter_map(|name| match spec_of(name).support {
                Support::Unused(reason) => Some((spec_of(name).label(), reason)),
                Support::Works | Support::Refused(_) => None,
            })
    }

    /// Whether the option was given at all, on the command line or in the file.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(crate) fn text(&self, name: &'static str) -> String {
        match self.values.get(name) {
            Some(value) => go(value),
            None => spec_of(name).default.to_owned(),
        }
    }

    /// `None` when unset or empty.
    pub(crate) fn optional(&self, name: &'static str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    pub(crate) fn bool(&self, name: &'static str) -> bool {
        match self.values.get(name) {
            Some(Value::Bool(value)) => *value,
            _ => spec_of(name).default == "true",
        }
    }

    pub(crate) fn int(&self, name: &'static str) -> i64 {
        self.values
            .get(name)
            .and_then(Value::as_i64)
            .unwrap_or_else(|| spec_of(name).default.parse().unwrap_or(0))
    }

    pub(crate) fn list(&self, name: &'static str) -> Vec<String> {
        match self.values.get(name) {
            Some(Value::Array(items)) => items.iter().map(go).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn map(&self, name: &'static str) -> BTreeMap<String, Value> {
        match self.values.get(name) {
            Some(Value::Object(map)) => map.clone().into_iter().collect(),
            _ => BTreeMap::new(),
        }
    }

    pub(crate) fn json(&self, name: &'static str) -> Option<&Value> {
        self.values.get(name)
    }
}

impl OptionSpec {
    /// The name a user knows the option by.
    fn label(&'static self) -> &'static str {
        if self.flag.is_empty() {
            self.key
        } else {
            self.flag
        }
    }
}

fn name(spec: &'static OptionSpec) -> &'static str {
    spec.label()
}

fn spec_of(name: &str) -> &'static OptionSpec {
    OPTIONS
        .iter()
        .find(|spec| spec.label() == name)
        .expect("every option that is read stands in the table")
}

fn flag_value(spec: &'static OptionSpec, matches: &ArgMatches) -> Value {
    match spec.kind {
        Kind::Bool => Value::Bool(matches.get_one::<bool>(spec.flag).copied().unwrap_or(true)),
        Kind::Int => Value::from(
            matches
                .get_one::<i64>(spec.flag)
                .copied()
                .unwrap_or_default(),
        ),
        Kind::Text => Value::String(
            matches
                .get_one::<String>(spec.flag)
                .cloned()
                .unwrap_or_default(),
        ),
        Kind::List | Kind::Json => Value::Array(
            matches
                .get_many::<String>(spec.flag)
                .into_iter()
                .flatten()
                .cloned()
                .map(Value::String)
                .collect(),
        ),
        Kind::Map => Value::Object(
            matches
                .get_many::<String>(spec.flag)
                .into_iter()
                .flatten()
                .map(|pair| match pair.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Value::String(value.to_owned())),
                    None => (pair.clone(), Value::String(String::new())),
                })
                .collect(),
        ),
    }
}

fn flatten(parsed: Map<String, Value>) -> Map<String, Value> {
    let mut flat = Map::new();
    for (key, value) in parsed {
        match value {
            Value::Object(inner) if !OBJECT_KEYS.contains(&key.as_str()) => flat.extend(inner),
            value => {
                flat.insert(key, value);
            }
        }
    }
    flat
}

fn check_shape(spec: &OptionSpec, value: &Value) -> Result<(), String> {
    let (fits, expected) = match spec.kind {
        Kind::Bool => (value.is_boolean(), "a boolean"),
        Kind::Int => (value.is_i64(), "a whole number"),
        Kind::Text => (value.is_string() || value.is_number(), "a string"),
        Kind::List => (
            value
                .as_array()
                .is_some_and(|items| items.iter().all(Value::is_string)),
            "an array of strings",
        ),
        Kind::Map => (value.is_object(), "an object"),
        Kind::Json => (true, ""),
    };
    if fits || value.is_null() {
        Ok(())
    } else {
        Err(format!("invalid JSON: {} must be {expected}", spec.key))
    }
}

/// A value as Go would print it in an error text, and as text settings are read.
fn go(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(go).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go(v))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn file_error(file: &Path, reason: String) -> SettingsError {
    SettingsError::File {
        file: file.to_owned(),
        reason,
    }
}

fn open_error(file: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("open {}: no such file or directory", file.display())
        }
        _ => format!("open {}: {error}", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &[&str], file: &str) -> Result<Settings, SettingsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        std::fs::write(&path, file).unwrap();
        let mut args = vec![
            "dockerd".to_owned(),
            format!("--config-file={}", path.display()),
        ];
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        Settings::load(
            &options::command("dockerd")
                .try_get_matches_from(args)
                .unwrap(),
        )
    }

    #[test]
    fn flags_take_their_value_with_a_space_or_an_equals_sign() {
        let settings = load(
            &[
                "--data-root",
                "/a",
                "--exec-root=/b",
                "-D",
                "--iptables=false",
                "-H=unix:///x",
                "-H",
                "tcp://:1",
            ],
            "",
        )
        .unwrap();
        assert_eq!(settings.text("data-root"), "/a");
        assert_eq!(settings.text("exec-root"), "/b");
        assert!(settings.bool("debug"));
        assert!(!settings.bool("iptables"));
        assert!(settings.bool("ip-masq"));
        assert_eq!(settings.list("host"), ["unix:///x", "tcp://:1"]);
    }

    #[test]
    fn the_file_gives_what_the_flags_do_not() {
        let file = r#"{"debug": true, "labels": ["a=b"], "dns": ["1.1.1.1"], "log-opts": {"max-size": "1m"}}"#;
        let settings = load(&[], file).unwrap();
        assert!(settings.bool("debug"));
        assert_eq!(settings.list("label"), ["a=b"]);
        assert_eq!(settings.list("dns"), ["1.1.1.1"]);
        assert_eq!(settings.map("log-opt")["max-size"], "1m");
    }

    #[test]
    fn an_option_in_both_places_is_an_error_naming_both_values() {
        let error = load(&["--label", "a=b"], r#"{"labels": ["c=d"]}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with(
                "the following directives are specified both as a flag and in the configuration \
                 file: labels: (from flag: [a=b], from file: [c=d])"
            ),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = load(&[], r#"{"no-such-key": 1}"#).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "the following directives don't match any configuration option: no-such-key"
            ),
            "{error}"
        );
    }

    #[test]
    fn wrong_shapes_and_broken_json_are_errors() {
        assert!(
            load(&[], r#"{"debug": "yes"}"#)
                .unwrap_err()
                .to_string()
                .contains("debug must be a boolean")
        );
        assert!(
            load(&[], "{")
                .unwrap_err()
                .to_string()
                .contains("invalid JSON")
        );
    }

    #[test]
    fn an_empty_file_is_fine() {
        assert_eq!(
            load(&[], "  \n").unwrap().text("data-root"),
            "/var/lib/docker"
        );
    }

    #[test]
    fn an_unknown_flag_is_an_error() {
        assert!(
            options::command("dockerd")
                .try_get_matches_from(["dockerd", "--nope"])
                .is_err()
        );
    }

    #[test]
    fn a_refused_option_at_its_default_is_fine() {
        assert!(load(&["--default-gateway-v6="], "").is_ok());
        let error = load(&["--default-gateway-v6=fd00::1"], "")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"default-gateway-v6\" can not be used"),
            "{error}"
        );
    }

    #[test]
    fn an_unused_option_is_reported() {
        let settings = load(&["--containerd=/x.sock"], "").unwrap();
        assert_eq!(
            settings.unused().collect::<Vec<_>>(),
            [("containerd", "skep has no containerd")]
        );
    }
}
