//! Writes a directory as a tar: a whole root file system (`docker export`), or an upper directory
//! as a layer (`docker commit`), where overlayfs's whiteouts become the image format's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::changes::{is_opaque, is_whiteout};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeKind {
    Whole,
    Layer,
}

pub(crate) fn write_tree(root: &Path, kind: TreeKind, out: impl Write) -> io::Result<()> {
    let mut writer = TreeWriter {
        root,
        kind,
        tar: Builder::new(out),
        links: BTreeMap::new(),
        device: None,
    };
    writer.device = Some(fs::symlink_metadata(root)?.dev());
    writer.directory(Path::new(""))?;
    writer.tar.into_inner()?.flush()
}

struct TreeWriter<'a, W: Write> {
    root: &'a Path,
    kind: TreeKind,
    tar: Builder<W>,
    /// First path of each file with several names.
    links: BTreeMap<(u64, u64), PathBuf>,
    device: Option<u64>,
}

impl<W: Write> TreeWriter<'_, W> {
    fn directory(&mut self, at: &Path) -> io::Result<()> {
        let entries = fs::read_dir(self.root.join(at))?;
        let mut names: Vec<OsString> = entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let path = at.join(&name);
            // A running container may remove files under our hands.
            match fs::symlink_metadata(self.root.join(&path)) {
                Ok(metadata) => self.member(&path, &metadata)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn member(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let full = self.root.join(path);
        let kind = metadata.file_type();
        if self.kind == TreeKind::Layer && is_whiteout(metadata) {
            return self.marker(&beside(path, b".wh."));
        }
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = header_of(metadata);
        if !metadata.is_dir() && metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&key) {
                header.set_entry_type(EntryType::Link);
                let first = first.clone();
                return self.tar.append_link(&mut header, path, first);
            }
            self.links.insert(key, path.to_owned());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            return self
                .tar
                .append_link(&mut header, path, fs::read_link(&full)?);
        }
        self.extensions(&full, metadata)?;
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            self.tar
                .append_data(&mut header, path.join(""), io::empty())?;
            if self.kind == TreeKind::Layer && is_opaque(&full) {
                self.marker(&path.join(".wh..wh..opq"))?;
            }
            // Another file system mounted inside is not part of the root file system.
            let foreign = self.device != Some(metadata.dev());
            return if foreign && self.kind == TreeKind::Whole && is_mount_root(&full, metadata) {
                Ok(())
            } else {
                self.directory(path)
            };
        }
        if kind.is_file() {
            header.set_size(metadata.len());
            let file = File::open(&full)?;
            let content = file.chain(io::repeat(0)).take(metadata.len());
            return self.tar.append_data(&mut header, path, content);
        }
        header.set_entry_type(if kind.is_char_device() {
            EntryType::Char
        } else if kind.is_block_device() {
            EntryType::Block
        } else {
            EntryType::Fifo
        });
        if kind.is_char_device() || kind.is_block_device() {
            header.set_device_major(rustix::fs::major(metadata.rdev()))?;
            header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
        }
        self.tar.append_data(&mut header, path, io::empty())
    }

    fn marker(&mut self, path: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(0o600);
        self.tar.append_data(&mut header, path, io::empty())
    }

    /// Sub-second times and extended attributes do not fit into the header.
    fn extensions(&mut self, full: &Path, metadata: &Metadata) -> io::Result<()> {
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        if metadata.mtime_nsec() != 0 && metadata.mtime() >= 0 {
            let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
            records.push(("mtime".to_owned(), time.into_bytes()));
        }
        for (name, value) in xattrs(full)? {
            records.push((format!("SCHILY.xattr.{name}"), value));
        }
        if records.is_empty() {
            return Ok(());
        }
        self.tar.append_pax_extensions(
            records
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_slice())),
        )
    }
}

fn header_of(metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

fn beside(path: &Path, prefix: &[u8]) -> PathBuf {
    let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    path.with_file_name(std::ffi::OsStr::from_bytes(&[prefix, name].concat()))
}

fn is_mount_root(full: &Path, metadata: &Metadata) -> bool {
    let parent = full
        .parent()
        .and_then(|parent| fs::symlink_metadata(parent).ok());
    parent.is_some_and(|parent| parent.dev() != metadata.dev())
}

/// The attributes that belong to the content: file capabilities and the users' own.
fn xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut list = vec![0_u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut list) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in list[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0_u8; 64 << 10];
        match rustix::fs::lgetxattr(path, name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_owned(), value));
            }
            Err(rustix::io::Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}
