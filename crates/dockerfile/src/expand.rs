//! Variables and quotes, as a shell treats them in a word.

use crate::pattern;

/// Finds a variable's value.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Takes quotes and escapes off and puts variables in: `$name`, `${name}`, with `:-`, `-`, `:+`,
/// `+`, `:?`, `?`, `#`, `##`, `%`, `%%`, `/…/…` and `//…/…`.
pub fn expand(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    let mut shell = Shell::new(text, escape, lookup);
    match shell.run(None, false) {
        Ok(expanded) => Ok(expanded.text),
        Err(reason) => Err(format!("failed to process {text:?}: {reason}")),
    }
}

/// As [`expand`], but a variable that holds several words becomes several.
pub(crate) fn expand_words(
    text: &str,
    escape: char,
    lookup: Lookup<'_>,
) -> Result<Vec<String>, String> {
    let mut shell = Shell::new(text, escape, lookup);
    match shell.run(None, false) {
        Ok(expanded) => Ok(expanded.words),
        Err(reason) => Err(format!("failed to process {text:?}: {reason}")),
    }
}

/// Puts variables into a here-document, where quotes mean nothing.
pub(crate) fn expand_document(
    text: &str,
    escape: char,
    lookup: Lookup<'_>,
) -> Result<String, String> {
    let mut shell = Shell::new(text, escape, lookup);
    shell.quotes = false;
    shell.run(None, false).map(|expanded| expanded.text)
}

struct Shell<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    lookup: Lookup<'a>,
    /// Whether quotes are special.
    quotes: bool,
}

/// A word as one text, and as the words it has become.
#[derive(Default)]
struct Expanded {
    text: String,
    words: Vec<String>,
    /// The word in progress; a quoted empty one is none, as in dockerd.
    word: String,
}

impl Expanded {
    fn char(&mut self, c: char) {
        self.text.push(c);
        if c.is_whitespace() {
            self.end_word();
        } else {
            self.word.push(c);
        }
    }

    /// Text in quotes: white space in it separates nothing.
    fn quoted(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

impl<'a> Shell<'a> {
    fn new(text: &str, escape: char, lookup: Lookup<'a>) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
            escape,
            lookup,
            quotes: true,
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Reads up to `stop`, or to the end if there is none.
    fn run(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<Expanded, String> {
        let mut out = Expanded::default();
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == stop => {
                    out.end_word();
                    return Ok(out);
                }
                '\'' if self.quotes => {
                    let text = self.single_quoted()?;
                    out.quoted(&text);
                }
                '"' if self.quotes => {
                    let text = self.double_quoted(keep_escapes)?;
                    out.quoted(&text);
                }
                '$' => self.variable()?.chars().for_each(|c| out.char(c)),
                c if c == self.escape => {
                    if keep_escapes {
                        out.quoted(&c.to_string());
                    }
                    if let Some(c) = self.next() {
                        out.quoted(&c.to_string());
                    }
                }
                c => out.char(c),
            }
        }
        if stop.is_some() {
            return Err("syntax error: missing '}'".to_owned());
        }
        out.end_word();
        Ok(out)
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        loop {
            match self.next() {
                Some('\'') => return Ok(out),
                Some(c) => out.push(c),
                None => return Err(unterminated("single-quote")),
            }
        }
    }

    fn double_quoted(&mut self, keep_escapes: bool) -> Result<String, String> {
        let mut out = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(out),
                Some('$') => out.push_str(&self.variable()?),
                Some(c) if c == self.escape => match self.peek() {
                    // Inside double quotes an escape escapes only what is special there.
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        if keep_escapes {
                            out.push(c);
                        }
                        out.push(next);
                        self.at += 1;
                    }
                    Some(_) => out.push(c),
                    None => {}
                },
                Some(c) => out.push(c),
                None => return Err(unterminated("double-quote")),
            }
        }
    }

    fn variable(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() {
                "$".to_owned()
            } else {
                (self.lookup)(&name).unwrap_or_default()
            });
        }
        self.at += 1;
        match self.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        let value = (self.lookup)(&name);
        let null_is_unset = self.peek() == Some(':');
        if null_is_unset {
            self.at += 1;
        }
        let unsupported = |modifier: &str| {
            let colon = if null_is_unset { ":" } else { "" };
            Err(format!(
                "unsupported modifier ({colon}{modifier}) in substitution"
            ))
        };
        match self.next() {
            None => Err("syntax error: missing '}'".to_owned()),
            Some('}') if !null_is_unset => Ok(value.unwrap_or_default()),
            Some(operator @ ('-' | '+' | '?')) => {
                let word = self.run(Some('}'), false)?.text;
                let value = value.filter(|value| !(null_is_unset && value.is_empty()));
                choose(operator, &name, value, word, null_is_unset)
            }
            Some(operator @ ('#' | '%')) if !null_is_unset => {
                let longest = self.peek() == Some(operator);
                if longest {
                    self.at += 1;
                }
                let word = self.run(Some('}'), true)?.text;
                let value = value.unwrap_or_default();
                Ok(if operator == '#' {
                    pattern::trim_front(&word, &value, longest)
                } else {
                    pattern::trim_back(&word, &value, longest)
                })
            }
            Some('/') if !null_is_unset => {
                let all = self.peek() == Some('/');
                if all {
                    self.at += 1;
                }
                let word = self.run(Some('/'), true)?.text;
                let replacement = self.run(Some('}'), false)?.text;
                let value = value.unwrap_or_default();
                Ok(pattern::replace(&word, &value, &replacement, all))
            }
            Some(other) => unsupported(&other.to_string()),
        }
    }

    /// A variable's name, a positional parameter or one of the shell's special ones.
    fn name(&mut self) -> String {
        let first = self.peek();
        let take = |shell: &mut Self, fits: fn(char) -> bool| {
            let mut name = String::new();
            while let Some(c) = shell.peek().filter(|c| fits(*c)) {
                name.push(c);
                shell.at += 1;
            }
            name
        };
        match first {
            Some(c) if c.is_ascii_digit() => take(self, |c| c.is_ascii_digit()),
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.at += 1;
                c.to_string()
            }
            _ => take(self, |c| c.is_alphanumeric() || c == '_'),
        }
    }
}

fn choose(
    operator: char,
    name: &str,
    value: Option<String>,
    word: String,
    null_is_unset: bool,
) -> Result<String, String> {
    match (operator, value) {
        ('-', value) => Ok(value.unwrap_or(word)),
        ('+', Some(_)) => Ok(word),
        ('+', None) => Ok(String::new()),
        (_, Some(value)) => Ok(value),
        (_, None) if !word.is_empty() => Err(format!("{name}: {word}")),
        (_, None) if null_is_unset => Err(format!("{name}: is not allowed to be empty")),
        (_, None) => Err(format!("{name}: is not allowed to be unset")),
    }
}

fn unterminated(what: &str) -> String {
    format!("unexpected end of statement while looking for matching {what}")
}
