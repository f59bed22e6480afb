//! Files that are whole or absent, and the lock on the data root.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::error::{EngineError, Result};

/// Writes a file by rename. With `durable` it also survives a power cut, at the price of two
/// flushes; without it, it survives the death of the daemon only.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let temporary = dir.join(format!(".{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_data()?;
    }
    fs::rename(&temporary, path)?;
    if durable {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Keeps other daemons off a directory while it lives: they would end each other's containers.
#[derive(Debug)]
pub(crate) struct RootLock(
    #[expect(dead_code, reason = "holding the file is holding the lock")] File,
);

impl RootLock {
    /// Takes the lock, or says who is likely to have it. `flag` is the one that names the directory.
    pub(crate) fn take(root: &Path, flag: &str) -> Result<Self> {
        let path = root.join("skep.lock");
        let open = || -> io::Result<File> {
            fs::create_dir_all(root)?;
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
        };
        let mut file = open().map_err(|error| {
            EngineError::from_source(format!("cannot open {}", path.display()), &error)
        })?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let owner = fs::read_to_string(&path).unwrap_or_default();
            return Err(EngineError::conflict(format!(
                "{} {} is in use by another daemon (pid {}): give this one its own --{flag}",
                flag.replace('-', " "),
                root.display(),
                if owner.trim().is_empty() {
                    "unknown"
                } else {
                    owner.trim()
                },
            )));
        }
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_on_one_data_root_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RootLock::take(dir.path(), "data-root").unwrap();
        let error = RootLock::take(dir.path(), "data-root").unwrap_err();
        assert!(
            error.message.contains("is in use by another daemon"),
            "{error}"
        );
        drop(lock);
        RootLock::take(dir.path(), "data-root").unwrap();
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomically(&path, b"long text", true).unwrap();
        write_atomically(&path, b"short", false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
