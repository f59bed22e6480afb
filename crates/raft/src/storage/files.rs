//! The files in the state directory: which there are, and how they are written and read.

use super::record::{self, Found};
use crate::StorageError;
use skep_ca::SecretKey;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
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
pub(crate) fn newest_log(dir: &Path) -> Result<Option<u64>, StorageError> {
    let sequence = |name: &str| u64::from_str_radix(name.strip_prefix(LOG)?, 16).ok();
    Ok(names(dir)?.iter().filter_map(|name| sequence(name)).max())
}

/// Removes our files other than those to keep: what older logs and crashes left.
pub(crate) fn remove_all_but(dir: &Path, keep: &[&Path]) -> Result<(), StorageError> {
    for name in names(dir)? {
        let path = dir.join(&name);
        let ours = name.starts_with(LOG) || name.starts_with(SNAPSHOT) || name.ends_with(TEMPORARY);
        if ours && !keep.contains(&path.as_path()) {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

pub(crate) fn create_dir(dir: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(dir).map_err(io_error("create", dir))
}

/// Makes a file with one record, whole or not at all, and returns it open for appending.
pub(crate) fn write_whole(path: &Path, sealed: &[u8]) -> Result<(File, u64), StorageError> {
    let bytes = record::frame(sealed);
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    let temporary = PathBuf::from(name);
    let write = || -> io::Result<File> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_parent(path)?;
        Ok(file)
    };
    let file = write().map_err(io_error("write", path))?;
    Ok((file, bytes.len() as u64))
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, StorageError> {
    fs::read(path).map_err(io_error("read", path))
}

/// Decrypts the records of a file in order, cutting a torn tail off when `repair` is set. The
/// closure gets each record's offset; it returns why the content is wrong, if it is.
pub(crate) fn read_records(
    path: &Path,
    keys: &Keyring,
    repair: bool,
    mut each: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<u64, StorageError> {
    let file = read_file(path)?;
    let mut offset = 0;
    let damaged = |offset: usize, reason: String| StorageError::Damaged {
        path: path.to_owned(),
        offset: offset as u64,
        reason,
    };
    loop {
        match record::read(&file, offset) {
            Found::End => return Ok(offset as u64),
            Found::Record { sealed, next } => {
                let plain = keys.open(sealed).ok_or_else(|| StorageError::WrongKey {
                    path: path.to_owned(),
                    offset: offset as u64,
                })?;
                each(&plain).map_err(|reason| damaged(offset, reason))?;
                offset = next;
            }
            Found::Torn if repair => {
                cut(path, offset as u64)?;
                let bytes = file.len() - offset;
                tracing::warn!(file = %path.display(), offset, bytes, "cut a torn write off the raft log");
                return Ok(offset as u64);
            }
            Found::Torn => return Err(damaged(offset, "a record is cut off".to_owned())),
            Found::Damaged(reason) => return Err(damaged(offset, reason.to_owned())),
        }
    }
}

pub(crate) fn open_for_append(path: &Path) -> Result<File, StorageError> {
    OpenOptions::new()
        .append(true)
        .open(path)
        .map_err(io_error("open", path))
}

fn cut(path: &Path, length: u64) -> Result<(), StorageError> {
    let cut = || -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(length)?;
        file.sync_all()
    };
    cut().map_err(io_error("cut the torn end off", path))
}

fn names(dir: &Path) -> Result<Vec<String>, StorageError> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(io_error("list", dir)),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { what, path, source }
}
