//! What can go wrong, and what to do about it.

use std::path::PathBuf;

use nix::errno::Errno;
use skep_netlink::NetlinkError;

/// Why a lab could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("a lab needs root, for it makes network namespaces: run this with sudo")]
    NotRoot,
    #[error(
        "{what} \"{name}\" must be 1 to {longest} lower-case letters, digits and dashes, with a letter first"
    )]
    BadName {
        what: &'static str,
        name: String,
        longest: usize,
    },
    #[error("there are two nodes called \"{0}\"")]
    NameTaken(String),
    #[error("a lab has 1 to {most} nodes, not {asked}")]
    Size { asked: usize, most: usize },
    #[error("workers need a manager to join: ask for --managers 1, or for --no-join")]
    NoManager,
    #[error(
        "there is a lab \"{name}\" already, in {}: remove it with `skep lab down --name {name}`, or choose another --name",
        directory.display()
    )]
    Exists { name: String, directory: PathBuf },
    #[error(
        "there is no lab \"{name}\" in {}: start one with `skep lab up --name {name}`, or say where it is with --dir",
        directory.display()
    )]
    NoLab { name: String, directory: PathBuf },
    #[error("there is no node \"{name}\" in this lab; its nodes: {nodes}")]
    NoNode { name: String, nodes: String },
    #[error("{0} runs already")]
    Running(String),
    #[error("{0} does not run: start it with `skep lab start {0}`")]
    NotRunning(String),
    #[error("the daemon of {node} ended before it answered; its log ends with:\n{log}")]
    Ended { node: String, log: String },
    #[error("the daemon of {node} did not answer within {seconds} s; its log ends with:\n{log}")]
    Silent {
        node: String,
        seconds: u64,
        log: String,
    },
    #[error("{node} could not {what}: {message}")]
    Refused {
        node: String,
        what: &'static str,
        message: String,
    },
    #[error("these nodes did not become ready within {seconds} s: {nodes}")]
    NotReady { nodes: String, seconds: u64 },
    #[error("{0}")]
    BadUnit(String),
    #[error("this is left of the lab and could not be removed: {0}")]
    Leftovers(String),
    #[error("can't {what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("can't {what}")]
    System {
        what: String,
        #[source]
        source: Errno,
    },
    #[error("can't set up the lab's network")]
    Network(#[from] NetlinkError),
    #[error("can't read {}", path.display())]
    Corrupt {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl LabError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}
