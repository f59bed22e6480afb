//! Paths inside a container's root, resolved by the kernel so that no symlink leads out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, openat, openat2};

/// Opens the root itself.
pub fn open_root(root: &Path) -> io::Result<OwnedFd> {
    Ok(openat(
        CWD,
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens a path below a root, with `..` and absolute symlinks meaning what they mean inside.
pub fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    loop {
        let opened = openat2(
            root,
            relative,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        );
        match opened {
            // The tree was renamed under us; the kernel asks to try again.
            Err(rustix::io::Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
}

/// Opens a file for reading.
pub fn open_file(root: &Path, path: &Path) -> io::Result<File> {
    // NONBLOCK: a fifo in an image must not stop us.
    let fd = open_in(&open_root(root)?, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    Ok(File::from(fd))
}

/// The path under which an open directory can be used with ordinary calls.
pub fn proc_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Where a path inside really is on the host.
pub fn real_path(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let fd = open_in(&open_root(root)?, path, OFlags::PATH)?;
    std::fs::read_link(proc_path(&fd))
}

/// Makes a directory and its parents inside a root.
pub fn make_directories(root: &Path, path: &Path) -> io::Result<()> {
    make_owned_directories(&open_root(root)?, path, None)
}

/// The same; those that were not there yet get an owner.
pub fn make_owned_directories(
    root: &OwnedFd,
    path: &Path,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let mut so_far = PathBuf::new();
    for part in path.components() {
        let std::path::Component::Normal(part) = part else {
            continue;
        };
        let parent = open_in(root, &so_far, OFlags::PATH | OFlags::DIRECTORY)?;
        match rustix::fs::mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                if let Some((uid, gid)) = owner {
                    let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                    rustix::fs::chownat(&parent, part, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        so_far.push(part);
    }
    open_in(root, &so_far, OFlags::PATH | OFlags::DIRECTORY).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn symlinks_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        symlink("/etc", dir.path().join("absolute")).unwrap();
        symlink("../../../../etc", dir.path().join("upward")).unwrap();
        for path in [
            "absolute/passwd",
            "upward/passwd",
            "../../etc/passwd",
            "/etc/passwd",
        ] {
            let text = io::read_to_string(open_file(dir.path(), Path::new(path)).unwrap()).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
    }

    #[test]
    fn directories_are_made_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink("/real", dir.path().join("link")).unwrap();
        make_directories(dir.path(), Path::new("/link/a/b")).unwrap();
        assert!(dir.path().join("real/a/b").is_dir());
    }
}
