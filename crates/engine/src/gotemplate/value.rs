//! What templates compute with.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Text(String),
    /// A struct: its fields are known beforehand.
    Struct(BTreeMap<&'static str, Value>),
    Map(BTreeMap<String, Value>),
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// What `if` and its like take for true: anything but zero and empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Text(text) => !text.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Struct(_) => true,
        }
    }

    /// As Go's `%v` prints it.
    pub(super) fn print(&self) -> String {
        match self {
            Self::Nil => "<no value>".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::Struct(fields) => {
                let words: Vec<String> = fields.values().map(Self::print).collect();
                format!("{{{}}}", words.join(" "))
            }
            Self::Map(map) => {
                let pairs = map
                    .iter()
                    .map(|(key, value)| format!("{key}:{}", value.print()));
                format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
            }
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Text(_) => "string",
            Self::Struct(_) => "struct",
            Self::Map(_) => "map[string]string",
        }
    }

    pub(super) fn field(&self, name: &str) -> Result<Value, String> {
        match self {
            Self::Struct(fields) => fields
                .get(name)
                .cloned()
                .ok_or_else(|| format!("can't evaluate field {name} in type struct")),
            Self::Map(map) => map
                .get(name)
                .cloned()
                .ok_or_else(|| format!("map has no entry for key {name:?}")),
            other => Err(format!(
                "can't evaluate field {name} in type {}",
                other.kind()
            )),
        }
    }
}
