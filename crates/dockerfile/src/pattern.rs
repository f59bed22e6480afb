//! Patterns of `${name#pattern}` and its kin: `?` is any one character, `*` any number, a
//! backslash takes the meaning off.

enum Token {
    One,
    Any,
    Literal(char),
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '?' => Token::One,
            '*' => Token::Any,
            '\\' => Token::Literal(chars.next().unwrap_or('\\')),
            c => Token::Literal(c),
        });
    }
    tokens
}

fn matches(tokens: &[Token], text: &[char]) -> bool {
    match tokens.split_first() {
        None => text.is_empty(),
        Some((Token::Any, rest)) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
        Some((Token::One, rest)) => !text.is_empty() && matches(rest, &text[1..]),
        Some((Token::Literal(c), rest)) => text.first() == Some(c) && matches(rest, &text[1..]),
    }
}

/// Takes the shortest or longest match off the front.
pub(crate) fn trim_front(pattern: &str, value: &str, longest: bool) -> String {
    let (tokens, text) = (tokens(pattern), value.chars().collect::<Vec<_>>());
    let found = pick(0..=text.len(), longest, |end| {
        matches(&tokens, &text[..end])
    });
    text[found.unwrap_or(0)..].iter().collect()
}

/// Takes the shortest or longest match off the end.
pub(crate) fn trim_back(pattern: &str, value: &str, longest: bool) -> String {
    let (tokens, text) = (tokens(pattern), value.chars().collect::<Vec<_>>());
    // The longest match at the end begins first.
    let found = pick(0..=text.len(), !longest, |start| {
        matches(&tokens, &text[start..])
    });
    text[..found.unwrap_or(text.len())].iter().collect()
}

/// Replaces the first match, or all; each as long as can be.
pub(crate) fn replace(pattern: &str, value: &str, replacement: &str, all: bool) -> String {
    let (tokens, text) = (tokens(pattern), value.chars().collect::<Vec<_>>());
    let (mut out, mut at, mut done) = (String::new(), 0, tokens.is_empty());
    while at < text.len() {
        let found = pick(at + 1..=text.len(), true, |end| {
            matches(&tokens, &text[at..end])
        });
        if let Some(end) = found.filter(|_| !done) {
            out.push_str(replacement);
            at = end;
            done = !all;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}

fn pick(
    range: std::ops::RangeInclusive<usize>,
    last: bool,
    fits: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut range = range;
    if last {
        range.rev().find(|&at| fits(at))
    } else {
        range.find(|&at| fits(at))
    }
}
