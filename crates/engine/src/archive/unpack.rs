//! Writing a tar into a container.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, linkat,
    mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use tar::{Entry, EntryType};

use crate::error::{EngineError, Result};
use crate::rooted;

/// What replaces what the archive says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    pub owner: Option<(u32, u32)>,
    /// Of everything but links.
    pub mode: Option<u32>,
    /// Refuse to replace a directory with a file, or the other way round.
    pub keep_kinds: bool,
}

/// Unpacks a tar, compressed or not, below a directory of a root.
pub fn unpack(
    reader: impl Read,
    root: &OwnedFd,
    target: &Path,
    attributes: Attributes,
) -> Result<()> {
    let reader = decompress(reader)?;
    let mut archive = tar::Archive::new(reader);
    let unpacker = Unpacker {
        root,
        target,
        attributes,
    };
    // A directory's time is set last: what is put into it changes it.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        unpacker.place(&mut entry, &mut directories)?;
    }
    for (path, mtime) in directories.into_iter().rev() {
        if let Ok((parent, name)) = unpacker.parent_of(&path) {
            let _ = utimensat(&parent, &name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW);
        }
    }
    Ok(())
}

/// Whether a file is a tar, compressed or not.
pub fn is_archive(file: File) -> bool {
    let Ok(reader) = decompress(file) else {
        return false;
    };
    let mut archive = tar::Archive::new(reader);
    archive
        .entries()
        .is_ok_and(|mut entries| matches!(entries.next(), Some(Ok(_))))
}

/// gzip and zstd are told by their first bytes.
fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(64 * 1024, reader);
    let start = reader.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(reader)?),
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "bzip2 and xz archives are not supported",
            ));
        }
        _ => Box::new(reader),
    })
}

fn times(mtime: u64) -> Timestamps {
    let at = Timespec {
        tv_sec: i64::try_from(mtime).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}

struct Unpacker<'a> {
    root: &'a OwnedFd,
    target: &'a Path,
    attributes: Attributes,
}

