//! The directories under `overlay2`: one per layer, one per container, and `l` with short names.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rand::Rng;

use crate::error::{Context, ImageError};
use crate::state::State;

pub(crate) const LINKS: &str = "l";
/// The symlink in a container's directory that names the layer it stands on.
pub(crate) const LOWER: &str = "lower";
const NO_LAYER: &str = "none";
const CONTAINER_PREFIX: &str = "c-";
const INIT_PREFIX: &str = "init-";

#[derive(Debug, Clone)]
pub(crate) struct LayerStore {
    root: PathBuf,
}

/// A layer's directory until the layer is recorded: dropped, it is gone.
#[derive(Debug)]
pub(crate) struct NewLayer {
    store: LayerStore,
    pub(crate) dir: String,
    pub(crate) link: String,
    kept: bool,
}

impl NewLayer {
    pub(crate) fn diff(&self) -> PathBuf {
        self.store.diff(&self.dir)
    }

    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewLayer {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.store.remove(&self.dir, &self.link)
        {
            tracing::warn!(dir = self.dir, %error, "could not remove an unfinished layer");
        }
    }
}

impl LayerStore {
    pub(crate) fn open(root: PathBuf) -> Result<Self, ImageError> {
        let links = root.join(LINKS);
        fs::create_dir_all(&links).context(|| format!("mkdir {}", links.display()))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn diff(&self, dir: &str) -> PathBuf {
        self.root.join(dir).join("diff")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.root.join(format!("{CONTAINER_PREFIX}{id}"))
    }

    /// The init layer shared by all containers that stand on the layer in `dir`.
    pub(crate) fn init(dir: Option<&str>) -> String {
        format!("{INIT_PREFIX}{}", dir.unwrap_or(NO_LAYER))
    }

    /// The target of a container's `lower` link.
    pub(crate) fn lower_target(dir: Option<&str>) -> String {
        format!("../{}", dir.unwrap_or(NO_LAYER))
    }

    pub(crate) fn create(&self) -> Result<NewLayer, ImageError> {
        let dir = random_name(26);
        let diff = self.diff(&dir);
        fs::create_dir_all(&diff).context(|| format!("mkdir {}", diff.display()))?;
        let mut layer = NewLayer {
            store: self.clone(),
            dir,
            link: String::new(),
            kept: false,
        };
        layer.link = self.link(&layer.dir)?;
        Ok(layer)
    }

    /// Gives a directory a name short enough for a hundred of them to fit in one mount call.
    fn link(&self, dir: &str) -> Result<String, ImageError> {
        loop {
            let link = random_name(6);
            let path = self.root.join(LINKS).join(&link);
            match symlink(format!("../{dir}/diff"), &path) {
                Ok(()) => return Ok(link),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(ImageError::io(format!("symlink {}", path.display()), error));
                }
            }
        }
    }

    /// Removes a layer's directory, its short name and the init layer made for it.
    pub(crate) fn remove(&self, dir: &str, link: &str) -> io::Result<()> {
        if !link.is_empty() {
            ignore_missing(fs::remove_file(self.root.join(LINKS).join(link)))?;
        }
        ignore_missing(fs::remove_dir_all(self.root.join(Self::init(Some(dir)))))?;
        ignore_missing(fs::remove_dir_all(self.root.join(dir)))
    }

    /// All containers' directories with the name of the layer directory below each.
    pub(crate) fn containers(&self) -> Result<Vec<(String, Option<String>)>, ImageError> {
        let mut found = Vec::new();
        for name in Self::names(&self.root)? {
            let Some(container) = name.strip_prefix(CONTAINER_PREFIX) else {
                continue;
            };
            let Ok(target) = fs::read_link(self.root.join(&name).join(LOWER)) else {
                continue;
            };
            let dir = target
                .file_name()
                .map(|dir| dir.to_string_lossy().into_owned());
            found.push((container.to_owned(), dir.filter(|dir| dir != NO_LAYER)));
        }
        Ok(found)
    }

    /// Removes every directory and short name no record speaks of and says how many.
    pub(crate) fn sweep(&self, state: &State) -> Result<usize, ImageError> {
        let mut known: BTreeSet<String> = [LINKS.to_owned(), Self::init(None)].into();
        for layer in state.layers.values() {
            known.insert(layer.dir.clone());
            known.insert(Self::init(Some(&layer.dir)));
        }
        let links: BTreeSet<&str> = state
            .layers
            .values()
            .map(|layer| layer.link.as_str())
            .collect();
        let mut removed = 0;
        for name in Self::names(&self.root)? {
            // A container's directory counts once its link is there: the link is made last.
            let container = name.starts_with(CONTAINER_PREFIX)
                && self.root.join(&name).join(LOWER).is_symlink();
            if known.contains(&name) || container {
                continue;
            }
            let path = self.root.join(&name);
            fs::remove_dir_all(&path).context(|| format!("remove {}", path.display()))?;
            removed += 1;
        }
        let link_dir = self.root.join(LINKS);
        for name in Self::names(&link_dir)? {
            if !links.contains(name.as_str()) {
                let path = link_dir.join(&name);
                fs::remove_file(&path).context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(removed)
    }

    fn names(dir: &Path) -> Result<Vec<String>, ImageError> {
        fs::read_dir(dir)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                    .collect::<io::Result<Vec<_>>>()
            })
            .context(|| format!("open {}", dir.display()))
    }
}

pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(crate) fn random_name(length: usize) -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut rng = rand::rng();
    (0..length)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}
