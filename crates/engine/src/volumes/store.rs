//! The volumes on disk: `<data-root>/volumes/<name>/_data`, and `volume.json` beside it.
//!
//! A volume is in use while a container (running or not) mounts it; who does is the engine's to
//! know, so it is asked at removal.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use bollard_stubs::models as m;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::held::Held;
use super::options;
use crate::error::{EngineError, Result};
use crate::names;
use crate::persist::write_atomically;
use crate::time::UnixNanos;

/// Marks volumes that nobody named.
pub(crate) const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// One volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) created: UnixNanos,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) options: HashMap<String, String>,
}

impl Volume {
    pub(crate) fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS_LABEL)
    }

    /// Whether its files are somewhere else, perhaps on a server.
    pub(crate) fn is_mount(&self) -> bool {
        options::is_mount(&self.options)
    }
}

/// All volumes.
pub(crate) struct VolumeStore {
    root: PathBuf,
    volumes: Mutex<BTreeMap<String, Volume>>,
    pub(super) held: Held,
}

impl VolumeStore {
    /// Reads what is there.
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).map_err(|error| {
            EngineError::from_source(format!("cannot create {}", root.display()), &error)
        })?;
        let mut volumes = BTreeMap::new();
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            match fs::read(path.join("volume.json")) {
                Ok(bytes) => match serde_json::from_slice::<Volume>(&bytes) {
                    Ok(volume) => {
                        volumes.insert(volume.name.clone(), volume);
                    }
                    Err(error) => {
                        tracing::error!(path = %path.display(), %error, "skipped an unreadable volume");
                    }
                },
                // A creation or removal that did not get far.
                Err(_) => {
                    if !path.join("_data").exists() {
                        let _ = fs::remove_dir_all(&path);
                    }
                }
            }
        }
        Ok(Self {
            root,
            volumes: Mutex::new(volumes),
            held: Held::default(),
        })
    }

    /// Where a volume's files are.
    pub(crate) fn mountpoint(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    /// Finds or makes a volume; true if it was made. Without a name it is anonymous.
    pub(crate) fn create(
        &self,
        name: Option<&str>,
        driver: Option<&str>,
        options: HashMap<String, String>,
        mut labels: HashMap<String, String>,
    ) -> Result<(Volume, bool)> {
        if let Some(driver) = driver.filter(|driver| !matches!(*driver, "" | "local")) {
            return Err(EngineError::not_found(format!(
                "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
        let name = if let Some(name) = name.filter(|name| !name.is_empty()) {
            check_name(name).map_err(|error| error.context(format!("create {name}")))?;
            name.to_owned()
        } else {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
            names::random_id()
        };
        options::check(&options).map_err(|error| error.context(format!("create {name}")))?;
        let mut volumes = self.volumes.lock();
        if let Some(volume) = volumes.get(&name) {
            return Ok((volume.clone(), false));
        }
        let volume = Volume {
            name: name.clone(),
            created: UnixNanos::now(),
            labels,
            options,
        };
        self.make(&volume).map_err(|error| {
            let _ = fs::remove_dir_all(self.root.join(&name));
            error.context(format!(
                "error while creating volume root path '{}'",
                self.root.join(&name).display()
            ))
        })?;
        volumes.insert(name, volume.clone());
        Ok((volume, true))
    }

    fn make(&self, volume: &Volume) -> Result<()> {
        let dir = self.root.join(&volume.name);
        fs::create_dir_all(dir.join("_data"))?;
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o701))?;
        fs::set_permissions(dir.join("_data"), fs::Permissions::from_mode(0o755))?;
        let json = serde_json::to_vec(volume)
            .map_err(|error| EngineError::from_source("encode volume", &error))?;
        write_atomically(&dir.join("volume.json"), &json, true)?;
        Ok(())
    }

    /// One volume by its name.
    pub(crate) fn get(&self, name: &str) -> Result<Volume> {
        self.volumes
            .lock()
            .get(name)
            .cloned()
            .ok_or_else(|| EngineError::not_found(format!("get {name}: no such volume")))
    }

    /// All, by name.
    pub(crate) fn list(&self) -> Vec<Volume> {
        self.volumes.lock().values().cloned().collect()
    }

    /// Removes a volume that nobody uses; `users` says who does.
    pub(crate) fn remove(&self, name: &str, users: impl FnOnce() -> Vec<String>) -> Result<()> {
        let mut volumes = self.volumes.lock();
        if !volumes.contains_key(name) {
            return Err(EngineError::not_found(format!(
                "get {name}: no such volume"
            )));
        }
        let users = users();
        if !users.is_empty() {
            return Err(EngineError::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        if self.held.is_used(name) {
            // docker cp, or an end that is not over yet.
            return Err(EngineError::conflict(format!(
                "remove {name}: volume has active mounts"
            )));
        }
        if options::is_mount(&volumes[name].options) {
            // What somebody else has put there must not be deleted.
            options::unmount(&self.mountpoint(name))?;
        }
        self.held.forget(name);
        // The record goes first: half a removal must not leave a volume that lost files.
        let dir = self.root.join(name);
        match fs::remove_file(dir.join("volume.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        volumes.remove(name);
        fs::remove_dir_all(&dir)
            .map_err(|error| EngineError::from_source(format!("remove {name}"), &error))
    }

    /// As Docker shows a volume.
    pub(crate) fn to_api(&self, volume: &Volume) -> m::Volume {
        m::Volume {
            name: volume.name.clone(),
            driver: "local".to_owned(),
            mountpoint: self.mountpoint(&volume.name).display().to_string(),
            created_at: Some(volume.created.rfc3339()),
            status: None,
            labels: volume.labels.clone(),
            scope: Some(m::VolumeScopeEnum::LOCAL),
            cluster_volume: None,
            options: volume.options.clone(),
            usage_data: None,
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(EngineError::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    if names::is_valid(name) {
        return Ok(());
    }
    Err(EngineError::invalid(format!(
        "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
         allowed. If you intended to pass a host directory, use absolute path"
    )))
}

/// Bytes of all files below a directory, hard links counted once.
pub(crate) fn directory_size(root: &Path) -> i64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut seen = std::collections::HashSet::new();
    let mut left = vec![root.to_path_buf()];
    let mut total = 0;
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                left.push(entry.path());
            } else if meta.nlink() < 2 || seen.insert((meta.dev(), meta.ino())) {
                total += i64::try_from(meta.size()).unwrap_or(0);
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, VolumeStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = VolumeStore::open(dir.path().join("volumes")).unwrap();
        (dir, store)
    }

    #[test]
    fn volumes_survive_a_restart() {
        let (dir, store) = store();
        let (volume, made) = store
            .create(
                Some("data"),
                None,
                HashMap::new(),
                HashMap::from([("a".to_owned(), "b".to_owned())]),
            )
            .unwrap();
        assert!(made && store.mountpoint("data").is_dir());
        assert!(
            !store
                .create(Some("data"), None, HashMap::new(), HashMap::new())
                .unwrap()
                .1
        );
        drop(store);
        let again = VolumeStore::open(dir.path().join("volumes")).unwrap();
        assert_eq!(again.get("data").unwrap(), volume);
    }

    #[test]
    fn a_used_volume_stays() {
        let (_dir, store) = store();
        store
            .create(Some("data"), None, HashMap::new(), HashMap::new())
            .unwrap();
        let error = store
            .remove("data", || vec!["c1".to_owned(), "c2".to_owned()])
            .unwrap_err();
        assert_eq!(error.message, "remove data: volume is in use - [c1, c2]");
        store.remove("data", Vec::new).unwrap();
        assert_eq!(
            store.get("data").unwrap_err().message,
            "get data: no such volume"
        );
    }

    #[test]
    fn names_cannot_leave_the_root() {
        let (_dir, store) = store();
        for bad in ["../x", "a/b", ".x", "x"] {
            assert!(
                store
                    .create(Some(bad), None, HashMap::new(), HashMap::new())
                    .is_err(),
                "{bad}"
            );
        }
        assert!(
            store
                .create(None, None, HashMap::new(), HashMap::new())
                .unwrap()
                .0
                .is_anonymous()
        );
    }
}
