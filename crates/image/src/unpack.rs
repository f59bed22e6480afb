//! Unpacks one layer's tar into a directory, as a lower layer of overlayfs.
//!
//! Every path is resolved by the kernel beneath the layer's directory (`RESOLVE_BENEATH`), so that
//! no member, symlink or hard link can reach outside, whatever the order of members.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::error::{Context, ImageError};
use crate::tar_reader::{Entry, Kind, TarReader, Time};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Bookkeeping of aufs that old images still carry.
const AUFS_META: &[u8] = b".wh..wh.";
const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";
const COPY_BUFFER: usize = 128 << 10;
const PATH_MAX: usize = 4096;

pub(crate) struct Unpacked {
    /// Of regular files.
    pub(crate) bytes: u64,
    /// Whether the tar says how the root directory itself looks.
    pub(crate) has_root: bool,
}

/// Unpacks every member.
pub(crate) fn unpack<R: Read>(
    tar: &mut TarReader<R>,
    root: &Path,
    max_bytes: u64,
) -> Result<Unpacked, ImageError> {
    let mut unpacker = Unpacker::new(root, max_bytes)?;
    while let Some(entry) = tar.next_entry()? {
        unpacker.member(&entry, tar)?;
    }
    unpacker.finish()?;
    Ok(Unpacked {
        bytes: unpacker.bytes,
        has_root: unpacker.has_root,
    })
}

