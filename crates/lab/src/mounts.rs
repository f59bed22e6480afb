//! The mount table of the calling thread.

use std::path::{Path, PathBuf};

/// A line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    pub(crate) kind: String,
    pub(crate) shared: bool,
}

/// Mounts in the order they were made.
pub(crate) fn table() -> Vec<Mount> {
    // The thread's, not the process's: threads may be in mount namespaces of their own.
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

/// Mount points below `root` or at it, the last made first.
#[must_use]
pub fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = table()
        .into_iter()
        .map(|mount| mount.point)
        .filter(|point| point.starts_with(root))
        .collect();
    found.reverse();
    // Stable, so that of two at one place the later one still comes first.
    found.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    found
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`
fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let point = unescape(fields.nth(4)?);
    Some(Mount {
        point: PathBuf::from(point),
        kind: after.split(' ').next()?.to_owned(),
        shared: fields.skip(1).any(|field| field.starts_with("shared:")),
    })
}

/// Blanks and the like are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        result.push_str(before);
        let digits = after.get(..3);
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            result.push(char::from(byte));
            rest = &after[3..];
        } else {
            result.push('\\');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_points_kinds_and_propagation() {
        let mount = parse("36 35 0:4 net:[1] /run/a\\040b rw shared:7 - nsfs nsfs rw").unwrap();
        assert_eq!(mount.point, Path::new("/run/a b"));
        assert_eq!(mount.kind, "nsfs");
        assert!(mount.shared);
        assert!(
            !parse("36 35 98:0 / / rw,noatime - ext4 /dev/vda rw")
                .unwrap()
                .shared
        );
        assert!(
            !parse("36 35 98:0 / / rw master:3 - ext4 /dev/vda rw")
                .unwrap()
                .shared
        );
    }

    #[test]
    fn lines_of_another_shape_are_left_out() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("1 2 3 - x"), None);
        assert_eq!(unescape("a\\"), "a\\");
        assert_eq!(unescape("a\\9"), "a\\9");
    }
}