impl Unpacker<'_> {
    fn place(
        &self,
        entry: &mut Entry<'_, impl Read>,
        directories: &mut Vec<(PathBuf, u64)>,
    ) -> Result<()> {
        let path = self.inside(&entry.path()?)?;
        let header = entry.header().clone();
        let mtime = header.mtime().unwrap_or(0);
        let mode = self.attributes.mode.or(header.mode().ok()).unwrap_or(0o644);
        let mode = Mode::from_raw_mode(mode & 0o7777);
        if path.as_os_str().is_empty() {
            // The target itself stays as it is.
            return Ok(());
        }
        let (parent, name) = self.parent_of(&path)?;
        let kind = header.entry_type();
        self.make_room(&parent, &name, kind, &path)?;
        match kind {
            EntryType::Directory => {
                match mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(io::Error::from(error).into()),
                }
                directories.push((path.clone(), mtime));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let fd = openat(&parent, &name, flags, Mode::from_raw_mode(0o600))
                    .map_err(io::Error::from)?;
                let mut file = File::from(fd);
                io::copy(entry, &mut file)?;
                Self::set_xattrs(entry, &file)?;
            }
            EntryType::Symlink => {
                let link = entry
                    .link_name()?
                    .ok_or_else(|| EngineError::invalid("symlink without a target"))?;
                symlinkat(link.as_ref(), &parent, &name).map_err(io::Error::from)?;
            }
            EntryType::Link => {
                let link = entry
                    .link_name()?
                    .ok_or_else(|| EngineError::invalid("hard link without a target"))?;
                let (old_parent, old_name) = self.parent_of(&self.inside(&link)?)?;
                linkat(&old_parent, &old_name, &parent, &name, AtFlags::empty())
                    .map_err(io::Error::from)?;
                return Ok(());
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                let (typ, device) = special(&header, kind);
                mknodat(&parent, &name, typ, mode, device).map_err(io::Error::from)?;
            }
            other => {
                return Err(EngineError::invalid(format!(
                    "unhandled tar header type {}",
                    other.as_byte()
                )));
            }
        }
        let (uid, gid) = match self.attributes.owner {
            Some(owner) => owner,
            None => (
                header.uid().unwrap_or(0) as u32,
                header.gid().unwrap_or(0) as u32,
            ),
        };
        chownat(
            &parent,
            &name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(io::Error::from)?;
        if kind != EntryType::Symlink {
            Self::set_mode(&parent, &name, mode)?;
            if kind != EntryType::Directory {
                let _ = utimensat(&parent, &name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW);
            }
        }
        Ok(())
    }

    /// The name without leading slashes; one that climbs out is refused.
    fn inside(&self, path: &Path) -> Result<PathBuf> {
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(part) => clean.push(part),
                Component::ParentDir if !clean.pop() => {
                    return Err(EngineError::invalid(format!(
                        "\"{}\" is outside of \"{}\"",
                        path.display(),
                        self.target.display()
                    )));
                }
                _ => {}
            }
        }
        Ok(clean)
    }

    /// Opens the directory an entry goes into, making it if the archive left it out.
    fn parent_of(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let name = path
            .file_name()
            .ok_or_else(|| EngineError::invalid("archive entry without a name"))?;
        let mut so_far = self.target.to_path_buf();
        let mut directory = rooted::open_in(self.root, &so_far, OFlags::PATH | OFlags::DIRECTORY)?;
        for part in path.parent().into_iter().flat_map(Path::components) {
            so_far.push(part);
            directory = match rooted::open_in(self.root, &so_far, OFlags::PATH | OFlags::DIRECTORY)
            {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    mkdirat(&directory, part.as_os_str(), Mode::from_raw_mode(0o755))
                        .map_err(io::Error::from)?;
                    rooted::open_in(self.root, &so_far, OFlags::PATH | OFlags::DIRECTORY)?
                }
                other => other?,
            };
        }
        Ok((directory, name.to_owned()))
    }

    /// Takes away what is in the way, but directories for directories.
    fn make_room(
        &self,
        parent: &OwnedFd,
        name: &OsString,
        kind: EntryType,
        path: &Path,
    ) -> Result<()> {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let there = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let comes = kind == EntryType::Directory;
        let shown = self.target.join(path);
        if there && !comes && self.attributes.keep_kinds {
            return Err(EngineError::invalid(format!(
                "cannot overwrite directory \"{}\" with non-directory \"{}\"",
                shown.display(),
                path.display()
            )));
        }
        if !there && comes && self.attributes.keep_kinds {
            return Err(EngineError::invalid(format!(
                "cannot overwrite non-directory \"{}\" with directory \"{}\"",
                shown.display(),
                path.display()
            )));
        }
        if there && comes {
            return Ok(());
        }
        if there {
            let directory = rooted::open_in(
                self.root,
                &shown,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW,
            )?;
            // remove_dir_all does not follow links below the directory it is given.
            for entry in std::fs::read_dir(rooted::proc_path(&directory))? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    std::fs::remove_dir_all(entry.path())?;
                } else {
                    std::fs::remove_file(entry.path())?;
                }
            }
            unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(io::Error::from)?;
        } else {
            unlinkat(parent, name, AtFlags::empty()).map_err(io::Error::from)?;
        }
        Ok(())
    }

    fn set_mode(parent: &OwnedFd, name: &OsString, mode: Mode) -> Result<()> {
        // Not through a link that took the name meanwhile.
        let fd = openat(
            parent,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(io::Error::from)?;
        let path = rooted::proc_path(&fd);
        chmodat(rustix::fs::CWD, &path, mode, AtFlags::empty()).map_err(io::Error::from)?;
        Ok(())
    }

    fn set_xattrs(entry: &mut Entry<'_, impl Read>, file: &File) -> Result<()> {
        let Some(extensions) = entry.pax_extensions()? else {
            return Ok(());
        };
        for extension in extensions {
            let extension = extension?;
            let key = extension.key().unwrap_or_default();
            if let Some(name) = key
                .strip_prefix("SCHILY.xattr.")
                .filter(|name| !name.starts_with("trusted.overlay."))
            {
                match xattr::FileExt::set_xattr(file, name, extension.value_bytes()) {
                    Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => {
                        return Err(error.into());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn special(header: &tar::Header, kind: EntryType) -> (FileType, u64) {
    let part = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
    let device = rustix::fs::makedev(part(header.device_major()), part(header.device_minor()));
    match kind {
        EntryType::Fifo => (FileType::Fifo, 0),
        EntryType::Char => (FileType::CharacterDevice, device),
        _ => (FileType::BlockDevice, device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    const ROOT: Attributes = Attributes {
        owner: Some((0, 0)),
        mode: None,
        keep_kinds: false,
    };

    fn archive(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        fill(&mut tar);
        tar.into_inner().unwrap()
    }

    fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, text: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_size(text.len() as u64);
        // Past the crate's own check of names.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }

    #[test]
    fn files_land_in_the_target_and_links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(inside.join("target")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, inside.join("target/out")).unwrap();
        let root = rooted::open_root(&inside).unwrap();
        let tar = archive(|tar| {
            file(tar, "a/b", "new");
        });
        unpack(&tar[..], &root, Path::new("/target"), ROOT).unwrap();
        assert_eq!(
            std::fs::read_to_string(inside.join("target/a/b")).unwrap(),
            "new"
        );
        assert_eq!(
            std::fs::metadata(inside.join("target/a/b"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o640
        );

        let tar = archive(|tar| file(tar, "out/x", "escaped"));
        let _ = unpack(&tar[..], &root, Path::new("/target"), ROOT);
        assert!(!outside.join("x").exists());
        let tar = archive(|tar| file(tar, "../../x", "escaped"));
        assert!(unpack(&tar[..], &root, Path::new("/target"), ROOT).is_err());
    }

    #[test]
    fn a_directory_is_not_replaced_by_a_file_if_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("x/y")).unwrap();
        let root = rooted::open_root(dir.path()).unwrap();
        let tar = archive(|tar| file(tar, "x", "text"));
        let error = unpack(
            &tar[..],
            &root,
            Path::new("/"),
            Attributes {
                keep_kinds: true,
                ..ROOT
            },
        )
        .unwrap_err();
        assert!(
            error.message.starts_with("cannot overwrite directory"),
            "{error}"
        );
        unpack(&tar[..], &root, Path::new("/"), ROOT).unwrap();
        assert!(dir.path().join("x").is_file());
    }
}
