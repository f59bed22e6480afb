//! A cgroup of one path in every hierarchy: v1 has many, v2 one.

use std::path::{Path, PathBuf};

use crate::process;

const MOUNT: &str = "/sys/fs/cgroup";

/// Processes in a cgroup at or below `path`, whichever hierarchy says so.
#[must_use]
pub fn processes_in_cgroup(path: &str) -> Vec<i32> {
    process::all()
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
                .is_ok_and(|text| text.lines().any(|line| is_within(line, path)))
        })
        .collect()
}

/// `4:memory:/skep-lab-x/m1/0123`
fn is_within(line: &str, path: &str) -> bool {
    line.splitn(3, ':')
        .nth(2)
        .and_then(|group| group.strip_prefix(path))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Cgroup directories at and below `path` in every hierarchy, deepest first.
#[must_use]
pub fn cgroups_at(path: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        let top = hierarchy.join(path.trim_start_matches('/'));
        if top.is_dir() {
            collect(&top, &mut found);
            found.push(top);
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(MOUNT);
    let mut found = vec![root.to_owned()];
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    found.extend(entries.map(|entry| entry.path()));
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
            found.push(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_name_is_another_cgroup() {
        assert!(is_within("0::/skep-lab-a", "/skep-lab-a"));
        assert!(is_within("4:memory:/skep-lab-a/m1/0123", "/skep-lab-a"));
        assert!(is_within("4:cpu,cpuacct:/skep-lab-a/m1", "/skep-lab-a/m1"));
        assert!(!is_within("0::/skep-lab-ab", "/skep-lab-a"));
        assert!(!is_within("0::/skep-lab-a/m10", "/skep-lab-a/m1"));
        assert!(!is_within("", "/skep-lab-a"));
    }
}
