//! Logical lines: directives read, comments gone, continued lines joined, here-documents attached.

use crate::error::ParseError;
use crate::words::{json_list, split, split_command};

/// What stands between `<<NAME` and `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    /// Variables in it are put in; not if the name was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs do not count.
    pub chomp: bool,
    pub content: String,
}

impl Heredoc {
    /// The content as it is meant.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        let lines = self.content.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    }
}

#[derive(Debug)]
pub(crate) struct Line {
    /// Of its beginning, counted from 1.
    pub(crate) number: usize,
    pub(crate) text: String,
    pub(crate) heredocs: Vec<Heredoc>,
}

#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) all: Vec<Line>,
    pub(crate) escape: char,
    pub(crate) warnings: Vec<String>,
}

pub(crate) fn logical_lines(text: &str) -> Result<Lines, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        rest: text.split_inclusive('\n'),
        number: 0,
    };
    let escape = escape_directive(text)?;
    let (mut lines, mut warnings) = (Vec::new(), Vec::new());
    while let Some(raw) = reader.next() {
        let first = raw.trim_start();
        if first.starts_with('#') || first.is_empty() {
            continue;
        }
        let number = reader.number;
        let text = join(first, escape, &mut reader, &mut warnings);
        if text.trim().is_empty() {
            continue;
        }
        let heredocs = heredocs(&text, escape, &mut reader)
            .map_err(|reason| ParseError::new(number, reason))?;
        lines.push(Line {
            number,
            text,
            heredocs,
        });
    }
    if lines.is_empty() {
        return Err(ParseError::new(
            reader.number.max(1),
            "file with no instructions",
        ));
    }
    Ok(Lines {
        all: lines,
        escape,
        warnings,
    })
}

struct Reader<'a> {
    rest: std::str::SplitInclusive<'a, char>,
    number: usize,
}

impl<'a> Reader<'a> {
    fn next_raw(&mut self) -> Option<&'a str> {
        let line = self.rest.next()?;
        self.number += 1;
        Some(line)
    }

    fn next(&mut self) -> Option<&'a str> {
        self.next_raw()
            .map(|line| line.trim_end_matches(['\r', '\n']))
    }
}

/// Joins a line with those that continue it. Comments between them are skipped.
fn join(first: &str, escape: char, reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> String {
    let mut text = String::new();
    let mut line = first;
    let mut had_empty = false;
    while let Some(part) = continued(line, escape) {
        text.push_str(part);
        line = loop {
            let Some(next) = reader.next() else {
                break "";
            };
            let trimmed = next.trim_start();
            had_empty |= trimmed.is_empty();
            if !trimmed.is_empty() && !trimmed.starts_with('#') {
                break next;
            }
        };
    }
    text.push_str(line);
    if had_empty {
        warnings.push(format!("Empty continuation line found in: {text}"));
    }
    text
}

/// The line without the escape at its end, if it has one that is not itself escaped.
fn continued(line: &str, escape: char) -> Option<&str> {
    let part = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!part.ends_with(escape)).then_some(part)
}

/// Parser directives stand in comments before everything else.
fn escape_directive(text: &str) -> Result<char, ParseError> {
    let mut found = None;
    for (index, line) in text.lines().enumerate() {
        let Some((name, value)) = line
            .trim_start()
            .strip_prefix('#')
            .and_then(|comment| comment.split_once('='))
        else {
            break;
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "escape" => {
                let value = value.trim();
                if found.is_some() {
                    return Err(ParseError::new(
                        index + 1,
                        "only one escape parser directive can be used",
                    ));
                }
                found = match value {
                    "`" => Some('`'),
                    "\\" => Some('\\'),
                    _ => {
                        return Err(ParseError::new(
                            index + 1,
                            format!("invalid escape token '{value}' does not match ` or \\"),
                        ));
                    }
                };
            }
            // They choose BuildKit's frontend and its checks.
            "syntax" | "check" => {}
            _ => break,
        }
    }
    Ok(found.unwrap_or('\\'))
}

/// Reads the here-documents that a line announces.
fn heredocs(line: &str, escape: char, reader: &mut Reader<'_>) -> Result<Vec<Heredoc>, String> {
    if !line.contains("<<") || !takes_heredocs(line, escape) {
        return Ok(Vec::new());
    }
    let mut found = announced(line, escape);
    for document in &mut found {
        loop {
            let raw = reader.next_raw().ok_or("unterminated heredoc")?;
            let bare = raw.trim_end_matches(['\r', '\n']);
            let end = if document.chomp {
                bare.trim_start_matches('\t')
            } else {
                bare
            };
            if end == document.name {
                break;
            }
            document.content.push_str(raw);
        }
    }
    Ok(found)
}

/// `ADD`, `COPY` and `RUN` in their word form, also behind `ONBUILD`.
fn takes_heredocs(line: &str, escape: char) -> bool {
    let (name, _, rest) = split_command(line, escape);
    match name.to_ascii_uppercase().as_str() {
        "ONBUILD" => takes_heredocs(&rest, escape),
        "ADD" | "COPY" | "RUN" => !matches!(json_list(&rest), Ok(Some(_))),
        _ => false,
    }
}

fn announced(line: &str, escape: char) -> Vec<Heredoc> {
    let words = split(line, escape);
    let mut found = Vec::new();
    let mut words = words.into_iter();
    while let Some(mut word) = words.next() {
        if matches!(word.as_str(), "<<" | "<<-") {
            word.extend(words.next());
        }
        found.extend(heredoc_word(&word));
    }
    found
}

/// `<<NAME`, `<<-NAME`, `3<<"NAME"`.
pub(crate) fn heredoc_word(word: &str) -> Option<Heredoc> {
    let rest = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")?;
    let (chomp, quoted) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if quoted.is_empty() || quoted.contains('<') {
        return None;
    }
    let name: String = quoted
        .chars()
        .filter(|c| !matches!(c, '"' | '\''))
        .collect();
    Some(Heredoc {
        expand: name.len() == quoted.len(),
        name,
        chomp,
        content: String::new(),
    })
}
