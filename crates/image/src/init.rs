//! The mount points dockerd puts between image and container: `/proc`, `/etc/hosts`, `/.dockerenv`…
//!
//! dockerd makes them for each container; they depend on the image only, so here they are made once
//! per image and shared. A container's first `docker diff` is empty because of them.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

enum Wanted {
    Directory,
    File,
    Symlink(&'static str),
}

const PLACEHOLDERS: [(&str, Wanted); 10] = [
    ("dev/pts", Wanted::Directory),
    ("dev/shm", Wanted::Directory),
    ("proc", Wanted::Directory),
    ("sys", Wanted::Directory),
    (".dockerenv", Wanted::File),
    ("etc/resolv.conf", Wanted::File),
    ("etc/hosts", Wanted::File),
    ("etc/hostname", Wanted::File),
    ("dev/console", Wanted::File),
    ("etc/mtab", Wanted::Symlink("/proc/mounts")),
];

/// Fills `diff`; `layers` are the image's directories, top first.
pub(crate) fn populate(diff: &Path, layers: &[PathBuf]) -> io::Result<()> {
    fs::create_dir_all(diff)?;
    let mut made: Vec<(PathBuf, Option<Metadata>)> = vec![(diff.to_owned(), visible("", layers))];
    for (path, wanted) in &PLACEHOLDERS {
        if let Some((parent, _)) = path.rsplit_once('/') {
            directory(diff, parent, layers, &mut made)?;
        }
        match wanted {
            Wanted::Directory => directory(diff, path, layers, &mut made)?,
            // An image that has a directory there keeps it, as with dockerd.
            _ if visible(path, layers).is_some() => {}
            Wanted::File => {
                let file = File::create(diff.join(path))?;
                file.set_permissions(fs::Permissions::from_mode(0o755))?;
            }
            Wanted::Symlink(target) => symlink(target, diff.join(path))?,
        }
    }
    // Attributes last: times change with each entry. The top layer's directory is the one that
    // shows, so it must look like the image's own.
    for (path, original) in made.iter().rev() {
        imitate(path, original.as_ref())?;
    }
    Ok(())
}

fn directory(
    diff: &Path,
    path: &str,
    layers: &[PathBuf],
    made: &mut Vec<(PathBuf, Option<Metadata>)>,
) -> io::Result<()> {
    let target = diff.join(path);
    match fs::create_dir(&target) {
        Ok(()) => made.push((target, visible(path, layers))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The directory an image shows under a path, if it shows one.
fn visible(path: &str, layers: &[PathBuf]) -> Option<Metadata> {
    for layer in layers {
        match fs::symlink_metadata(layer.join(path)) {
            Ok(found) if found.is_dir() => return Some(found),
            // A whiteout, or something that a directory will replace.
            Ok(found) if found.file_type().is_char_device() || !found.is_dir() => return None,
            _ => {}
        }
    }
    None
}

/// Gives a directory owner, mode and times of another, or a plain directory's.
pub(crate) fn imitate(path: &Path, original: Option<&Metadata>) -> io::Result<()> {
    let Some(original) = original else {
        return fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    };
    chown(path, Some(original.uid()), Some(original.gid()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(original.mode() & 0o7777))?;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: original.atime(),
            tv_nsec: original.atime_nsec(),
        },
        last_modification: Timespec {
            tv_sec: original.mtime(),
            tv_nsec: original.mtime_nsec(),
        },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}