struct Unpacker {
    root: OwnedFd,
    /// The directory of the member before: members of one directory come together.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories get their times last: what is put into them changes them.
    directory_times: Vec<(Vec<u8>, Time)>,
    bytes: u64,
    max_bytes: u64,
    has_root: bool,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn new(root: &Path, max_bytes: u64) -> Result<Self, ImageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())
            .context(|| format!("open {}", root.display()))?;
        Ok(Self {
            root,
            parent: None,
            directory_times: Vec::new(),
            bytes: 0,
            max_bytes,
            has_root: false,
            buffer: vec![0; COPY_BUFFER],
        })
    }

    fn member(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), ImageError> {
        let path = normalise(&entry.path)?;
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > self.max_bytes {
            return Err(ImageError::bad(format!(
                "layer is larger than {} bytes uncompressed",
                self.max_bytes
            )));
        }
        let Some(path) = path else {
            // The root itself: its attributes matter, its kind cannot change.
            return if entry.kind == Kind::Directory {
                self.root_directory(entry)
            } else {
                Ok(())
            };
        };
        let (directory, name) = split(&path);
        if name.starts_with(WHITEOUT) {
            return self.whiteout(directory, name, entry);
        }
        let parent = self.parent(directory)?;
        let made = self.make(&parent, name, &path, entry, content);
        if made.is_ok() {
            self.parent = Some((directory.to_vec(), parent));
        }
        made
    }

    fn root_directory(&mut self, entry: &Entry) -> Result<(), ImageError> {
        self.has_root = true;
        let here = self.reopen_root()?;
        set_attributes(&here, b".", entry)?;
        self.directory_times.push((b".".to_vec(), entry.mtime));
        Ok(())
    }

    fn reopen_root(&self) -> Result<OwnedFd, ImageError> {
        self.root
            .try_clone()
            .context(|| "duplicate a descriptor".to_owned())
    }

    /// Opens the directory a member lies in, making what is missing of it.
    fn parent(&mut self, directory: &[u8]) -> Result<OwnedFd, ImageError> {
        if let Some((cached, fd)) = self.parent.take()
            && cached == directory
        {
            return Ok(fd);
        }
        if directory.is_empty() {
            return self.reopen_root();
        }
        match self.open_beneath(directory) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT) => self.make_path(directory),
            Err(error) => Err(resolve_error(directory, error)),
        }
    }

    fn make_path(&self, directory: &[u8]) -> Result<OwnedFd, ImageError> {
        let mut parent = self.reopen_root()?;
        let slashes = directory
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/');
        let ends = slashes.map(|(index, _)| index).chain([directory.len()]);
        let mut start = 0;
        for end in ends {
            let name = &directory[start..end];
            parent = match self.open_beneath(&directory[..end]) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
                    .and_then(|()| self.open_beneath(&directory[..end]))
                    .map_err(|error| resolve_error(&directory[..end], error))?,
                Err(error) => return Err(resolve_error(&directory[..end], error)),
            };
            start = end + 1;
        }
        Ok(parent)
    }

    fn open_beneath(&self, directory: &[u8]) -> rustix::io::Result<OwnedFd> {
        loop {
            let opened = rustix::fs::openat2(
                &self.root,
                directory,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            );
            // EAGAIN: something was renamed meanwhile, and the kernel could not tell where it is.
            if opened.as_ref().err() != Some(&Errno::AGAIN) {
                return opened;
            }
        }
    }

    fn make(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        content: &mut impl Read,
    ) -> Result<(), ImageError> {
        if entry.kind == Kind::Directory {
            return self.directory(parent, name, path, entry);
        }
        let make = |this: &mut Self, content: &mut dyn Read| match entry.kind {
            Kind::File => this.file(parent, name, path, entry, content),
            Kind::Symlink => make_symlink(parent, name, path, entry),
            Kind::HardLink => this.hard_link(parent, name, path, entry),
            Kind::CharDevice => make_node(parent, name, entry, FileType::CharacterDevice),
            Kind::BlockDevice => make_node(parent, name, entry, FileType::BlockDevice),
            Kind::Fifo => make_node(parent, name, entry, FileType::Fifo),
            Kind::Directory => Ok(()),
        };
        let made = match make(self, content) {
            Err(Made::Exists) => {
                remove(parent, name).map_err(|error| self.error(path, error))?;
                make(self, content)
            }
            other => other,
        };
        match made {
            Ok(()) => Ok(()),
            Err(Made::Exists) => Err(self.error(path, Errno::EXIST)),
            Err(Made::Os(error)) => Err(self.error(path, error)),
            Err(Made::Refused(error)) => Err(error),
        }
    }

    #[expect(
        clippy::unused_self,
        reason = "reads as part of the unpacker at its call sites"
    )]
    fn error(&self, path: &[u8], error: Errno) -> ImageError {
        ImageError::io(
            format!("write /{}", String::from_utf8_lossy(path)),
            error.into(),
        )
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), ImageError> {
        let mode = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdirat(parent, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| self.error(path, error))?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind != FileType::Directory {
                    remove(parent, name)
                        .and_then(|()| rustix::fs::mkdirat(parent, name, mode))
                        .map_err(|error| self.error(path, error))?;
                    if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                        // Removed below and made anew here: what lies below must not shine through.
                        set_opaque(parent, name).map_err(|error| self.error(path, error))?;
                    }
                }
            }
            Err(error) => return Err(self.error(path, error)),
        }
        set_attributes(parent, name, entry)?;
        self.directory_times.push((path.to_vec(), entry.mtime));
        Ok(())
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        content: &mut dyn Read,
    ) -> Result<(), Made> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = std::fs::File::from(fd);
        copy_sparse(content, &mut file, entry.size, &mut self.buffer).map_err(|error| {
            Made::Refused(ImageError::io(
                format!("write /{}", String::from_utf8_lossy(path)),
                error,
            ))
        })?;
        let fd = file.as_fd();
        rustix::fs::fchown(
            fd,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))?;
        set_xattrs(
            &format!("/proc/self/fd/{}", file.as_raw_fd()),
            entry,
            Follow::Yes,
        )?;
        rustix::fs::futimens(fd, &timestamps(entry.mtime))?;
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), Made> {
        let escape = || {
            Made::Refused(ImageError::bad(format!(
                "invalid hardlink \"/{}\" -> \"{}\"",
                String::from_utf8_lossy(path),
                String::from_utf8_lossy(&entry.link)
            )))
        };
        let Ok(Some(target)) = normalise(&entry.link) else {
            return Err(escape());
        };
        let (directory, target_name) = split(&target);
        let target_parent = if directory.is_empty() {
            self.reopen_root().map_err(Made::Refused)?
        } else {
            match self.open_beneath(directory) {
                Ok(fd) => fd,
                Err(Errno::XDEV | Errno::LOOP) => return Err(escape()),
                Err(error) => return Err(error.into()),
            }
        };
        // Without AT_SYMLINK_FOLLOW a link to a symlink is a second name of the symlink itself.
        rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())?;
        Ok(())
    }

    /// `.wh.name`: `name` is gone here; `.wh..wh..opq`: nothing below this directory shows.
    fn whiteout(&mut self, directory: &[u8], name: &[u8], entry: &Entry) -> Result<(), ImageError> {
        let parent = self.parent(directory)?;
        let done = if name == OPAQUE {
            set_opaque(&parent, b".")
        } else if name.starts_with(AUFS_META) {
            Ok(())
        } else {
            let hidden = &name[WHITEOUT.len()..];
            if hidden.is_empty() || hidden == b"." || hidden == b".." {
                return Err(ImageError::bad(format!(
                    "invalid whiteout {:?}",
                    String::from_utf8_lossy(&entry.path)
                )));
            }
            hide(&parent, hidden, entry)
        };
        done.map_err(|error| self.error(&entry.path, error))?;
        self.parent = Some((directory.to_vec(), parent));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ImageError> {
        self.parent = None;
        for (path, time) in std::mem::take(&mut self.directory_times).into_iter().rev() {
            let (directory, name) = split(&path);
            let parent = match directory {
                b"" => self.reopen_root()?,
                _ => match self.open_beneath(directory) {
                    Ok(fd) => fd,
                    // Replaced by a later member: its times are that member's.
                    Err(Errno::NOENT | Errno::NOTDIR) => continue,
                    Err(error) => return Err(resolve_error(directory, error)),
                },
            };
            match rustix::fs::utimensat(&parent, name, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)
            {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(self.error(&path, error)),
            }
        }
        Ok(())
    }
}

