//! `.dockerignore`. Clients leave out what it names, but always send the Dockerfile and the file
//! itself, for the daemon to read and then to forget.

use regex::Regex;

/// Whether the patterns exclude a path or one of the directories it is in. Later patterns win;
/// `!` takes back.
pub(crate) fn excludes(patterns: &str, path: &str) -> bool {
    let mut excluded = false;
    for line in patterns.trim_start_matches('\u{feff}').lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (wanted, pattern) = match line.strip_prefix('!') {
            Some(rest) => (false, rest.trim()),
            None => (true, line),
        };
        if excluded != wanted && matches(pattern, path) {
            excluded = wanted;
        }
    }
    excluded
}

fn matches(pattern: &str, path: &str) -> bool {
    let parts = pattern.split('/').filter(|part| !matches!(*part, "" | "."));
    let pattern: Vec<&str> = parts.collect();
    let Ok(regex) = Regex::new(&to_regex(&pattern.join("/"))) else {
        return false;
    };
    let ends = path
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([path.len()]);
    ends.map(|end| &path[..end])
        .any(|path| regex.is_match(path))
}

/// `*` and `?` stop at slashes, `**` does not.
fn to_regex(pattern: &str) -> String {
    let mut regex = String::from("^");
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let (part, taken) = if rest.starts_with("**/") {
            ("(.*/)?".to_owned(), 3)
        } else if rest.starts_with("**") {
            (".*".to_owned(), 2)
        } else {
            match c {
                '*' => ("[^/]*".to_owned(), 1),
                '?' => ("[^/]".to_owned(), 1),
                '[' => match rest.find(']') {
                    Some(end) => (rest[..=end].to_owned(), end + 1),
                    None => ("\\[".to_owned(), 1),
                },
                '\\' => {
                    let escaped = rest[1..]
                        .chars()
                        .next()
                        .map(String::from)
                        .unwrap_or_default();
                    (regex::escape(&escaped), 1 + escaped.len())
                }
                c => (regex::escape(&c.to_string()), c.len_utf8()),
            }
        };
        regex.push_str(&part);
        rest = &rest[taken..];
    }
    regex.push('$');
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_exclude_and_exceptions_take_back() {
        for (patterns, path, excluded) in [
            ("Dockerfile", "Dockerfile", true),
            ("*", "Dockerfile", true),
            ("*\n!Dockerfile", "Dockerfile", false),
            ("docker/", "docker/Dockerfile", true),
            ("**/Dockerfile", "a/b/Dockerfile", true),
            ("**/Dockerfile", "Dockerfile", true),
            ("*/Dockerfile", "Dockerfile", false),
            ("Docker?ile", "Dockerfile", true),
            ("# Dockerfile", "Dockerfile", false),
            ("/Dockerfile", "Dockerfile", true),
            ("[", "Dockerfile", false),
            ("", "Dockerfile", false),
        ] {
            assert_eq!(excludes(patterns, path), excluded, "{patterns:?} {path}");
        }
    }
}
