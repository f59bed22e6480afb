//! What `COPY` and `ADD` copy.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use skep_engine::{archive, rooted};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::error::BuildError;
use crate::sum;

/// One thing to copy.
pub(crate) struct Source {
    /// Where nothing leads out of: the context, or an image's root.
    pub(crate) root: PathBuf,
    /// Below `root`, links followed.
    pub(crate) path: PathBuf,
    /// What a copy into a directory is called.
    pub(crate) name: String,
    pub(crate) is_dir: bool,
    pub(crate) sum: String,
    /// An archive to be unpacked rather than copied.
    pub(crate) extract: bool,
}

/// Where sources are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Context,
    Image,
}

/// Finds what a word of the instruction names; a pattern may name several.
pub(crate) fn find(
    root: &Path,
    origin: Origin,
    word: &str,
    extract: bool,
) -> Result<Vec<Source>, BuildError> {
    let word = word.trim_start_matches('/');
    let word = word.strip_prefix("./").unwrap_or(word);
    if !word.contains(['*', '?', '[']) {
        return one(root, origin, word, extract).map(|source| vec![source]);
    }
    let mut found = Vec::new();
    for entry in WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(io::Error::from)?;
        let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let below = below.to_string_lossy();
        if skep_image::path_match(word, &below) == Some(true) {
            found.push(one(root, origin, &below, extract)?);
        }
    }
    Ok(found)
}

fn one(root: &Path, origin: Origin, word: &str, extract: bool) -> Result<Source, BuildError> {
    let fd = rooted::open_in(&rooted::open_root(root)?, Path::new(word), OFlags::PATH);
    let fd = fd.map_err(|error| missing(error, origin, word))?;
    let opened = rooted::proc_path(&fd);
    let real = std::fs::read_link(&opened)?;
    let path = real
        .strip_prefix(std::fs::canonicalize(root)?)
        .map_err(|_| {
            BuildError::invalid(format!("forbidden path outside the build context: {word}"))
        })?;
    let metadata = std::fs::metadata(&opened)?;
    let name = Path::new(word)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(Source {
        root: root.to_owned(),
        path: path.to_owned(),
        name,
        is_dir: metadata.is_dir(),
        sum: sum::sum(&real)?,
        extract: extract && metadata.is_file() && archive::is_archive(File::open(&real)?),
    })
}

fn missing(error: io::Error, origin: Origin, word: &str) -> BuildError {
    if error.kind() != io::ErrorKind::NotFound {
        return error.into();
    }
    let hint = match origin {
        Origin::Context => "file not found in build context or excluded by .dockerignore: ",
        Origin::Image => "",
    };
    BuildError::failed(format!("{hint}stat {word}: file does not exist"))
}

/// Text of the Dockerfile as a file to copy, in a directory of its own.
pub(crate) fn document(scratch: &Path, name: &str, text: &str) -> io::Result<(TempDir, Source)> {
    let dir = tempfile::Builder::new()
        .prefix("document-")
        .tempdir_in(scratch)?;
    let plain = name.replace('/', "_");
    std::fs::write(dir.path().join(&plain), text)?;
    let source = Source {
        root: dir.path().to_owned(),
        path: PathBuf::from(&plain),
        name: plain,
        is_dir: false,
        sum: sum::sum_of_text(name, text),
        extract: false,
    };
    Ok((dir, source))
}
