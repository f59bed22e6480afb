//! A lab that stands.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use skep_netlink::Namespace;

use crate::fabric::Cable;
use crate::files::{Record, read_json, write_json};
use crate::process::Process;
use crate::{
    Api, Fabric, LabError, LabFiles, LabSpec, Node, Runtime, Slowness, join, launch, private,
    sweep, wire,
};

const KILL_BOUND: Duration = Duration::from_secs(10);

/// A lab: its files and its kernel objects. Dropping it changes nothing; [`crate::down`] removes it.
#[derive(Debug)]
pub struct Lab {
    files: LabFiles,
    record: Record,
}

/// How a node fares.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    pub node: Node,
    /// The daemon's, while it runs.
    pub pid: Option<i32>,
    pub state: NodeState,
    pub slowness: Option<Slowness>,
    pub socket: PathBuf,
}

/// What is wrong with a node, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Its namespace is gone.
    Gone,
    /// The machine is off.
    Off,
    /// Its daemon does not run.
    Dead,
    /// Its cable is cut.
    Cut,
    Running,
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Gone => "gone",
            Self::Off => "off",
            Self::Dead => "dead",
            Self::Cut => "cut",
            Self::Running => "running",
        })
    }
}

impl Lab {
    /// Makes the network, the directories and the nodes' namespaces; starts nothing. What was made
    /// before a failure is removed again.
    pub fn create(spec: &LabSpec) -> Result<Self, LabError> {
        spec.check()?;
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let files = LabFiles::new(&spec.parent, &spec.name)?;
        claim(&files)?;
        Self::build(spec, &files).inspect_err(|_| {
            // The failure is what the user must hear of, not what follows from it.
            let _ = sweep::down(&files);
        })
    }

    fn build(spec: &LabSpec, files: &LabFiles) -> Result<Self, LabError> {
        private::share(files.root())?;
        files.save(spec)?;
        files.write_hosts(&spec.nodes)?;
        make_directory(&files.namespaces())?;
        let mut fabric = Fabric::create(files)?;
        for node in &spec.nodes {
            make_directory(&files.node(&node.name))?;
            if let Runtime::Dockerd(_) = node.runtime {
                let path = launch::dockerd_config(files, &node.name);
                fs::write(&path, "{}")
                    .map_err(LabError::io(format!("write {}", path.display())))?;
            }
            fabric.add_node(files, node)?;
        }
        Self::open(files.clone())
    }

    /// Finds a lab that an earlier command made.
    pub fn open(files: LabFiles) -> Result<Self, LabError> {
        let record = files.load()?;
        Ok(Self { files, record })
    }

