//! `--chown=user[:group]`, by the image's own files.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;
use skep_engine::rooted;

use crate::error::BuildError;

/// User and group id. A user without a group means the group of the same name.
pub(crate) fn parse(text: &str, root: &OwnedFd) -> Result<(u32, u32), BuildError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (user, group) = match parts.as_slice() {
        [user] => (*user, *user),
        [user, group] => (*user, *group),
        _ => {
            return Err(BuildError::invalid(format!(
                "invalid chown string format: {text}"
            )));
        }
    };
    let fail = |what: String| {
        BuildError::failed(format!(
            "unable to convert uid/gid chown string to host mapping: {what}"
        ))
    };
    let uid = lookup(user, root, "etc/passwd")?.ok_or_else(|| {
        fail(format!(
            "can't find uid for user {user}: no such user: {user}"
        ))
    })?;
    let gid = lookup(group, root, "etc/group")?.ok_or_else(|| {
        fail(format!(
            "can't find gid for group {group}: no such group: {group}"
        ))
    })?;
    Ok((uid, gid))
}

fn lookup(name: &str, root: &OwnedFd, file: &str) -> Result<Option<u32>, BuildError> {
    if let Ok(id) = name.parse() {
        return Ok(Some(id));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let text = match rooted::open_in(root, Path::new(file), flags) {
        Ok(fd) => io::read_to_string(std::fs::File::from(fd))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())
    });
    Ok(found.flatten())
}
