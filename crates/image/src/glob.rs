//! Go's `path.Match`: `*` and `?` stop at slashes, `[a-z]` and `[^a-z]` are classes.

/// `None`: the pattern itself is malformed.
pub fn path_match(pattern: &str, text: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    well_formed(&pattern)?;
    matches(&pattern, &text)
}

/// Go looks at the whole pattern, also where the text has failed to match before its end.
fn well_formed(mut pattern: &[char]) -> Option<()> {
    while let Some((&first, rest)) = pattern.split_first() {
        pattern = match first {
            '[' => class(rest, None)?.1,
            '\\' => rest.split_first()?.1,
            _ => rest,
        };
    }
    Some(())
}

fn matches(pattern: &[char], text: &[char]) -> Option<bool> {
    let Some((&first, rest)) = pattern.split_first() else {
        return Some(text.is_empty());
    };
    if first == '*' {
        let longest = text.iter().position(|&c| c == '/').unwrap_or(text.len());
        for taken in 0..=longest {
            if matches(rest, &text[taken..])? {
                return Some(true);
            }
        }
        return Some(false);
    }
    let (accepts, rest): (bool, &[char]) = match first {
        '?' => (text.first().is_some_and(|&c| c != '/'), rest),
        '[' => class(rest, text.first().copied())?,
        '\\' => {
            let (&escaped, rest) = rest.split_first()?;
            (text.first() == Some(&escaped), rest)
        }
        literal => (text.first() == Some(&literal), rest),
    };
    if accepts {
        return matches(rest, &text[1..]);
    }
    Some(false)
}

/// Reads a class up to its `]`; says whether it accepts the character, and what follows.
fn class(mut pattern: &[char], c: Option<char>) -> Option<(bool, &[char])> {
    let negated = pattern.first() == Some(&'^');
    if negated {
        pattern = &pattern[1..];
    }
    let (mut found, mut first) = (false, true);
    loop {
        if !first && pattern.first() == Some(&']') {
            let accepts = c.is_some_and(|c| c != '/') && found != negated;
            return Some((accepts, &pattern[1..]));
        }
        first = false;
        let (low, rest) = class_char(pattern)?;
        let (high, rest) = match rest.split_first() {
            Some(('-', rest)) => class_char(rest)?,
            _ => (low, rest),
        };
        found |= c.is_some_and(|c| (low..=high).contains(&c));
        pattern = rest;
    }
}

fn class_char(pattern: &[char]) -> Option<(char, &[char])> {
    match pattern.split_first()? {
        ('-' | ']', _) => None,
        ('\\', rest) => rest.split_first().map(|(&c, rest)| (c, rest)),
        (&c, rest) => Some((c, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::path_match;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, text, expected) in [
            ("alpine", "alpine", Some(true)),
            ("alp*", "alpine:latest", Some(true)),
            ("*", "me/app", Some(false)),
            ("*/*", "me/app", Some(true)),
            ("alpine:3.1?", "alpine:3.12", Some(true)),
            ("[a-c]lpine", "alpine", Some(true)),
            ("[^a-c]lpine", "alpine", Some(false)),
            ("al\\*", "al*", Some(true)),
            ("a[", "ab", None),
            ("a[", "xyz", None),
            ("a[]", "ab", None),
        ] {
            assert_eq!(path_match(pattern, text), expected, "{pattern} {text}");
        }
    }
}
