//! Reading a container's files into a tar.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};
use tar::{Builder, EntryType, Header};

use crate::rooted;
use crate::time::UnixNanos;
use crate::types::PathStat;

/// Of the path as it was asked for: `.` for a directory's contents.
pub(super) fn base_name(path: &str) -> String {
    if path.ends_with("/.") || path == "." {
        return ".".to_owned();
    }
    let clean = path.trim_end_matches('/');
    match clean.rsplit('/').next() {
        None | Some("") => "/".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// Opens the directory a path is in, and the name in it. A path that ends in `/` or `/.` means
/// what it leads to.
fn locate(root: &OwnedFd, path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let text = path.as_os_str().as_bytes();
    let through = text.ends_with(b"/") || text.ends_with(b"/.") || path.file_name().is_none();
    if through {
        return Ok((
            rooted::open_in(root, path, OFlags::PATH | OFlags::DIRECTORY)?,
            PathBuf::from("."),
        ));
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = rooted::open_in(root, parent, OFlags::PATH | OFlags::DIRECTORY)?;
    Ok((
        parent,
        PathBuf::from(path.file_name().unwrap_or(OsStr::new("."))),
    ))
}

pub(super) fn stat(root: &OwnedFd, path: &Path, asked: &str) -> io::Result<PathStat> {
    let (parent, name) = locate(root, path)?;
    let stat = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    let link_target = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        let target = rooted::open_in(root, path, OFlags::PATH);
        let root_path = std::fs::read_link(rooted::proc_path(root))?;
        // Where it leads inside; a dangling one shows where it points.
        match target.and_then(|fd| std::fs::read_link(rooted::proc_path(&fd))) {
            Ok(real) => real
                .strip_prefix(&root_path)
                .map_or_else(|_| real.clone(), |inside| Path::new("/").join(inside)),
            Err(_) => PathBuf::from(OsStr::from_bytes(
                readlinkat(&parent, &name, Vec::new())?.as_bytes(),
            )),
        }
    } else {
        PathBuf::new()
    };
    let nanos = stat
        .st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_mtime_nsec as i64);
    Ok(PathStat {
        name: base_name(asked),
        size: stat.st_size,
        mode: go_mode(stat.st_mode),
        mtime: UnixNanos(nanos).rfc3339(),
        link_target: link_target.display().to_string(),
    })
}

/// Go's `os.FileMode` of a `st_mode`.
fn go_mode(mode: u32) -> u32 {
    let typ = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let flag = |bit: u32, go: u32| if mode & bit == 0 { 0 } else { go };
    mode & 0o777 | typ | flag(0o4000, 1 << 23) | flag(0o2000, 1 << 22) | flag(0o1000, 1 << 20)
}

/// Writes what is at a path under the name `base`.
pub fn pack(root: &OwnedFd, path: &Path, base: &str, writer: &mut impl Write) -> io::Result<()> {
    let (parent, name) = locate(root, path)?;
    let mut packer = Packer {
        tar: Builder::new(writer),
        links: HashMap::new(),
    };
    packer.add(&parent, &name, Path::new(base))?;
    packer.tar.into_inner()?.flush()
}

struct Packer<W: Write> {
    tar: Builder<W>,
    /// Where files with several names went first.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn add(&mut self, parent: &OwnedFd, name: &Path, target: &Path) -> io::Result<()> {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since its directory was read.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut header = Header::new_gnu();
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(u64::from(stat.st_uid));
        header.set_gid(u64::from(stat.st_gid));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        let typ = FileType::from_raw_mode(stat.st_mode);
        if typ == FileType::Directory {
            return self.add_directory(parent, name, target, header);
        }
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&(stat.st_dev as u64, stat.st_ino as u64))
        {
            header.set_entry_type(EntryType::Link);
            return self.tar.append_link(&mut header, target, first);
        }
        match typ {
            FileType::RegularFile => self.add_file(parent, name, target, header)?,
            FileType::Symlink => {
                let link = readlinkat(parent, name, Vec::new())?;
                header.set_entry_type(EntryType::Symlink);
                self.tar
                    .append_link(&mut header, target, OsStr::from_bytes(link.as_bytes()))?;
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                header.set_entry_type(match typ {
                    FileType::Fifo => EntryType::Fifo,
                    FileType::CharacterDevice => EntryType::Char,
                    _ => EntryType::Block,
                });
                header.set_device_major(rustix::fs::major(stat.st_rdev))?;
                header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
                self.tar.append_data(&mut header, target, io::empty())?;
            }
            // Sockets mean nothing elsewhere.
            _ => return Ok(()),
        }
        if stat.st_nlink > 1 {
            self.links.insert(
                (stat.st_dev as u64, stat.st_ino as u64),
                target.to_path_buf(),
            );
        }
        Ok(())
    }

    fn add_directory(
        &mut self,
        parent: &OwnedFd,
        name: &Path,
        target: &Path,
        mut header: Header,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(parent, name, flags, Mode::empty())?;
        header.set_entry_type(EntryType::Directory);
        let mut shown = target.as_os_str().to_owned();
        shown.push("/");
        self.tar
            .append_data(&mut header, Path::new(&shown), io::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(PathBuf::from(OsStr::from_bytes(name)));
            }
        }
        names.sort();
        for name in names {
            self.add(&directory, &name, &target.join(&name))?;
        }
        Ok(())
    }

    fn add_file(
        &mut self,
        parent: &OwnedFd,
        name: &Path,
        target: &Path,
        mut header: Header,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(parent, name, flags, Mode::empty())?);
        let size = file.metadata()?.len();
        if let Ok(Some(capability)) = xattr::FileExt::get_xattr(&file, "security.capability") {
            self.tar.append_pax_extensions([(
                "SCHILY.xattr.security.capability",
                capability.as_slice(),
            )])?;
        }
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        // A file that shrinks meanwhile is filled up, one that grows is cut: the header is out.
        let exact = file.chain(io::repeat(0)).take(size);
        self.tar.append_data(&mut header, target, exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_the_client_asked_for() {
        for (path, name) in [
            ("/etc/passwd", "passwd"),
            ("/data/", "data"),
            ("/data/.", "."),
            ("/", "/"),
            ("a", "a"),
        ] {
            assert_eq!(base_name(path), name, "{path}");
        }
    }

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), 0o755 | 1 << 31);
        assert_eq!(go_mode(0o104_755), 0o755 | 1 << 23);
    }
}
