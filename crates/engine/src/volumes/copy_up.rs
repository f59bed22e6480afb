//! Filling a new volume with what the image has at its place.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};

/// Copies a directory of the image into an empty volume: owners, modes, times, links and special
/// files, and the directory's own owner and mode. A volume with anything in it is left alone.
pub(crate) fn copy_up(source: &Path, volume: &Path) -> io::Result<()> {
    if fs::read_dir(volume)?.next().is_some() {
        return Ok(());
    }
    if !fs::symlink_metadata(source)?.is_dir() {
        return Ok(());
    }
    copy_directory(source, volume)
}

fn copy_directory(source: &Path, target: &Path) -> io::Result<()> {
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let meta = entry.metadata()?;
        let kind = meta.file_type();
        if kind.is_dir() {
            fs::create_dir(&to)?;
            copy_directory(&from, &to)?;
            continue;
        }
        if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else if kind.is_file() {
            fs::copy(&from, &to)?;
        } else {
            let special = if kind.is_fifo() {
                FileType::Fifo
            } else if kind.is_char_device() {
                FileType::CharacterDevice
            } else if kind.is_block_device() {
                FileType::BlockDevice
            } else {
                FileType::Socket
            };
            rustix::fs::mknodat(
                CWD,
                &to,
                special,
                Mode::from_raw_mode(meta.mode() & 0o7777),
                meta.rdev(),
            )?;
        }
        copy_attributes(&from, &to, &meta)?;
    }
    copy_attributes(source, target, &fs::symlink_metadata(source)?)
}

fn copy_attributes(from: &Path, to: &Path, meta: &fs::Metadata) -> io::Result<()> {
    let owner = (
        Some(Uid::from_raw(meta.uid())),
        Some(Gid::from_raw(meta.gid())),
    );
    rustix::fs::chownat(CWD, to, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if !meta.file_type().is_symlink() {
        // After the owner: chown clears set-user-id bits.
        fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    }
    copy_xattrs(from, to)?;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: meta.atime(),
            tv_nsec: meta.atime_nsec(),
        },
        last_modification: Timespec {
            tv_sec: meta.mtime(),
            tv_nsec: meta.mtime_nsec(),
        },
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn copy_xattrs(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(names) = xattr::list(from) else {
        return Ok(());
    };
    for name in names {
        // Overlay's own marks mean nothing outside of it.
        if name.to_string_lossy().starts_with("trusted.overlay.") {
            continue;
        }
        if let Some(value) = xattr::get(from, &name)? {
            match xattr::set(to, &name, &value) {
                Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_volume_gets_the_images_files_and_a_full_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (source, volume) = (dir.path().join("src"), dir.path().join("vol"));
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::write(source.join("sub/file"), "x").unwrap();
        fs::set_permissions(source.join("sub/file"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("sub/file", source.join("link")).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(&volume).unwrap();

        copy_up(&source, &volume).unwrap();
        assert_eq!(fs::read_to_string(volume.join("link")).unwrap(), "x");
        assert_eq!(
            fs::metadata(volume.join("sub/file")).unwrap().mode() & 0o7777,
            0o4755
        );
        assert_eq!(fs::metadata(&volume).unwrap().mode() & 0o777, 0o700);

        fs::write(source.join("later"), "y").unwrap();
        copy_up(&source, &volume).unwrap();
        assert!(!volume.join("later").exists());
    }
}
