//! A digest of files as they are copied: names, attributes and contents, but no times.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

/// `file:…` or `dir:…`. `path` is followed if it is a link itself; nothing below it is.
pub(crate) fn sum(path: &Path) -> io::Result<String> {
    let is_dir = std::fs::metadata(path)?.is_dir();
    let path = std::fs::canonicalize(path)?;
    let mut digest = Sha256::new();
    for entry in WalkDir::new(&path).sort_by_file_name() {
        let entry = entry?;
        let below = entry.path().strip_prefix(&path).unwrap_or(entry.path());
        add(&mut digest, entry.path(), below)?;
    }
    let kind = if is_dir { "dir" } else { "file" };
    Ok(format!("{kind}:{}", hex::encode(digest.finalize())))
}

/// Of text that is written in the Dockerfile.
pub(crate) fn sum_of_text(name: &str, text: &str) -> String {
    let mut digest = Sha256::new();
    field(&mut digest, name.as_bytes());
    field(&mut digest, text.as_bytes());
    format!("file:{}", hex::encode(digest.finalize()))
}

/// Of several sources together.
pub(crate) fn sum_of_all(sums: &[String]) -> String {
    match sums {
        [one] => one.clone(),
        several => format!("multi:{}", hex::encode(Sha256::digest(several.join(",")))),
    }
}

fn add(digest: &mut Sha256, path: &Path, below: &Path) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    field(digest, below.as_os_str().as_bytes());
    field(digest, &metadata.mode().to_be_bytes());
    field(digest, &metadata.uid().to_be_bytes());
    field(digest, &metadata.gid().to_be_bytes());
    for name in xattr::list(path)? {
        if let Some(value) = xattr::get(path, &name)? {
            field(digest, name.as_bytes());
            field(digest, &value);
        }
    }
    if kind.is_symlink() {
        field(digest, std::fs::read_link(path)?.as_os_str().as_bytes());
    } else if kind.is_char_device() || kind.is_block_device() {
        field(digest, &metadata.rdev().to_be_bytes());
    } else if kind.is_file() {
        let mut content = Sha256::new();
        io::copy(&mut File::open(path)?, &mut content)?;
        field(digest, &content.finalize());
    }
    Ok(())
}

/// With its length, so that no two lists of fields look alike.
fn field(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn contents_names_and_modes_count_and_times_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "1").unwrap();
        let first = sum(dir.path()).unwrap();
        let file = sum(&path).unwrap();
        assert!(first.starts_with("dir:") && file.starts_with("file:"));
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(sum(dir.path()).unwrap(), first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let private = sum(dir.path()).unwrap();
        assert_ne!(private, first);
        fs::write(&path, "2").unwrap();
        assert_ne!(sum(dir.path()).unwrap(), private);
        fs::rename(&path, dir.path().join("b")).unwrap();
        assert_ne!(sum(dir.path()).unwrap(), private);
    }
}
