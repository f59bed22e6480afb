//! The files in the state directory: which there are, and how they are written and read.

use super::record::{self, Found};
use crate::{Disk, DiskFile, StorageError};
use skep_ca::SecretKey;
use std::io;
use std::path::{Path, PathBuf};

const LOG: &str = "log-";
const SNAPSHOT: &str = "snapshot-";
const TEMPORARY: &str = ".tmp";

/// The data encryption keys: records are written with the first, and read with whichever fits.
#[derive(Clone, Debug)]
pub(crate) struct Keyring {
    current: SecretKey,
    former: Vec<SecretKey>,
}

impl Keyring {
    pub(crate) fn new(current: SecretKey, former: Vec<SecretKey>) -> Self {
        Self { current, former }
    }

    pub(crate) fn rotate(&mut self, key: SecretKey) {
        let old = std::mem::replace(&mut self.current, key);
        self.former.push(old);
    }

    /// Once everything is written anew, nothing is left under the former keys.
    pub(crate) fn forget_former(&mut self) {
        self.former.clear();
    }

    pub(crate) fn seal(&self, plain: &[u8]) -> Vec<u8> {
        self.current.seal(plain)
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        std::iter::once(&self.current)
            .chain(&self.former)
            .find_map(|key| key.open(sealed, "a raft record").ok())
    }
}

pub(crate) fn log_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{LOG}{sequence:016x}"))
}

pub(crate) fn snapshot_path(dir: &Path, term: u64, index: u64) -> PathBuf {
    dir.join(format!("{SNAPSHOT}{term:016x}-{index:016x}"))
}

/// The number of the newest log file. A log file is complete in itself, so only the newest counts.
pub(crate) fn newest_log(disk: &dyn Disk, dir: &Path) -> Result<Option<u64>, StorageError> {
    let sequence = |name: &str| u64::from_str_radix(name.strip_prefix(LOG)?, 16).ok();
    Ok(names(disk, dir)?
        .iter()
        .filter_map(|name| sequence(name))
        .max())
}

/// Removes our files other than those to keep: what older logs and crashes left.
pub(crate) fn remove_all_but(
    disk: &dyn Disk,
    dir: &Path,
    keep: &[&Path],
) -> Result<(), StorageError> {
    for name in names(disk, dir)? {
        let path = dir.join(&name);
        let ours = name.starts_with(LOG) || name.starts_with(SNAPSHOT) || name.ends_with(TEMPORARY);
        if ours && !keep.contains(&path.as_path()) {
            disk.remove(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

pub(crate) fn create_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    disk.create_dir(dir).map_err(io_error("create", dir))
}

/// Makes a file with one record, whole or not at all, and returns it open for appending.
pub(crate) fn write_whole(
    disk: &dyn Disk,
    path: &Path,
    sealed: &[u8],
) -> Result<Box<dyn DiskFile>, StorageError> {
    let bytes = record::frame(sealed);
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    let temporary = PathBuf::from(name);
    let write = || -> io::Result<Box<dyn DiskFile>> {
        let mut file = disk.create(&temporary)?;
        file.write(&bytes)?;
        file.sync()?;
        disk.rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))?;
        Ok(file)
    };
    write().map_err(io_error("write", path))
}

/// The whole file; `None` if there is none.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match disk.read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(io_error("read", path)),
    }
}

/// Decrypts the records of a file's content in order. With `repair` a torn tail is cut off on that
/// disk. The closure returns why a record's content is wrong, if it is.
pub(crate) fn read_records(
    path: &Path,
    file: &[u8],
    keys: &Keyring,
    repair: Option<&dyn Disk>,
    mut each: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<u64, StorageError> {
    let mut offset = 0;
    let damaged = |offset: usize, reason: String| StorageError::Damaged {
        path: path.to_owned(),
        offset: offset as u64,
        reason,
    };
    loop {
        match record::read(file, offset) {
            Found::End => return Ok(offset as u64),
            Found::Record { sealed, next } => {
                let plain = keys.open(sealed).ok_or_else(|| StorageError::WrongKey {
                    path: path.to_owned(),
                    offset: offset as u64,
                })?;
                each(&plain).map_err(|reason| damaged(offset, reason))?;
                offset = next;
            }
            Found::Torn => {
                let Some(disk) = repair else {
                    return Err(damaged(offset, "a record is cut off".to_owned()));
                };
                disk.cut(path, offset as u64)
                    .map_err(io_error("cut the torn end off", path))?;
                let bytes = file.len() - offset;
                tracing::warn!(file = %path.display(), offset, bytes, "cut a torn write off the raft log");
                return Ok(offset as u64);
            }
            Found::Damaged(reason) => return Err(damaged(offset, reason.to_owned())),
        }
    }
}

pub(crate) fn open_for_append(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Box<dyn DiskFile>, StorageError> {
    disk.append(path).map_err(io_error("open", path))
}

fn names(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, StorageError> {
    match disk.names(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(io_error("list", dir)),
    }
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { what, path, source }
}
