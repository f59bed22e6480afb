//! `docker-state.json`: with which addresses this node is in its swarm. Names and shape are dockerd's.
//! The file is written last when a swarm is made and removed first when it is left: it alone says
//! whether the node is in a swarm.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

const STATE_FILE: &str = "docker-state.json";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NodeState {
    /// Empty on nodes that joined: found anew by the route to the managers.
    pub(crate) local_addr: String,
    /// The address that was given to `swarm join`.
    pub(crate) remote_addr: String,
    /// host:port
    pub(crate) listen_addr: String,
    /// host:port; empty if the managers are to find it out.
    pub(crate) advertise_addr: String,
    pub(crate) data_path_addr: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) default_address_pool: Vec<String>,
    pub(crate) subnet_size: u32,
    pub(crate) data_path_port: u32,
    /// The node was let in, but does not take part yet.
    pub(crate) join_in_progress: bool,
}

/// Go writes an empty list as null.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

impl NodeState {
    /// `None` if the node is in no swarm.
    pub(crate) fn load(directory: &Path) -> io::Result<Option<Self>> {
        match read(directory, STATE_FILE)? {
            Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            None => Ok(None),
        }
    }

    pub(crate) fn save(&self, directory: &Path) -> io::Result<()> {
        write(directory, STATE_FILE, &serde_json::to_vec(self)?)
    }
}

/// Replaces a file of the swarm's directory, durably.
pub(crate) fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = directory.join(name);
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(directory)?.sync_all()
}

/// `None` if the file is not there.
pub(crate) fn read(directory: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(directory.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file of the swarm's directory, if it is there.
pub(crate) fn remove(directory: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(directory.join(name)) {
        Ok(()) => File::open(directory)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Forgets everything about the swarm, but keeps the directory itself: it may be a mount point.
pub(crate) fn clear(directory: &Path) -> io::Result<()> {
    remove(directory, STATE_FILE)?;
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_cleared() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(NodeState::load(directory.path()).unwrap(), None);
        let state = NodeState {
            listen_addr: "0.0.0.0:2377".into(),
            default_address_pool: vec!["10.20.0.0/16".into()],
            subnet_size: 26,
            ..NodeState::default()
        };
        state.save(directory.path()).unwrap();
        assert_eq!(NodeState::load(directory.path()).unwrap(), Some(state));
        fs::create_dir_all(directory.path().join("raft/deep")).unwrap();
        clear(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        clear(&directory.path().join("never made")).unwrap();
    }

    #[test]
    fn a_file_of_dockerd_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"{"LocalAddr":"10.0.0.1","RemoteAddr":"","ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"10.0.0.1:2377","DataPathAddr":"","DefaultAddressPool":null,"SubnetSize":0,"DataPathPort":4789,"JoinInProgress":false}"#;
        fs::write(directory.path().join(STATE_FILE), text).unwrap();
        let state = NodeState::load(directory.path()).unwrap().unwrap();
        assert_eq!(
            (state.local_addr.as_str(), state.data_path_port),
            ("10.0.0.1", 4789)
        );
    }
}
