//! Words of an instruction, still with their quotes and escapes.

/// Splits at white space outside of quotes. Quotes and escapes stay, for `expand` to take off.
pub(crate) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            // An escape at the very end escapes nothing and is dropped.
            if let Some(escaped) = chars.next() {
                word.extend([c, escaped]);
            }
            continue;
        }
        match quote {
            Some(open) => {
                if c == open {
                    quote = None;
                }
                word.push(c);
            }
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            None => {
                if matches!(c, '"' | '\'') {
                    quote = Some(c);
                }
                word.push(c);
            }
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The instruction's name, its flags without their quotes, and the rest.
pub(crate) fn split_command(line: &str, escape: char) -> (String, Vec<String>, String) {
    let line = line.trim();
    let (name, rest) = line.split_once(is_blank).unwrap_or((line, ""));
    let (flags, rest) = leading_flags(rest, escape);
    (name.to_owned(), flags, rest.trim().to_owned())
}

pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Words that begin with `--`, up to the first that does not; `--` alone ends them.
fn leading_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (flag, length) = unquoted_word(rest, escape);
        rest = rest[length..].trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// The first word without quotes and escapes, and how many bytes it took.
fn unquoted_word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            _ if c == escape => word.extend(chars.next().map(|(_, c)| c)),
            Some(open) if c == open => quote = None,
            None if c.is_whitespace() => return (word, at),
            None if matches!(c, '"' | '\'') => quote = Some(c),
            _ => word.push(c),
        }
    }
    (word, text.len())
}

/// A list in JSON. `Ok(None)` if it is none and therefore words or a shell's command line.
pub(crate) fn json_list(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Ok(None);
    };
    let words = list.into_iter().map(|value| match value {
        serde_json::Value::String(word) => Ok(word),
        _ => Err("when using JSON array syntax, arrays must be comprised of strings only".into()),
    });
    words.collect::<Result<_, _>>().map(Some)
}
