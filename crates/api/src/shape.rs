//! Answers as Go prints them.
//!
//! Our types leave unset fields out; Go writes `null`, `""`, `0` and `[]` unless a field is marked
//! `omitempty`, and clients (docker-py, Compose, Portainer) index into those keys directly. A
//! [`Shape`] lists a structure's fields in Docker's order with what stands for "unset"; [`apply`]
//! fills and orders a value by it. Keys that a shape does not know stay, at the end.

use serde::Serialize;
use serde_json::{Map, Value, json};

mod tables;

pub(crate) use tables::*;

/// A structure's fields in Docker's order.
pub(crate) type Shape = [(&'static str, Field)];

/// What Go prints for a field that is not set, and what is inside it.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    /// `null`
    Null,
    /// `""`
    Text,
    /// `0`
    Number,
    /// `false`
    Bool,
    /// `[]`
    List,
    /// `{}`
    Map,
    /// Go's time before all times.
    ZeroTime,
    /// `[0,0]`
    Pair,
    /// A pointer with `omitempty`: there if it is set, whatever its value.
    Keep,
    /// `omitempty`: gone if it is the zero value.
    Omit,
    /// A structure by value: always there, filled.
    Inside(&'static Shape),
    /// A pointer to a structure with `omitempty`.
    MaybeInside(&'static Shape),
    /// A list of structures; `[]` if it is not set.
    EachOrEmpty(&'static Shape),
    /// A map of structures; `{}` if it is not set.
    ValuesOrEmpty(&'static Shape),
}

/// A value in the shape Docker gives it.
pub(crate) fn shaped(value: &impl Serialize, shape: &'static Shape) -> Value {
    let value =
        serde_json::to_value(value).expect("our answers have string keys and finite numbers");
    apply(value, shape)
}

/// A list of values in the shape Docker gives them.
pub(crate) fn shaped_all<T: Serialize>(values: &[T], shape: &'static Shape) -> Vec<Value> {
    values.iter().map(|value| shaped(value, shape)).collect()
}

/// Fills and orders an object; anything else is returned as it is.
pub(crate) fn apply(value: Value, shape: &'static Shape) -> Value {
    let mut given = match value {
        Value::Object(map) => map,
        other => return other,
    };
    let mut object = Map::with_capacity(shape.len());
    for (key, field) in shape {
        let value = given.shift_remove(*key).filter(|value| !value.is_null());
        if let Some(value) = fill(value, *field) {
            object.insert((*key).to_owned(), value);
        }
    }
    object.extend(given);
    Value::Object(object)
}

fn fill(value: Option<Value>, field: Field) -> Option<Value> {
    let or = |zero: Value| Some(value.clone().unwrap_or(zero));
    match field {
        Field::Null => or(Value::Null),
        Field::Text => or(json!("")),
        Field::Number => or(json!(0)),
        Field::Bool => or(json!(false)),
        Field::List => or(json!([])),
        Field::Map => or(json!({})),
        Field::ZeroTime => or(json!("0001-01-01T00:00:00Z")),
        Field::Pair => or(json!([0, 0])),
        Field::Keep => value,
        Field::Omit => value.filter(|value| !is_zero(value)),
        Field::Inside(shape) => Some(apply(value.unwrap_or_else(|| json!({})), shape)),
        Field::MaybeInside(shape) => value.map(|value| apply(value, shape)),
        Field::EachOrEmpty(shape) => Some(each(value.unwrap_or_else(|| json!([])), shape)),
        Field::ValuesOrEmpty(shape) => Some(each(value.unwrap_or_else(|| json!({})), shape)),
    }
}

fn each(value: Value, shape: &'static Shape) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| apply(item, shape)).collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, item)| (key, apply(item, shape)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests;
