//! Where a lab keeps what, and its one state file.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{LabError, LabSpec, Node, spec};

/// The directory of one lab. It says where things are, not that they are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabFiles {
    name: String,
    root: PathBuf,
}

/// `lab.json`: what the lab was asked to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) program: PathBuf,
    pub(crate) flags: Vec<String>,
    pub(crate) nodes: Vec<Node>,
}

impl LabFiles {
    /// The lab `name` below `parent`.
    pub fn new(parent: &Path, name: &str) -> Result<Self, LabError> {
        spec::check_lab_name(name)?;
        let parent = std::path::absolute(parent).map_err(LabError::io(format!(
            "find the directory {}",
            parent.display()
        )))?;
        Ok(Self {
            name: name.to_owned(),
            root: parent.join(name),
        })
    }

    /// Names of the labs below `parent`.
    pub fn all(parent: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join("lab.json").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything of the lab that is a file is below here.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The bound network namespaces.
    #[must_use]
    pub fn namespaces(&self) -> PathBuf {
        self.root.join("net")
    }

    /// The network namespace of a node, or of `outside`.
    #[must_use]
    pub fn namespace(&self, node: &str) -> PathBuf {
        self.namespaces().join(node)
    }

    /// All that one node has.
    #[must_use]
    pub fn node(&self, node: &str) -> PathBuf {
        self.root.join(node)
    }

    #[must_use]
    pub fn socket(&self, node: &str) -> PathBuf {
        self.node(node).join("docker.sock")
    }

    #[must_use]
    pub fn data_root(&self, node: &str) -> PathBuf {
        self.node(node).join("data")
    }

    #[must_use]
    pub fn exec_root(&self, node: &str) -> PathBuf {
        self.node(node).join("run")
    }

    #[must_use]
    pub fn log(&self, node: &str) -> PathBuf {
        self.node(node).join("daemon.log")
    }

    pub(crate) fn pidfile(&self, node: &str) -> PathBuf {
        self.node(node).join("docker.pid")
    }

    /// The daemon that was started last.
    pub(crate) fn process(&self, node: &str) -> PathBuf {
        self.node(node).join("process.json")
    }

    /// The slow wire's process.
    pub(crate) fn wire(&self, node: &str) -> PathBuf {
        self.node(node).join("wire.json")
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        self.root.join("hosts")
    }

    /// The cgroup of the whole lab: found from its name and place alone, so that it can be removed
    /// when nothing else is left, and different for labs of one name in two places.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("/skep-lab-{}-{:08x}", self.name, self.fingerprint())
    }

    #[must_use]
    pub fn node_cgroup(&self, node: &str) -> String {
        format!("{}/{node}", self.cgroup())
    }

    /// FNV-1a of the path: the same in every build.
    fn fingerprint(&self) -> u32 {
        let bytes = self.root.as_os_str().as_encoded_bytes();
        bytes.iter().fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
    }

    pub(crate) fn save(&self, spec: &LabSpec) -> Result<(), LabError> {
        let record = Record {
            program: spec.program.clone(),
            flags: spec.flags.clone(),
            nodes: spec.nodes.clone(),
        };
        write_json(&self.root.join("lab.json"), &record)
    }

    pub(crate) fn load(&self) -> Result<Record, LabError> {
        let path = self.root.join("lab.json");
        if !path.exists() {
            return Err(LabError::NoLab {
                name: self.name.clone(),
                directory: self.root.parent().unwrap_or(&self.root).to_owned(),
            });
        }
        read_json(&path)
    }

    /// The nodes' `/etc/hosts`.
    pub(crate) fn write_hosts(&self, nodes: &[Node]) -> Result<(), LabError> {
        let path = self.hosts();
        fs::write(&path, hosts(nodes)).map_err(LabError::io(format!("write {}", path.display())))
    }
}

fn hosts(nodes: &[Node]) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\toutside\n",
        LabSpec::gateway()
    );
    text.extend(
        nodes
            .iter()
            .map(|node| format!("{}\t{}\n", node.address, node.name)),
    );
    text
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), LabError> {
    let text = serde_json::to_string_pretty(value).map_err(|source| LabError::Corrupt {
        path: path.to_owned(),
        source,
    })?;
    // Renamed into place: whoever looks at the same moment sees the old or the new one.
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .map_err(LabError::io(format!("write {}", path.display())))
}

pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, LabError> {
    let text =
        fs::read_to_string(path).map_err(LabError::io(format!("read {}", path.display())))?;
    serde_json::from_str(&text).map_err(|source| LabError::Corrupt {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_of_one_name_in_two_places_have_cgroups_of_their_own() {
        let at = |parent: &str| LabFiles::new(Path::new(parent), "lab").unwrap().cgroup();
        assert_eq!(at("/var/lib/skep-lab"), at("/var/lib/skep-lab"));
        assert_ne!(at("/var/lib/skep-lab"), at("/tmp/x"));
        assert!(at("/a").starts_with("/skep-lab-lab-"));
    }

    #[test]
    fn a_lab_that_is_not_there_says_how_to_make_one() {
        let parent = tempfile::tempdir().unwrap();
        let files = LabFiles::new(parent.path(), "blue").unwrap();
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains("there is no lab \"blue\""), "{error}");
        assert!(error.contains("skep lab up --name blue"), "{error}");
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let parent = tempfile::tempdir().unwrap();
        let files = LabFiles::new(parent.path(), "blue").unwrap();
        fs::create_dir(files.root()).unwrap();
        let spec = LabSpec::new("blue", PathBuf::from("/bin/skep")).with(1, 1);
        files.save(&spec).unwrap();
        assert_eq!(files.load().unwrap().nodes, spec.nodes);
        assert_eq!(LabFiles::all(parent.path()), ["blue"]);
    }

    #[test]
    fn every_node_knows_the_others_by_name() {
        let spec = LabSpec::new("lab", PathBuf::from("/bin/skep")).with(1, 1);
        let text = hosts(&spec.nodes);
        assert!(text.contains("10.231.0.2\tm1\n"), "{text}");
        assert!(text.contains("10.231.0.3\tw1\n"), "{text}");
        assert!(text.contains("10.231.0.1\toutside\n"), "{text}");
    }
}
