//! What `docker diff` shows: the upper directory, compared with the layers below it.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bollard_stubs::models::{ChangeType, FilesystemChange};

const MODIFIED: ChangeType = ChangeType::_0;
const ADDED: ChangeType = ChangeType::_1;
const DELETED: ChangeType = ChangeType::_2;

/// `lower` are the layers below, top first.
pub(crate) fn changes(upper: &Path, lower: &[PathBuf]) -> io::Result<Vec<FilesystemChange>> {
    let mut walk = Walk {
        upper,
        lower,
        found: Vec::new(),
        directories: BTreeSet::new(),
    };
    walk.directory(Path::new(""))?;
    walk.found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(walk.found)
}

struct Walk<'a> {
    upper: &'a Path,
    lower: &'a [PathBuf],
    found: Vec<FilesystemChange>,
    /// Directories already told.
    directories: BTreeSet<PathBuf>,
}

impl Walk<'_> {
    fn directory(&mut self, at: &Path) -> io::Result<()> {
        for entry in fs::read_dir(self.upper.join(at))? {
            let path = at.join(entry?.file_name());
            let metadata = fs::symlink_metadata(self.upper.join(&path))?;
            self.entry(&path, &metadata)?;
            if metadata.is_dir() {
                self.directory(&path)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let below = visible(self.lower, path)?;
        let kind = if is_whiteout(metadata) {
            DELETED
        } else {
            match below {
                None => ADDED,
                // A directory copied up only because something in it changed is told as such then.
                Some(below) if same_directory(metadata, &below) => return Ok(()),
                Some(_) => MODIFIED,
            }
        };
        self.parents(path);
        if metadata.is_dir() && !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        self.tell(path, kind);
        Ok(())
    }

    /// Something in a directory changed, so the directory did.
    fn parents(&mut self, path: &Path) {
        let mut parents: Vec<_> = path.ancestors().skip(1).collect();
        parents.pop();
        for parent in parents.into_iter().rev() {
            if self.directories.insert(parent.to_owned()) {
                self.tell(parent, MODIFIED);
            }
        }
    }

    fn tell(&mut self, path: &Path, kind: ChangeType) {
        self.found.push(FilesystemChange {
            path: format!("/{}", path.display()),
            kind,
        });
    }
}

pub(crate) fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn same_directory(a: &Metadata, b: &Metadata) -> bool {
    a.is_dir()
        && b.is_dir()
        && a.mode() == b.mode()
        && a.uid() == b.uid()
        && a.gid() == b.gid()
        && a.mtime() == b.mtime()
        && a.mtime_nsec() == b.mtime_nsec()
}

/// What the layers together show under a path.
fn visible(layers: &[PathBuf], path: &Path) -> io::Result<Option<Metadata>> {
    for layer in layers {
        match fs::symlink_metadata(layer.join(path)) {
            Ok(found) => return Ok((!is_whiteout(&found)).then_some(found)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(error),
        }
        if hidden_here(layer, path) {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Whether a layer hides what lies below it at a path: a parent is removed, replaced or opaque.
fn hidden_here(layer: &Path, path: &Path) -> bool {
    for parent in path
        .ancestors()
        .skip(1)
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        let parent = layer.join(parent);
        match fs::symlink_metadata(&parent) {
            Ok(found) if !found.is_dir() => return true,
            Ok(_) if is_opaque(&parent) => return true,
            _ => {}
        }
    }
    false
}

pub(crate) fn is_opaque(directory: &Path) -> bool {
    let mut value = [0_u8; 1];
    rustix::fs::lgetxattr(directory, "trusted.overlay.opaque", &mut value)
        .is_ok_and(|_| &value == b"y")
}
