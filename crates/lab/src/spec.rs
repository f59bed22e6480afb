//! What lab is wanted, checked before anything is made.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::{LabError, Node, Role, Runtime};

/// A lab to be.
#[derive(Debug, Clone)]
pub struct LabSpec {
    pub name: String,
    /// The directory below which labs are kept, each in one of its name.
    pub parent: PathBuf,
    /// The skep program that the nodes run.
    pub program: PathBuf,
    /// Further flags for every daemon.
    pub flags: Vec<String>,
    pub nodes: Vec<Node>,
}

impl LabSpec {
    /// Where labs are kept unless the user says otherwise: on a disk, for images take room.
    pub const PARENT: &str = "/var/lib/skep-lab";
    /// The first three parts of every address in a lab: its network is a /24 that nobody but the
    /// lab can see, so all labs use the same one.
    const NETWORK: [u8; 3] = [10, 231, 0];
    /// Addresses .2 to .254.
    const MOST: usize = 253;
    /// The bridge's name for a node's cable, with room for a suffix, has 15 bytes at most.
    const LONGEST_NODE_NAME: usize = 13;
    const LONGEST_NAME: usize = 32;

    #[must_use]
    pub fn new(name: &str, program: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            parent: PathBuf::from(Self::PARENT),
            program,
            flags: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// The bridge's address, the nodes' gateway.
    #[must_use]
    pub fn gateway() -> Ipv4Addr {
        Self::address(0)
    }

    /// Managers `m1`, `m2`, … and workers `w1`, `w2`, …
    #[must_use]
    pub fn with(mut self, managers: usize, workers: usize) -> Self {
        for number in 1..=managers {
            self = self.with_node(&format!("m{number}"), Role::Manager, Runtime::Skep);
        }
        for number in 1..=workers {
            self = self.with_node(&format!("w{number}"), Role::Worker, Runtime::Skep);
        }
        self
    }

    /// One more node, with the next free address.
    #[must_use]
    pub fn with_node(mut self, name: &str, role: Role, runtime: Runtime) -> Self {
        self.nodes.push(Node {
            name: name.to_owned(),
            role,
            runtime,
            address: Self::address(self.nodes.len() + 1),
        });
        self
    }

    fn address(number: usize) -> Ipv4Addr {
        let [a, b, c] = Self::NETWORK;
        // Too many nodes are refused by `check`; until then any number must be representable.
        let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
        Ipv4Addr::new(a, b, c, last)
    }

    /// Refuses what can not be built.
    pub fn check(&self) -> Result<(), LabError> {
        check_name("the lab's name", &self.name, Self::LONGEST_NAME)?;
        if self.nodes.is_empty() || self.nodes.len() > Self::MOST {
            return Err(LabError::Size {
                asked: self.nodes.len(),
                most: Self::MOST,
            });
        }
        let mut names = BTreeSet::from(["outside"]);
        for node in &self.nodes {
            check_name("a node's name", &node.name, Self::LONGEST_NODE_NAME)?;
            if !names.insert(&node.name) {
                return Err(LabError::NameTaken(node.name.clone()));
            }
        }
        let has = |role| self.nodes.iter().any(|node| node.role == role);
        if has(Role::Worker) && !has(Role::Manager) {
            return Err(LabError::NoManager);
        }
        Ok(())
    }
}

pub(crate) fn check_lab_name(name: &str) -> Result<(), LabError> {
    check_name("the lab's name", name, LabSpec::LONGEST_NAME)
}

/// Names become parts of paths, host names and interface names.
fn check_name(what: &'static str, name: &str, longest: usize) -> Result<(), LabError> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.len() <= longest
        && name.bytes().all(fits)
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_lowercase())
    {
        return Ok(());
    }
    Err(LabError::BadName {
        what,
        name: name.to_owned(),
        longest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> LabSpec {
        LabSpec::new("lab", PathBuf::from("/bin/skep"))
    }

    #[test]
    fn nodes_are_numbered_by_role_and_addressed_in_order() {
        let spec = spec().with(2, 1);
        let seen: Vec<String> = spec
            .nodes
            .iter()
            .map(|node| format!("{} {} {}", node.name, node.role, node.address))
            .collect();
        assert_eq!(
            seen,
            [
                "m1 manager 10.231.0.2",
                "m2 manager 10.231.0.3",
                "w1 worker 10.231.0.4"
            ]
        );
        spec.check().unwrap();
    }

    #[test]
    fn names_that_are_no_host_names_are_refused() {
        for name in ["", "1a", "a_b", "A", "../x", "a-name-that-is-too-long"] {
            let spec = spec().with_node(name, Role::Manager, Runtime::Skep);
            let error = spec.check().unwrap_err().to_string();
            assert!(error.contains("must be 1 to 13 lower-case"), "{error}");
        }
        let mut other = spec().with(1, 0);
        other.name = "a/b".into();
        assert!(matches!(other.check(), Err(LabError::BadName { .. })));
    }

    #[test]
    fn two_nodes_of_one_name_are_refused_and_so_is_the_bridges_own() {
        for name in ["m1", "outside"] {
            let spec = spec()
                .with(1, 0)
                .with_node(name, Role::Worker, Runtime::Skep);
            assert!(matches!(spec.check(), Err(LabError::NameTaken(_))));
        }
    }

    #[test]
    fn workers_need_a_manager() {
        assert!(matches!(
            spec().with(0, 2).check(),
            Err(LabError::NoManager)
        ));
        spec()
            .with_node("a", Role::Single, Runtime::Skep)
            .check()
            .unwrap();
    }

    #[test]
    fn a_lab_fits_its_network() {
        spec().with(3, 250).check().unwrap();
        assert!(matches!(
            spec().with(3, 251).check(),
            Err(LabError::Size { asked: 254, .. })
        ));
        assert!(matches!(spec().check(), Err(LabError::Size { .. })));
    }
}