    #[must_use]
    pub fn files(&self) -> &LabFiles {
        &self.files
    }

    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.record.nodes
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Result<&Node, LabError> {
        let mut nodes = self.record.nodes.iter();
        nodes.find(|node| node.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.nodes().iter().map(|node| node.name.as_str()).collect();
            LabError::NoNode {
                name: name.to_owned(),
                nodes: names.join(", "),
            }
        })
    }

    /// Starts every daemon at the same time.
    pub fn start_all(&self) -> Result<(), LabError> {
        std::thread::scope(|scope| {
            let starting: Vec<_> = self
                .nodes()
                .iter()
                .map(|node| scope.spawn(|| self.start(&node.name)))
                .collect();
            let outcomes: Vec<Result<(), LabError>> = starting
                .into_iter()
                .map(|thread| {
                    let joined = thread.join();
                    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect();
            outcomes.into_iter().collect()
        })
    }

    /// Loads a tarball of images on a node.
    pub fn load_image(&self, name: &str, tarball: &Path) -> Result<(), LabError> {
        self.node(name)?;
        Api::new(name, &self.files.socket(name)).load(tarball)
    }

    /// Makes one swarm of all managers and workers.
    pub fn join(&self) -> Result<(), LabError> {
        join::join(&self.files, self.nodes())
    }

    /// Starts a node's daemon, and its machine if that is off, and waits until it answers.
    pub fn start(&self, name: &str) -> Result<(), LabError> {
        self.start_with(name, &[])
    }

    /// [`Lab::start`], with more in the daemon's environment.
    pub fn start_with(&self, name: &str, environment: &[(&str, &str)]) -> Result<(), LabError> {
        let node = self.node(name)?;
        if self.daemon(name).is_some() {
            return Err(LabError::Running(name.to_owned()));
        }
        Fabric::open(&self.files)?.power(name, true)?;
        // Its process is over, as was just seen; a daemon might take one that was killed and that
        // nobody has waited for as alive.
        let _ = fs::remove_file(self.files.pidfile(name));
        let mut command = launch::command(&self.files, &self.record, node);
        command.envs(environment.iter().copied());
        let log = self.files.log(name);
        let process = self.inside(name, || launch::spawn(&mut command, &log, name))??;
        write_json(&self.files.process(name), &process)?;
        launch::wait(&self.files, node, process)
    }

    /// `kill -9` of the daemon alone: its containers go on.
    pub fn kill(&self, name: &str) -> Result<(), LabError> {
        self.signal(name, Signal::SIGKILL)?;
        Ok(())
    }

    /// Asks the daemon to end, and waits for it: as long as its containers take.
    pub fn stop(&self, name: &str) -> Result<(), LabError> {
        self.signal(name, Signal::SIGTERM)
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<(), LabError> {
        let process = self.running(name)?;
        process.signal(signal);
        if process.ended_within(KILL_BOUND * 2) {
            return Ok(());
        }
        Err(LabError::Running(name.to_owned()))
    }

    /// Cuts the power: daemon, shims and containers die at once, the cable goes dead, and what a
    /// machine keeps in memory only is gone. Its disk stays.
    pub fn off(&self, name: &str) -> Result<(), LabError> {
        self.node(name)?;
        Fabric::open(&self.files)?.power(name, false)?;
        sweep::node(&self.files, name)?;
        match fs::remove_dir_all(self.files.exec_root(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(LabError::io(format!(
                "empty the exec root of {name}"
            ))(error)),
            _ => Ok(()),
        }
    }

    /// Cuts these nodes off the others. They still reach each other.
    pub fn cut(&self, names: &[&str]) -> Result<(), LabError> {
        for name in names {
            self.node(name)?;
        }
        Fabric::open(&self.files)?.cut(names)
    }

    /// Undoes [`Lab::cut`] and [`Lab::slow`].
    pub fn heal(&self, names: &[&str]) -> Result<(), LabError> {
        for name in names {
            self.node(name)?;
        }
        let mut fabric = Fabric::open(&self.files)?;
        for name in names {
            wire::stop(&self.files, name)?;
            fabric.close_cable(name)?;
            fabric.heal(name)?;
        }
        Ok(())
    }

    /// Puts a slow and lossy wire into a node's cable.
    pub fn slow(&self, name: &str, slowness: Slowness) -> Result<(), LabError> {
        self.node(name)?;
        let mut fabric = Fabric::open(&self.files)?;
        wire::stop(&self.files, name)?;
        let ends = fabric.open_cable(name)?;
        wire::start(&self.files, &self.record.program, name, &ends, slowness)
    }

    /// How every node fares.
    pub fn status(&self) -> Vec<NodeStatus> {
        let mut fabric = Fabric::open(&self.files).ok();
        self.nodes()
            .iter()
            .map(|node| {
                let pid = self.daemon(&node.name).map(|process| process.pid);
                let cable = fabric
                    .as_mut()
                    .and_then(|fabric| fabric.cable(&node.name).ok())
                    .unwrap_or(Cable::Gone);
                NodeStatus {
                    state: state(cable, pid.is_some()),
                    pid,
                    slowness: wire::current(&self.files, &node.name),
                    socket: self.files.socket(&node.name),
                    node: node.clone(),
                }
            })
            .collect()
    }

    /// The daemon's process, if it runs.
    #[must_use]
    pub fn daemon(&self, name: &str) -> Option<Process> {
        let process: Process = read_json(&self.files.process(name)).ok()?;
        process.is_alive().then_some(process)
    }

    /// [`Lab::daemon`], or what to do about it.
    pub fn running(&self, name: &str) -> Result<Process, LabError> {
        self.node(name)?;
        self.daemon(name)
            .ok_or_else(|| LabError::NotRunning(name.to_owned()))
    }

    /// Replaces this process by a command on a node, or on `outside`. Returns only with an error.
    pub fn exec(&self, place: &str, mut command: Command) -> LabError {
        let program = command.get_program().display().to_string();
        match self.inside(place, || command.exec()) {
            Ok(error) => LabError::io(format!("run {program} on {place}"))(error),
            Err(error) => error,
        }
    }

    /// Runs `work` on a thread with the network, host name and hosts file of a node; what it starts
    /// has them too.
    pub fn inside<T: Send>(
        &self,
        place: &str,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, LabError> {
        if place != Fabric::OUTSIDE {
            self.node(place)?;
        }
        let namespace = Namespace::open(&self.files.namespace(place))?;
        namespace.run(|| {
            private::enter(self.files.root(), &self.files.hosts(), place)?;
            Ok(work())
        })?
    }
}

fn state(cable: Cable, runs: bool) -> NodeState {
    match (cable, runs) {
        (Cable::Gone, _) => NodeState::Gone,
        (Cable::Off, _) => NodeState::Off,
        (_, false) => NodeState::Dead,
        (Cable::Cut, true) => NodeState::Cut,
        (Cable::Plugged, true) => NodeState::Running,
    }
}

/// Makes the lab's directory: two labs of one name never get past this.
fn claim(files: &LabFiles) -> Result<(), LabError> {
    let root = files.root();
    let parent = root.parent().unwrap_or(root);
    fs::create_dir_all(parent).map_err(LabError::io(format!("create {}", parent.display())))?;
    match fs::create_dir(root) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(LabError::Exists {
            name: files.name().to_owned(),
            directory: root.to_owned(),
        }),
        other => other.map_err(LabError::io(format!("create {}", root.display()))),
    }
}

fn make_directory(path: &Path) -> Result<(), LabError> {
    fs::create_dir_all(path).map_err(LabError::io(format!("create {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_said_first() {
        assert_eq!(state(Cable::Gone, false), NodeState::Gone);
        assert_eq!(state(Cable::Off, false), NodeState::Off);
        assert_eq!(state(Cable::Cut, false), NodeState::Dead);
        assert_eq!(state(Cable::Cut, true), NodeState::Cut);
        assert_eq!(state(Cable::Plugged, true), NodeState::Running);
    }
}
