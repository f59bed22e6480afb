//! What is on disk: definitions in the data root, for ever; what containers have at the moment in
//! the exec root, as long as the kernel state it describes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::definition::NetworkDefinition;
use crate::sandbox::SandboxRecord;
use crate::{NetworkConfig, NetworkError};

/// Version 1 of the file's layout.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct DefinitionsFile {
    version: u32,
    networks: Vec<NetworkDefinition>,
}

/// Paths of one daemon's network state.
#[derive(Debug)]
pub(crate) struct NetworkStore {
    definitions: PathBuf,
    records: PathBuf,
    namespaces: PathBuf,
}

impl NetworkStore {
    pub(crate) fn open(config: &NetworkConfig) -> Result<Self, NetworkError> {
        let directory = config.data_root.join("network");
        let records = config.exec_root.join("network");
        let namespaces = config.exec_root.join("netns");
        for path in [&directory, &records, &namespaces] {
            fs::create_dir_all(path)
                .map_err(NetworkError::io(format!("creating {}", path.display())))?;
        }
        Ok(Self {
            definitions: directory.join("networks.json"),
            records,
            namespaces,
        })
    }

    pub(crate) fn load_definitions(&self) -> Result<Vec<NetworkDefinition>, NetworkError> {
        let what = || format!("reading {}", self.definitions.display());
        let bytes = match fs::read(&self.definitions) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(NetworkError::io(what()))?,
        };
        let file: DefinitionsFile = serde_json::from_slice(&bytes)
            .map_err(io::Error::from)
            .map_err(NetworkError::io(what()))?;
        if file.version != VERSION {
            let unknown = io::Error::other(format!("unknown version {}", file.version));
            return Err(NetworkError::io(what())(unknown));
        }
        Ok(file.networks)
    }

    /// Durable when it returns.
    pub(crate) fn save_definitions(
        &self,
        networks: Vec<NetworkDefinition>,
    ) -> Result<(), NetworkError> {
        let what = || format!("writing {}", self.definitions.display());
        let file = DefinitionsFile {
            version: VERSION,
            networks,
        };
        let bytes = serde_json::to_vec_pretty(&file).expect("definitions are plain data");
        replace(&self.definitions, &bytes, true).map_err(NetworkError::io(what()))
    }

    /// Where a container's namespace is bound: twelve digits of the id, as Docker names them.
    pub(crate) fn namespace_path(&self, container_id: &str) -> PathBuf {
        self.namespaces.join(short(container_id))
    }

    /// Where an overlay's namespace is bound: as Docker names them.
    pub(crate) fn overlay_path(&self, network_id: &str) -> PathBuf {
        let short = network_id.get(..10).unwrap_or(network_id);
        self.namespaces.join(format!("1-{short}"))
    }

    /// All namespaces there are, wanted or not.
    pub(crate) fn namespace_paths(&self) -> Vec<PathBuf> {
        entries(&self.namespaces)
    }

    /// Not forced to the disk: it says what the kernel has, and both end with a reboot.
    pub(crate) fn save_record(&self, record: &SandboxRecord) -> Result<(), NetworkError> {
        let path = self.record_path(&record.container_id);
        let bytes = serde_json::to_vec(record).expect("records are plain data");
        replace(&path, &bytes, false)
            .map_err(NetworkError::io(format!("writing {}", path.display())))
    }

    pub(crate) fn remove_record(&self, container_id: &str) -> Result<(), NetworkError> {
        let path = self.record_path(container_id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(NetworkError::io(
                format!("removing {}", path.display()),
            )(error)),
            _ => Ok(()),
        }
    }

    /// Every record that can be read; the others are told by path.
    pub(crate) fn load_records(&self) -> (Vec<SandboxRecord>, Vec<PathBuf>) {
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for path in entries(&self.records) {
            let record = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            match record {
                Some(record) => records.push(record),
                None => damaged.push(path),
            }
        }
        (records, damaged)
    }

    fn record_path(&self, container_id: &str) -> PathBuf {
        self.records.join(format!("{container_id}.json"))
    }
}

pub(crate) fn short(container_id: &str) -> &str {
    container_id.get(..12).unwrap_or(container_id)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// Readers see the old content or the new, never a part.
fn replace(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    if durable && let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}