/// How making a member failed.
enum Made {
    Exists,
    Os(Errno),
    Refused(ImageError),
}

impl From<Errno> for Made {
    fn from(error: Errno) -> Self {
        if error == Errno::EXIST {
            Self::Exists
        } else {
            Self::Os(error)
        }
    }
}

/// Drops `.` and empty parts. Absolute paths and `..` are refused: no builder writes them.
/// `None` is the root itself.
pub(crate) fn normalise(path: &[u8]) -> Result<Option<Vec<u8>>, ImageError> {
    let refuse = |why: &str| {
        Err(ImageError::bad(format!(
            "invalid path {:?} in archive: {why}",
            lossy(path)
        )))
    };
    if path.first() == Some(&b'/') {
        return refuse("is absolute");
    }
    if path.contains(&0) {
        return refuse("contains a zero byte");
    }
    if path.len() >= PATH_MAX {
        return Err(ImageError::bad("a path in the archive is too long"));
    }
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return refuse("points outside of the archive"),
            part => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    Ok((!clean.is_empty()).then_some(clean))
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn resolve_error(path: &[u8], error: Errno) -> ImageError {
    match error {
        Errno::XDEV | Errno::LOOP => ImageError::bad(format!(
            "invalid path {:?} in archive: a symlink leads outside of the layer",
            lossy(path)
        )),
        error => ImageError::io(format!("open /{}", lossy(path)), error.into()),
    }
}

fn make_symlink(parent: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<(), Made> {
    if climbs_out(path, &entry.link) || entry.link.is_empty() || entry.link.contains(&0) {
        return Err(Made::Refused(ImageError::bad(format!(
            "invalid symlink \"/{}\" -> \"{}\"",
            lossy(path),
            lossy(&entry.link)
        ))));
    }
    rustix::fs::symlinkat(entry.link.as_slice(), parent, name)?;
    rustix::fs::chownat(
        parent,
        name,
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    set_xattrs(&proc_path(parent, name), entry, Follow::No)?;
    rustix::fs::utimensat(
        parent,
        name,
        &timestamps(entry.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    Ok(())
}

/// Whether a relative link has more `..` than there are directories above it: dockerd refuses
/// such, though inside a container they would end at the root.
fn climbs_out(path: &[u8], link: &[u8]) -> bool {
    if link.first() == Some(&b'/') {
        return false;
    }
    let mut depth = path.split(|&byte| byte == b'/').count() as i64 - 1;
    for part in link.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

fn make_node(parent: &OwnedFd, name: &[u8], entry: &Entry, kind: FileType) -> Result<(), Made> {
    let device = rustix::fs::makedev(entry.device.0, entry.device.1);
    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)?;
    set_attributes(parent, name, entry).map_err(Made::Refused)?;
    rustix::fs::utimensat(
        parent,
        name,
        &timestamps(entry.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    Ok(())
}

/// Owner, mode and extended attributes of what was just made and is not a symlink.
fn set_attributes(parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), ImageError> {
    let set = || -> rustix::io::Result<()> {
        rustix::fs::chownat(
            parent,
            name,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        rustix::fs::chmodat(
            parent,
            name,
            Mode::from_raw_mode(entry.mode),
            AtFlags::empty(),
        )?;
        set_xattrs(&proc_path(parent, name), entry, Follow::No)
    };
    set().context(|| format!("write /{}", lossy(&entry.path)))
}

fn proc_path(parent: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

#[derive(PartialEq, Eq)]
enum Follow {
    Yes,
    No,
}

fn set_xattrs(
    path: &(impl AsRef<[u8]> + ?Sized),
    entry: &Entry,
    follow: Follow,
) -> rustix::io::Result<()> {
    for (name, value) in &entry.xattrs {
        // overlayfs's own attributes would let an image rearrange the layers below it.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let path = path.as_ref();
        let set = if follow == Follow::Yes {
            rustix::fs::setxattr(path, name.as_slice(), value, XattrFlags::empty())
        } else {
            rustix::fs::lsetxattr(path, name.as_slice(), value, XattrFlags::empty())
        };
        match set {
            Ok(()) => {}
            // Capabilities are part of what a program does; others the host may not know.
            Err(Errno::NOTSUP | Errno::PERM) if name != b"security.capability" => {
                tracing::debug!(xattr = %lossy(name), path = %lossy(&entry.path), "dropped an extended attribute");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn set_opaque(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    let path = proc_path(parent, name);
    rustix::fs::lsetxattr(path.as_slice(), OVERLAY_OPAQUE, b"y", XattrFlags::empty())
}

/// overlayfs's whiteout is a character device 0:0. What the same layer holds under that name stays:
/// a whiteout speaks of the layers below.
fn hide(parent: &OwnedFd, name: &[u8], entry: &Entry) -> rustix::io::Result<()> {
    let mode = Mode::empty();
    match rustix::fs::mknodat(parent, name, FileType::CharacterDevice, mode, 0) {
        Ok(()) => rustix::fs::chownat(
            parent,
            name,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        ),
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return set_opaque(parent, name);
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Removes a file, or a directory with all in it, without following anything.
fn remove(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let entries: Vec<_> =
        rustix::fs::Dir::read_from(&directory)?.collect::<rustix::io::Result<_>>()?;
    for entry in entries {
        let child = entry.file_name().to_bytes();
        if child != b"." && child != b".." {
            remove(&directory, child)?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Copies content, leaving holes where it is zeros.
fn copy_sparse(
    content: &mut dyn Read,
    file: &mut std::fs::File,
    size: u64,
    buffer: &mut [u8],
) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut left = size;
    let mut hole = false;
    while left > 0 {
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        // Whole buffers, so that runs of zeros are seen whatever sizes the stream comes in.
        content.read_exact(&mut buffer[..wanted])?;
        let chunk = &buffer[..wanted];
        hole = wanted == buffer.len() && is_zero(chunk);
        if hole {
            file.seek(SeekFrom::Current(wanted as i64))?;
        } else {
            file.write_all(chunk)?;
        }
        left -= wanted as u64;
    }
    if hole {
        file.set_len(size)?;
    }
    Ok(())
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(16)
        .all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}
