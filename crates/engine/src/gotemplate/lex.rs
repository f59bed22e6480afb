//! Text and the words of actions.

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Text(String),
    Open,
    Close,
    /// `.A.B`, or `.` alone as an empty list.
    Field(Vec<String>),
    /// `$x`, with its fields.
    Variable(String, Vec<String>),
    Word(String),
    Literal(String),
    Number(i64),
    Pipe,
    Comma,
    Declare,
    Assign,
    Left,
    Right,
}

pub(super) fn lex(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let (before, action) = (&rest[..start], &rest[start + 2..]);
        let (trim_left, action) = match action.strip_prefix('-') {
            Some(after) if after.starts_with(|c: char| c.is_ascii_whitespace()) => (true, after),
            _ => (false, action),
        };
        push_text(&mut tokens, before, trim, trim_left);
        if let Some(comment) = action.trim_start().strip_prefix("/*") {
            let end = comment.find("*/").ok_or("unclosed comment")?;
            let after = comment[end + 2..].trim_start();
            let closed = after.strip_prefix("-}}").map(|rest| (rest, true));
            let closed = closed.or_else(|| after.strip_prefix("}}").map(|rest| (rest, false)));
            (rest, trim) = closed.ok_or("comment ends before closing delimiter")?;
            continue;
        }
        tokens.push(Token::Open);
        (rest, trim) = lex_action(action, &mut tokens)?;
        tokens.push(Token::Close);
    }
    push_text(&mut tokens, rest, trim, false);
    Ok(tokens)
}

fn push_text(tokens: &mut Vec<Token>, text: &str, trim_start: bool, trim_end: bool) {
    let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let text = if trim_start {
        text.trim_start_matches(space)
    } else {
        text
    };
    let text = if trim_end {
        text.trim_end_matches(space)
    } else {
        text
    };
    if !text.is_empty() {
        tokens.push(Token::Text(text.to_owned()));
    }
}

/// Up to the end of one action; what follows it, and whether that is to be trimmed.
fn lex_action<'a>(text: &'a str, tokens: &mut Vec<Token>) -> Result<(&'a str, bool), String> {
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        let spaced = trimmed.len() < rest.len();
        rest = trimmed;
        let Some(first) = rest.chars().next() else {
            return Err("unclosed action".to_owned());
        };
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((after, false));
        }
        if let Some(after) = rest.strip_prefix("-}}").filter(|_| spaced) {
            return Ok((after, true));
        }
        rest = match first {
            '"' => quoted(rest, tokens)?,
            '`' => {
                let end = rest[1..]
                    .find('`')
                    .ok_or("unterminated raw quoted string")?;
                tokens.push(Token::Literal(rest[1..=end].to_owned()));
                &rest[end + 2..]
            }
            '.' | '$' => field(rest, first, tokens),
            '0'..='9' | '-' | '+' => number(rest, tokens)?,
            c if c.is_alphanumeric() || c == '_' => {
                let end = word_end(rest);
                tokens.push(Token::Word(rest[..end].to_owned()));
                &rest[end..]
            }
            _ => symbol(rest, first, tokens)?,
        };
    }
}

fn symbol<'a>(rest: &'a str, first: char, tokens: &mut Vec<Token>) -> Result<&'a str, String> {
    if let Some(after) = rest.strip_prefix(":=") {
        tokens.push(Token::Declare);
        return Ok(after);
    }
    tokens.push(match first {
        '|' => Token::Pipe,
        ',' => Token::Comma,
        '=' => Token::Assign,
        '(' => Token::Left,
        ')' => Token::Right,
        other => return Err(format!("unexpected {other:?} in action")),
    });
    Ok(&rest[1..])
}

fn word_end(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

fn field<'a>(text: &'a str, first: char, tokens: &mut Vec<Token>) -> &'a str {
    let mut rest = text;
    let mut variable = None;
    if first == '$' {
        let end = 1 + word_end(&rest[1..]);
        variable = Some(rest[1..end].to_owned());
        rest = &rest[end..];
    }
    let mut path = Vec::new();
    while let Some(after) = rest.strip_prefix('.') {
        let end = word_end(after);
        if end == 0 {
            if path.is_empty() && variable.is_none() {
                rest = after;
            }
            break;
        }
        path.push(after[..end].to_owned());
        rest = &after[end..];
    }
    tokens.push(match variable {
        Some(name) => Token::Variable(name, path),
        None => Token::Field(path),
    });
    rest
}

fn number<'a>(text: &'a str, tokens: &mut Vec<Token>) -> Result<&'a str, String> {
    let end = 1 + word_end(&text[1..]);
    let digits = text[..end].strip_prefix('+').unwrap_or(&text[..end]);
    let number = digits
        .parse()
        .map_err(|_| format!("bad number syntax: {:?}", &text[..end]))?;
    tokens.push(Token::Number(number));
    Ok(&text[end..])
}

/// A string in Go's quotes.
fn quoted<'a>(text: &'a str, tokens: &mut Vec<Token>) -> Result<&'a str, String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                tokens.push(Token::Literal(value));
                return Ok(&text[at + 1..]);
            }
            '\n' => break,
            '\\' => {
                let (_, escaped) = chars.next().ok_or("unterminated quoted string")?;
                value.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '\\' | '"' | '\'' => escaped,
                    other => return Err(format!("unknown escape \\{other} in string")),
                });
            }
            other => value.push(other),
        }
    }
    Err("unterminated quoted string".to_owned())
}
