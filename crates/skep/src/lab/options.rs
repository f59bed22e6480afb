//! The flags of `skep lab`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use skep_lab::LabSpec;

/// A swarm of several nodes on this machine.
///
/// Each node is a network namespace with its own address, host name, data, docker socket and
/// containers, all on one bridge that the rest of the machine can not see. Needs root.
#[derive(Debug, Parser)]
#[command(name = "skep lab", bin_name = "skep lab", after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The lab's name
    #[arg(long, global = true, default_value = "lab")]
    pub(crate) name: String,

    /// Where labs keep their files (a disk: images take room; a short path: sockets are below it)
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = LabSpec::PARENT)]
    pub(crate) dir: PathBuf,

    #[command(subcommand)]
    pub(crate) action: Action,
}

const EXAMPLES: &str = "\
Examples:
  skep lab up --managers 3 --workers 2 --image nginx.tar
  skep lab exec outside -- curl 10.231.0.2:8080
  skep lab cut m2 m3          m2 and m3 see each other and nobody else
  skep lab slow w1 --delay 50ms --loss 5%
  skep lab kill m1            the daemon dies, its containers go on
  skep lab off w2             a power cut
  skep lab down";

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Start a lab and make a swarm of it
    Up(Up),

    /// List the nodes: role, address, state, process and socket
    Ls,

    /// Run a command in a node's network, with its host name and hosts file
    Exec {
        /// A node, or `outside`: a machine beside them
        #[arg(value_name = "NODE")]
        place: String,
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },

    /// Cut nodes off the others; nodes named together still reach each other
    Cut {
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },

    /// Undo cut and slow, for these nodes or for all
    Heal {
        #[arg(value_name = "NODE")]
        nodes: Vec<String>,
    },

    /// Make a node's cable slow or lossy, each way
    Slow {
        node: String,
        /// How long a frame takes, such as 50ms
        #[arg(long)]
        delay: Option<String>,
        /// How many frames vanish, such as 5%
        #[arg(long)]
        loss: Option<String>,
    },

    /// Kill a node's daemon (-9); its containers go on
    Kill {
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },

    /// Cut a node's power: daemon and containers die, the cable goes dead, the disk stays
    Off {
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },

    /// Start a killed node, or one that is off
    Start {
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },

    /// Remove the lab with all its containers and data, also when half of it is gone already
    Down,

    /// Carry frames between two interfaces; started by `slow`
    #[command(hide = true)]
    Wire {
        one: String,
        other: String,
        #[arg(long)]
        delay: String,
        #[arg(long)]
        loss: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// How many managers, called m1, m2, …
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) managers: usize,

    /// How many workers, called w1, w2, …
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) workers: usize,

    /// Load this image (a tarball of `docker save`) on every node; a lab reaches no registry
    #[arg(long = "image", value_name = "FILE")]
    pub(crate) images: Vec<PathBuf>,

    /// Only start the nodes: make the swarm yourself
    #[arg(long)]
    pub(crate) no_join: bool,

    /// Leave what was started when something fails, to look at it
    #[arg(long)]
    pub(crate) keep: bool,

    /// Further flags for every daemon, such as --debug
    #[arg(last = true, value_name = "DAEMON-FLAGS")]
    pub(crate) flags: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        let words = std::iter::once("skep lab").chain(line.split_whitespace());
        Options::try_parse_from(words)
    }

    #[test]
    fn the_flags_contradict_nothing() {
        Options::command().debug_assert();
    }

    #[test]
    fn name_and_directory_may_stand_anywhere() {
        for line in ["--name a --dir /x ls", "ls --name a --dir /x"] {
            let options = parse(line).unwrap();
            assert_eq!(options.name, "a");
            assert_eq!(options.dir, PathBuf::from("/x"));
        }
    }

    #[test]
    fn up_passes_flags_after_the_dashes_to_the_daemons() {
        let options = parse("up --managers 3 --workers 2 -- --debug -l error").unwrap();
        let Action::Up(up) = options.action else {
            panic!("{options:?}");
        };
        assert_eq!((up.managers, up.workers), (3, 2));
        assert_eq!(up.flags, ["--debug", "-l", "error"]);
    }

    #[test]
    fn exec_leaves_the_commands_flags_alone() {
        let options = parse("exec m1 -- ls --name x").unwrap();
        assert_eq!(options.name, "lab");
        assert!(matches!(options.action, Action::Exec { command, .. } if command.len() == 3));
    }

    #[test]
    fn what_needs_a_node_asks_for_one() {
        for line in ["cut", "kill", "off", "start", "slow", "exec m1"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("heal").is_ok());
    }
}
