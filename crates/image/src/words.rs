//! Words, quotes and variables as Dockerfiles have them.

use crate::error::ImageError;
use crate::instructions::invalid;

/// Splits at white space outside of quotes; quotes and escapes stay, for [`expand`] to take off.
pub(crate) fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                word.push(c);
                word.extend(chars.next());
            }
            ('"' | '\'', None) => {
                quote = Some(c);
                word.push(c);
            }
            (c, Some(open)) => {
                if c == open {
                    quote = None;
                }
                word.push(c);
            }
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, None) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

pub(crate) fn unquote(text: &str) -> String {
    text.trim_matches(['"', '\'']).to_owned()
}

/// Takes quotes off and puts variables in: `$name`, `${name}`, `${name:-default}`, `${name:+other}`.
pub(crate) fn expand(text: &str, env: &[String]) -> Result<String, ImageError> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let mut double = false;
    while let Some(c) = chars.next() {
        match c {
            '\'' if !double => loop {
                match chars.next() {
                    Some('\'') => break,
                    Some(c) => out.push(c),
                    None => return Err(unterminated()),
                }
            },
            '"' => double = !double,
            '\\' => match chars.next() {
                // Inside double quotes a backslash escapes only what is special there.
                Some(c) if double && !matches!(c, '"' | '$' | '\\') => out.extend(['\\', c]),
                Some(c) => out.push(c),
                None => out.push('\\'),
            },
            '$' => {
                if chars.peek() == Some(&'{') {
                    chars.next();
                    let mut inner = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(c) => inner.push(c),
                            None => return Err(invalid("syntax error: missing '}'".to_owned())),
                        }
                    }
                    out.push_str(&braced(&inner, env)?);
                } else {
                    let mut name = String::new();
                    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        name.push(c);
                    }
                    if name.is_empty() {
                        out.push('$');
                    } else {
                        out.push_str(lookup(&name, env).unwrap_or_default());
                    }
                }
            }
            c => out.push(c),
        }
    }
    if double { Err(unterminated()) } else { Ok(out) }
}

fn braced(inner: &str, env: &[String]) -> Result<String, ImageError> {
    let end = inner
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(inner.len());
    let (name, modifier) = inner.split_at(end);
    let value = lookup(name, env);
    match (modifier.get(..2), modifier) {
        (_, "") => Ok(value.unwrap_or_default().to_owned()),
        (Some(":-"), _) => match value.filter(|value| !value.is_empty()) {
            Some(value) => Ok(value.to_owned()),
            None => expand(&modifier[2..], env),
        },
        (Some(":+"), _) => match value.filter(|value| !value.is_empty()) {
            Some(_) => expand(&modifier[2..], env),
            None => Ok(String::new()),
        },
        _ => Err(invalid(format!(
            "unsupported modifier ({modifier}) in substitution"
        ))),
    }
}

fn lookup<'a>(name: &str, env: &'a [String]) -> Option<&'a str> {
    env.iter()
        .find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}

fn unterminated() -> ImageError {
    invalid("unexpected end of statement while looking for matching quote".to_owned())
}
