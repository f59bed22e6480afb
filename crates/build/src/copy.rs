//! Files into a root file system. Everything goes through a tar, as `docker cp` does it: the code
//! that writes below an image's own links without being led astray is there.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::thread;

use rustix::fs::OFlags;
use skep_engine::archive::{self, Attributes};
use skep_engine::rooted;

use crate::error::BuildError;
use crate::sources::Source;

/// Where copies go and what they become.
#[derive(Clone)]
pub(crate) struct Placement {
    /// Absolute and clean.
    pub(crate) path: PathBuf,
    /// It was written with a slash at its end.
    pub(crate) is_dir: bool,
    /// `None` keeps the sources' owners.
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: Option<u32>,
}

/// The destination as the instruction means it.
pub(crate) fn destination(working_dir: &str, written: &str) -> (PathBuf, bool) {
    let is_dir = written.ends_with('/') || written == "." || written.ends_with("/.");
    let joined = Path::new("/").join(working_dir).join(written);
    let mut clean = PathBuf::from("/");
    for part in joined.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    (clean, is_dir)
}

/// Copies one source.
pub(crate) fn place(
    source: &Source,
    root: &OwnedFd,
    placement: &Placement,
) -> Result<(), BuildError> {
    let existing = rooted::open_in(root, &placement.path, OFlags::PATH).ok();
    let existing = existing
        .map(|fd| Ok::<_, io::Error>(std::fs::metadata(rooted::proc_path(&fd))?.is_dir()))
        .transpose()?;
    if source.is_dir || source.extract {
        if existing == Some(false) {
            return Err(BuildError::failed(format!(
                "cannot copy to non-directory: {}",
                placement.path.display()
            )));
        }
        rooted::make_owned_directories(root, &placement.path, placement.owner)?;
        return if source.extract {
            extract(source, root, placement)
        } else {
            transfer(source, ".", root, &placement.path, placement)
        };
    }
    let (directory, name) = if placement.is_dir || existing == Some(true) {
        (placement.path.clone(), source.name.clone())
    } else {
        let target = followed(root, &placement.path, existing.is_some())?;
        let name = target.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        (target.parent().unwrap_or(Path::new("/")).to_owned(), name)
    };
    rooted::make_owned_directories(root, &directory, placement.owner)?;
    transfer(source, &name, root, &directory, placement)
}

/// A link at the destination is written through, not replaced.
fn followed(root: &OwnedFd, path: &Path, exists: bool) -> io::Result<PathBuf> {
    if !exists {
        return Ok(path.to_owned());
    }
    let top = std::fs::read_link(rooted::proc_path(root))?;
    let fd = rooted::open_in(root, path, OFlags::PATH)?;
    let real = std::fs::read_link(rooted::proc_path(&fd))?;
    let below = real.strip_prefix(top).map_err(io::Error::other)?;
    Ok(Path::new("/").join(below))
}

fn transfer(
    source: &Source,
    name: &str,
    root: &OwnedFd,
    directory: &Path,
    placement: &Placement,
) -> Result<(), BuildError> {
    let from = rooted::open_root(&source.root)?;
    let path = if source.is_dir {
        source.path.join(".").join("")
    } else {
        source.path.clone()
    };
    let attributes = Attributes {
        owner: placement.owner,
        mode: placement.mode,
        ..Attributes::default()
    };
    let (reader, writer) = io::pipe()?;
    thread::scope(|scope| {
        let packer = scope.spawn(move || {
            let mut writer = io::BufWriter::with_capacity(64 << 10, writer);
            archive::pack(&from, &path, name, &mut writer)?;
            writer.flush()
        });
        let unpacked = archive::unpack(reader, root, directory, attributes);
        let packed = packer.join().expect("packing does not panic");
        // An unpacker that fails breaks the packer's pipe: its error is the one to tell.
        unpacked?;
        Ok(packed?)
    })
    .map_err(|error: BuildError| error.context("failed to copy files"))
}

fn extract(source: &Source, root: &OwnedFd, placement: &Placement) -> Result<(), BuildError> {
    let from = rooted::open_root(&source.root)?;
    let file = rooted::open_in(&from, &source.path, OFlags::RDONLY)?;
    let attributes = Attributes {
        owner: placement.owner,
        ..Attributes::default()
    };
    archive::unpack(std::fs::File::from(file), root, &placement.path, attributes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;
    use crate::sources::{Origin, find};

    struct Trees {
        from: tempfile::TempDir,
        to: tempfile::TempDir,
    }

    impl Trees {
        fn new() -> Self {
            let trees = Self {
                from: tempfile::tempdir().unwrap(),
                to: tempfile::tempdir().unwrap(),
            };
            fs::create_dir_all(trees.from.path().join("dir/sub")).unwrap();
            fs::write(trees.from.path().join("dir/sub/deep"), "deep").unwrap();
            fs::write(trees.from.path().join("one.txt"), "one").unwrap();
            fs::write(trees.from.path().join("two.txt"), "two").unwrap();
            trees
        }

        fn copy(&self, word: &str, to: &str) -> Result<(), BuildError> {
            let (path, is_dir) = destination("/work", to);
            let placement = Placement {
                path,
                is_dir,
                owner: Some((7, 8)),
                mode: None,
            };
            let root = rooted::open_root(self.to.path()).unwrap();
            for source in find(self.from.path(), Origin::Context, word, true)? {
                place(&source, &root, &placement)?;
            }
            Ok(())
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.to.path().join(path)).unwrap()
        }
    }

    #[test]
    fn files_and_directories_land_where_docker_puts_them() {
        let trees = Trees::new();
        trees.copy("one.txt", "new").unwrap();
        assert_eq!(trees.read("work/new"), "one");
        trees.copy("one.txt", "into/").unwrap();
        assert_eq!(trees.read("work/into/one.txt"), "one");
        trees.copy("two.txt", "into").unwrap();
        assert_eq!(trees.read("work/into/two.txt"), "two");
        trees.copy("dir", "/copied").unwrap();
        assert_eq!(trees.read("copied/sub/deep"), "deep");
        trees.copy("*.txt", "/all/").unwrap();
        assert_eq!(
            (trees.read("all/one.txt"), trees.read("all/two.txt")),
            ("one".into(), "two".into())
        );
        let owner = fs::metadata(trees.to.path().join("copied/sub")).unwrap();
        assert_eq!((owner.uid(), owner.gid()), (7, 8));
        let error = trees.copy("dir", "/work/new").unwrap_err();
        assert_eq!(error.message(), "cannot copy to non-directory: /work/new");
        let error = trees.copy("three.txt", "/").unwrap_err();
        assert_eq!(
            error.message(),
            "file not found in build context or excluded by .dockerignore: stat three.txt: file does not exist"
        );
    }

    #[test]
    fn links_lead_out_of_neither_tree() {
        let trees = Trees::new();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        symlink(outside.path(), trees.from.path().join("out")).unwrap();
        symlink(outside.path(), trees.to.path().join("out")).unwrap();
        assert!(trees.copy("out/secret", "/x").is_err());
        assert!(trees.copy("../secret", "/x").is_err());
        let _ = trees.copy("one.txt", "/out/one.txt");
        assert!(!outside.path().join("one.txt").exists());
    }

    #[test]
    fn a_link_at_the_destination_is_written_through() {
        let trees = Trees::new();
        fs::write(trees.to.path().join("real"), "old").unwrap();
        symlink("/real", trees.to.path().join("link")).unwrap();
        trees.copy("one.txt", "/link").unwrap();
        assert_eq!(trees.read("real"), "one");
        assert!(trees.to.path().join("link").is_symlink());
    }
}
