//! Whom a process runs as: names and numbers against the container's own passwd and group files.

use std::io::Read as _;
use std::path::Path;

use crate::error::{EngineError, Result};
use crate::rooted;

/// What the kernel is told, and the home for `HOME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group first, as Docker does.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

const LARGEST: i64 = (1 << 31) - 1;

/// Resolves `[user][:group]` and additional groups inside a root file system.
pub(crate) fn resolve(root: &Path, user: &str, add: &[String]) -> Result<ResolvedUser> {
    resolve_in(
        &read(root, "etc/passwd"),
        &read(root, "etc/group"),
        user,
        add,
    )
}

/// A container without these files has numbers only.
fn read(root: &Path, path: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = rooted::open_file(root, Path::new(path)) {
        // Something that is no text, or huge, has no users.
        let mut bytes = Vec::new();
        if file.take(16 << 20).read_to_end(&mut bytes).is_ok() {
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    text
}

struct Passwd<'a> {
    name: &'a str,
    uid: i64,
    gid: i64,
    home: &'a str,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    lines(text).filter_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        Some(Passwd {
            name: fields[0],
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: fields.get(5).copied().unwrap_or(""),
        })
    })
}

struct Group<'a> {
    name: &'a str,
    gid: i64,
    members: Vec<&'a str>,
}

fn group_entries(text: &str) -> impl Iterator<Item = Group<'_>> {
    lines(text).filter_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        Some(Group {
            name: fields[0],
            gid: fields.get(2)?.parse().ok()?,
            members: fields
                .get(3)
                .map(|list| list.split(',').filter(|name| !name.is_empty()).collect())
                .unwrap_or_default(),
        })
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn resolve_in(passwd: &str, group: &str, wanted: &str, add: &[String]) -> Result<ResolvedUser> {
    let (user_part, group_part) = wanted.split_once(':').unwrap_or((wanted, ""));
    let user_number = user_part.parse::<i64>().ok();
    let found = if user_part.is_empty() {
        passwd_entries(passwd).find(|entry| entry.uid == 0)
    } else {
        passwd_entries(passwd)
            .find(|entry| entry.name == user_part || Some(entry.uid) == user_number)
    };
    let name = found.as_ref().map(|entry| entry.name.to_owned());
    let home = found.as_ref().map_or("/", |entry| entry.home);
    let (uid, mut gid) = match (&found, user_number) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(number)) => (number, 0),
        (None, None) if user_part.is_empty() => (0, 0),
        (None, None) => {
            return Err(EngineError::system(format!(
                "unable to find user {user_part}: no matching entries in passwd file"
            )));
        }
    };
    let mut supplementary = Vec::new();
    if group_part.is_empty() {
        // Groups of which the user is a member count only if no group was given.
        if let Some(name) = &name {
            supplementary.extend(
                group_entries(group)
                    .filter(|entry| entry.members.contains(&name.as_str()))
                    .map(|entry| entry.gid),
            );
        }
    } else {
        gid = find_group(group, group_part)?;
    }
    let mut groups = vec![check(gid)?];
    for gid in supplementary {
        groups.push(check(gid)?);
    }
    for wanted in add {
        let gid = check(find_group(group, wanted)?)?;
        if !groups[1..].contains(&gid) {
            groups.push(gid);
        }
    }
    Ok(ResolvedUser {
        uid: check(uid)?,
        gid: groups[0],
        groups,
        home: if home.is_empty() {
            "/".to_owned()
        } else {
            home.to_owned()
        },
    })
}

fn find_group(group: &str, wanted: &str) -> Result<i64> {
    let number = wanted.parse::<i64>().ok();
    if let Some(entry) =
        group_entries(group).find(|entry| entry.name == wanted || Some(entry.gid) == number)
    {
        return Ok(entry.gid);
    }
    number.ok_or_else(|| {
        EngineError::system(format!(
            "unable to find group {wanted}: no matching entries in group file"
        ))
    })
}

fn check(number: i64) -> Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|_| number <= LARGEST)
        .ok_or_else(|| EngineError::system(format!("uids and gids must be in range 0-{LARGEST}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# comment\napp:x:1000:1001:App:/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nappgrp:x:1001:\naudio:x:29:app,root\nvideo:x:44:app\n";

    fn resolve(user: &str, add: &[&str]) -> std::result::Result<(u32, u32, Vec<u32>), String> {
        let add: Vec<_> = add.iter().map(|&group| group.to_owned()).collect();
        resolve_in(PASSWD, GROUP, user, &add)
            .map(|user| (user.uid, user.gid, user.groups))
            .map_err(|error| error.message)
    }

    #[test]
    fn names_bring_their_groups() {
        assert_eq!(resolve("", &[]), Ok((0, 0, vec![0, 29])));
        assert_eq!(resolve("app", &[]), Ok((1000, 1001, vec![1001, 29, 44])));
        assert_eq!(resolve("1000", &[]), Ok((1000, 1001, vec![1001, 29, 44])));
        assert_eq!(resolve("app:audio", &[]), Ok((1000, 29, vec![29])));
        assert_eq!(
            resolve("4242", &["video", "77"]),
            Ok((4242, 0, vec![0, 44, 77]))
        );
        assert_eq!(resolve("4242:77", &[]), Ok((4242, 77, vec![77])));
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        assert_eq!(
            resolve("bob", &[]),
            Err("unable to find user bob: no matching entries in passwd file".to_owned())
        );
        assert_eq!(
            resolve("app:none", &[]),
            Err("unable to find group none: no matching entries in group file".to_owned())
        );
        assert_eq!(
            resolve("-1", &[]),
            Err("uids and gids must be in range 0-2147483647".to_owned())
        );
    }
}
