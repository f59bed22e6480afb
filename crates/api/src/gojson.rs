//! Reading JSON as Go's `encoding/json` does, because clients rely on its tolerance: `null` is the
//! zero value, keys match without regard to case, unknown keys are ignored. Numbers stay strict:
//! `1.5` is not an integer and `300` is not a byte, and the error names the field as Go does.

mod de;

use serde::de::DeserializeOwned;

pub(crate) use de::Error;

/// Why a text could not be read. Displays as Go's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// Nothing but white space.
    #[error("EOF")]
    Empty,
    /// The text ends inside a value.
    #[error("unexpected EOF")]
    Truncated,
    /// A byte that cannot be there.
    #[error("invalid character {0}")]
    Syntax(String),
    /// A second value behind the first.
    #[error("unexpected content after JSON")]
    Trailing,
    /// Well-formed, but not what the field takes.
    #[error("{0}")]
    Type(String),
}

/// Reads one value of type `T` and nothing behind it.
pub(crate) fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, ReadError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(ReadError::Empty);
    }
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| syntax(text, &error))?;
    from_value(value)
}

/// Reads a value that is parsed already.
pub(crate) fn from_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, ReadError> {
    T::deserialize(de::Go(value)).map_err(|error: Error| ReadError::Type(error.to_string()))
}

fn syntax(text: &[u8], error: &serde_json::Error) -> ReadError {
    if error.is_eof() {
        return ReadError::Truncated;
    }
    // serde_json says "trailing characters" for content behind a complete value.
    if error.to_string().starts_with("trailing characters") {
        return ReadError::Trailing;
    }
    let line = text
        .split(|byte| *byte == b'\n')
        .nth(error.line().saturating_sub(1))
        .unwrap_or_default();
    let byte = line
        .get(error.column().saturating_sub(1))
        .copied()
        .unwrap_or(b'?');
    ReadError::Syntax(format!(
        "'{}' looking for beginning of value",
        char::from(byte)
    ))
}

#[cfg(test)]
mod tests;
