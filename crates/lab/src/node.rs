//! One node of a lab, as it was asked for.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a node becomes when the lab is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Manager,
    Worker,
    /// Left alone: the user joins it.
    Single,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
            Self::Single => "single",
        })
    }
}

/// Which engine a node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The lab's own skep.
    Skep,
    /// Debian's dockerd, unpacked below this directory and not installed.
    Dockerd(PathBuf),
}

/// A node: who it is, not how it fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub role: Role,
    pub runtime: Runtime,
    pub address: Ipv4Addr,
}
