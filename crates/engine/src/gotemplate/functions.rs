//! The functions that every template has: Go's own, and SwarmKit's `join`.

use std::cmp::Ordering;

use super::value::Value;

const COMMON: [&str; 17] = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "print", "println",
    "printf", "join", "slice", "urlquery",
];

pub(super) fn is_common(name: &str) -> bool {
    COMMON.contains(&name)
}

pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    match name {
        "not" => Ok(Value::Bool(!one(arguments)?.is_true())),
        "eq" => {
            let (first, others) = arguments
                .split_first()
                .ok_or("missing argument for comparison")?;
            if others.is_empty() {
                return Err("missing argument for comparison".to_owned());
            }
            let mut equal = false;
            for other in others {
                equal |= compare(first, other)? == Ordering::Equal;
            }
            Ok(Value::Bool(equal))
        }
        "ne" | "lt" | "le" | "gt" | "ge" => {
            let [a, b] = arguments else {
                return Err(count(2, arguments));
            };
            let order = compare(a, b)?;
            Ok(Value::Bool(match name {
                "ne" => order.is_ne(),
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        "len" => len(one(arguments)?),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "print" => Ok(Value::Text(print(arguments, false))),
        "println" => Ok(Value::Text(print(arguments, true) + "\n")),
        "printf" => printf(arguments),
        "join" => join(arguments),
        "urlquery" => Ok(Value::Text(urlquery(&print(arguments, false)))),
        other => Err(format!("function {other:?} not defined")),
    }
}

fn count(want: usize, arguments: &[Value]) -> String {
    format!("wrong number of args: want {want} got {}", arguments.len())
}

fn one(arguments: &[Value]) -> Result<&Value, String> {
    match arguments {
        [one] => Ok(one),
        _ => Err(count(1, arguments)),
    }
}

fn compare(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn len(value: &Value) -> Result<Value, String> {
    let len = match value {
        Value::Text(text) => text.len(),
        Value::Map(map) => map.len(),
        other => return Err(format!("len of type {}", other.kind())),
    };
    Ok(Value::Int(i64::try_from(len).unwrap_or(i64::MAX)))
}

/// A missing key of a map is its empty value here.
fn index(arguments: &[Value]) -> Result<Value, String> {
    let (value, keys) = arguments.split_first().ok_or("index of untyped nil")?;
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Map(map), Value::Text(key)) => {
                map.get(key).cloned().unwrap_or_else(|| Value::text(""))
            }
            (value, _) => return Err(format!("can't index item of type {}", value.kind())),
        };
    }
    Ok(value)
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let [Value::Text(text), bounds @ ..] = arguments else {
        return Err("can't slice item".to_owned());
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Value::Int(number)) => {
            usize::try_from(*number).map_err(|_| format!("index out of range: {number}"))
        }
        Some(other) => Err(format!(
            "cannot index slice/array with type {}",
            other.kind()
        )),
    };
    let (from, to) = (bound(0, 0)?, bound(1, text.len())?);
    let part = text
        .get(from..to)
        .ok_or_else(|| format!("index out of range: {to}"))?;
    Ok(Value::text(part))
}

/// Go's Sprint puts a space between operands when neither is a string; Sprintln always.
fn print(arguments: &[Value], always: bool) -> String {
    let mut text = String::new();
    for (at, value) in arguments.iter().enumerate() {
        let strings = |value: &Value| matches!(value, Value::Text(_));
        if at > 0 && (always || (!strings(value) && !strings(&arguments[at - 1]))) {
            text.push(' ');
        }
        text.push_str(&value.print());
    }
    text
}

fn printf(arguments: &[Value]) -> Result<Value, String> {
    let Some((Value::Text(format), values)) = arguments.split_first() else {
        return Err("wrong type for value; expected string".to_owned());
    };
    let mut values = values.iter();
    let mut text = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "-+0 #".contains(*c) || c.is_ascii_digit()) {
            flags.push(flag);
        }
        match chars.next() {
            Some('%') => text.push('%'),
            Some(verb) => text.push_str(&verb_of(verb, &flags, values.next())),
            None => text.push_str("%!(NOVERB)"),
        }
    }
    Ok(Value::Text(text))
}

fn verb_of(verb: char, flags: &str, value: Option<&Value>) -> String {
    let Some(value) = value else {
        return format!("%!{verb}(MISSING)");
    };
    let text = match (verb, value) {
        ('v', _) | ('s', Value::Text(_) | Value::Map(_)) | ('t', Value::Bool(_)) => value.print(),
        ('d', Value::Int(number)) => number.to_string(),
        ('x', Value::Int(number)) => format!("{number:x}"),
        ('X', Value::Int(number)) => format!("{number:X}"),
        ('o', Value::Int(number)) => format!("{number:o}"),
        ('q', Value::Text(text)) => format!("{text:?}"),
        _ => format!("%!{verb}({}={})", value.kind(), value.print()),
    };
    let left = flags.contains('-');
    let digits = flags.trim_start_matches(['-', '+', ' ', '#']);
    let zero = digits.starts_with('0') && !left;
    // A width is a user's number too.
    let width = digits.parse::<usize>().unwrap_or(0).min(1000);
    let missing = width.saturating_sub(text.chars().count());
    match (left, zero) {
        (true, _) => text + &" ".repeat(missing),
        (false, true) => "0".repeat(missing) + &text,
        (false, false) => " ".repeat(missing) + &text,
    }
}

/// The separator comes first.
fn join(arguments: &[Value]) -> Result<Value, String> {
    let words: Option<Vec<&str>> = arguments
        .iter()
        .map(|value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let words = words.ok_or("wrong type for value; expected string")?;
    let (separator, words) = words.split_first().ok_or("missing separator")?;
    Ok(Value::Text(words.join(separator)))
}

fn urlquery(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            other => {
                use std::fmt::Write as _;
                let _ = write!(escaped, "%{other:02X}");
            }
        }
    }
    escaped
}
