//! The `filters` argument that most list calls take.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::error::{EngineError, Result};

/// Filter keys with the values asked for. Keys are joined by AND, a key's values by OR
/// (except `label`, whose values are joined by AND).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Parses a client's JSON: `{"key": ["value"]}` or, as older clients send it,
    /// `{"key": {"value": true}}`. An empty text is no filter.
    pub fn from_json(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let bad = || EngineError::invalid("invalid filter");
        let Value::Object(map) = serde_json::from_str::<Value>(text).map_err(|_| bad())? else {
            return Err(bad());
        };
        let mut filters = Self::default();
        for (key, values) in map {
            match values {
                Value::Array(values) => {
                    for value in values {
                        filters.add(&key, value.as_str().ok_or_else(bad)?);
                    }
                }
                Value::Object(values) => {
                    for (value, on) in values {
                        if on.as_bool().ok_or_else(bad)? {
                            filters.add(&key, &value);
                        }
                    }
                }
                _ => return Err(bad()),
            }
        }
        Ok(filters)
    }

    /// Adds one value.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0
            .entry(key.to_owned())
            .or_default()
            .insert(value.to_owned());
    }

    /// No filter at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the key is given.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// A key's values; empty if it is not given.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// All keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0.iter().map(|(key, values)| (key.as_str(), values))
    }

    /// Refuses keys that the call does not know, with Docker's text.
    pub fn check(&self, accepted: &[&str]) -> Result<()> {
        match self.0.keys().find(|key| !accepted.contains(&key.as_str())) {
            Some(key) => Err(EngineError::invalid(format!("invalid filter '{key}'"))),
            None => Ok(()),
        }
    }

    /// True if the key is not given, or any of its values is exactly `value`.
    pub fn exact(&self, key: &str, value: &str) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.is_empty() || values.contains(value))
    }

    /// True if the key is not given, or any of its values satisfies `matches`.
    pub fn any(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.is_empty() || values.iter().any(|value| matches(value)))
    }

    /// A yes/no filter as Docker reads one: `Invalid filter` unless exactly one truth value.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        let Some(values) = self.0.get(key) else {
            return Ok(None);
        };
        let truths: Vec<_> = values
            .iter()
            .map(|value| match value.as_str() {
                "1" | "true" => Some(true),
                "0" | "false" => Some(false),
                _ => None,
            })
            .collect();
        if let [Some(truth)] = truths.as_slice() {
            Ok(Some(*truth))
        } else {
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            Err(EngineError::invalid(format!(
                "invalid filter '{key}={values:?}'"
            )))
        }
    }

    /// `label` filters: every `key` or `key=value` asked for must be there.
    pub fn labels(&self, key: &str, labels: &HashMap<String, String>) -> bool {
        self.get(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        })
    }

    /// The `label!` filters of prune calls: none of them may be there.
    pub fn labels_absent(&self, key: &str, labels: &HashMap<String, String>) -> bool {
        self.get(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_none_or(|have| have != value),
            None => !labels.contains_key(wanted),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_json_forms_mean_the_same() {
        let new = Filters::from_json(r#"{"name":["web"],"status":["exited"]}"#).unwrap();
        let old =
            Filters::from_json(r#"{"name":{"web":true},"status":{"exited":true,"dead":false}}"#)
                .unwrap();
        assert_eq!(new, old);
        assert!(Filters::from_json("").unwrap().is_empty());
        assert!(Filters::from_json("[]").is_err());
        assert!(Filters::from_json("{").is_err());
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let filters = Filters::from_json(r#"{"colour":["red"]}"#).unwrap();
        assert_eq!(
            filters.check(&["name"]).unwrap_err().message,
            "invalid filter 'colour'"
        );
    }

    #[test]
    fn all_labels_must_match() {
        let labels = HashMap::from([
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), String::new()),
        ]);
        let mut filters = Filters::default();
        filters.add("label", "a=1");
        filters.add("label", "b");
        assert!(filters.labels("label", &labels));
        filters.add("label", "a=2");
        assert!(!filters.labels("label", &labels));
    }
}
