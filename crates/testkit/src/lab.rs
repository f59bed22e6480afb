//! Several daemons that reach each other.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use skep_lab::{Fabric, LabSpec, Leftovers, NodeStatus, Role, Runtime, Slowness};
use tempfile::TempDir;

use crate::programs::{
    debian_docker, docker_program, faketime_library, image_tarball, skep_program,
};
use crate::{Docker, Outcome, machine};

/// A lab under test; removed with all in it on drop, after a panic too.
#[derive(Debug)]
pub struct Lab {
    inner: skep_lab::Lab,
    nodes: Vec<LabNode>,
    directory: TempDir,
}

/// One node of it: the docker CLI against its daemon.
#[derive(Debug)]
pub struct LabNode {
    pub name: String,
    pub address: String,
    docker: Docker,
    namespace: PathBuf,
    log: PathBuf,
    socket: PathBuf,
}

/// What to start.
#[derive(Debug)]
pub struct LabBuilder {
    managers: usize,
    workers: usize,
    others: Vec<(String, Role, bool)>,
    images: Vec<String>,
    flags: Vec<String>,
    joined: bool,
}

impl LabBuilder {
    /// Managers `m1`, `m2`, …
    #[must_use]
    pub fn managers(mut self, count: usize) -> Self {
        self.managers = count;
        self
    }

    /// Workers `w1`, `w2`, …
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// A node that the test joins itself.
    #[must_use]
    pub fn single(mut self, name: &str) -> Self {
        self.others.push((name.to_owned(), Role::Single, false));
        self
    }

    /// Debian's dockerd, which the test joins itself.
    #[must_use]
    pub fn dockerd(mut self, name: &str) -> Self {
        self.others.push((name.to_owned(), Role::Single, true));
        self
    }

    /// Loads a tarball of `cargo xtask images` on every node.
    #[must_use]
    pub fn image(mut self, name: &str) -> Self {
        self.images.push(name.to_owned());
        self
    }

    /// A flag for every daemon.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Leaves it to the test to make a swarm.
    #[must_use]
    pub fn not_joined(mut self) -> Self {
        self.joined = false;
        self
    }

    /// Starts all nodes, loads the images and makes the swarm.
    pub fn start(self) -> anyhow::Result<Lab> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short: socket paths end at 108 bytes.
        let directory = tempfile::Builder::new().prefix("skep-l").tempdir()?;
        std::fs::create_dir(directory.path().join("cli"))?;
        let name = format!("t{}-{number}", std::process::id());
        let mut spec = LabSpec::new(&name, skep_program()?).with(self.managers, self.workers);
        directory.path().clone_into(&mut spec.parent);
        spec.flags = self.flags;
        for (name, role, debian) in self.others {
            let runtime = if debian {
                Runtime::Dockerd(debian_docker()?)
            } else {
                Runtime::Skep
            };
            spec = spec.with_node(&name, role, runtime);
        }
        let lab = skep_lab::Lab::create(&spec)?;
        // From here on it is removed whatever happens.
        let lab = Lab::around(lab, directory);
        lab.inner.start_all()?;
        lab.load(&self.images)?;
        if self.joined {
            lab.inner.join().context("joining the lab")?;
        }
        Ok(lab)
    }
}

impl Lab {
    /// A swarm of this many managers and workers, all with the busybox image.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn of(managers: usize, workers: usize) -> Self {
        Self::builder()
            .managers(managers)
            .workers(workers)
            .image("busybox")
            .start()
            .expect("the lab starts")
    }

    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder {
            managers: 0,
            workers: 0,
            others: Vec::new(),
            images: Vec::new(),
            flags: Vec::new(),
            joined: true,
        }
    }

    fn around(lab: skep_lab::Lab, directory: TempDir) -> Self {
        let nodes = lab
            .nodes()
            .iter()
            .map(|node| {
                let socket = lab.files().socket(&node.name);
                LabNode {
                    name: node.name.clone(),
                    address: node.address.to_string(),
                    docker: Docker::new(&docker_program(), &socket, &directory.path().join("cli")),
                    namespace: lab.files().namespace(&node.name),
                    log: lab.files().log(&node.name),
                    socket,
                }
            })
            .collect();
        Self {
            inner: lab,
            nodes,
            directory,
        }
    }

    fn load(&self, images: &[String]) -> anyhow::Result<()> {
        for image in images {
            let tarball = image_tarball(image);
            std::thread::scope(|scope| {
                let loading: Vec<_> = self
                    .nodes
                    .iter()
                    .map(|node| scope.spawn(|| self.inner.load_image(&node.name, &tarball)))
                    .collect();
                for thread in loading {
                    let outcome = thread.join();
                    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                }
                anyhow::Ok(())
            })?;
        }
        Ok(())
    }

    /// The node called `name`.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    pub fn node(&self, name: &str) -> &LabNode {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|node| node.name == name)
            .unwrap_or_else(|| panic!("there is no node {name}"))
    }

    #[must_use]
    pub fn nodes(&self) -> &[LabNode] {
        &self.nodes
    }

    /// Runs a docker command line on a node; it must succeed.
    #[track_caller]
    pub fn ok(&self, node: &str, line: &str) -> String {
        self.node(node).ok(line)
    }

    /// Runs a docker command line on a node.
    #[track_caller]
    pub fn sh(&self, node: &str, line: &str) -> Outcome {
        self.node(node).sh(line)
    }

    /// A command that will run beside the nodes.
    #[must_use]
    pub fn outside(&self, program: &str) -> Command {
        machine::inside(&self.inner.files().namespace(Fabric::OUTSIDE), program)
    }

    /// A command with a node's network, host name and hosts file.
    #[track_caller]
    #[must_use]
    pub fn exec(&self, node: &str, program: &str) -> Command {
        let mut command = Command::new(skep_program().expect("the lab runs it already"));
        command
            .arg("lab")
            .arg("--dir")
            .arg(self.directory.path())
            .args(["--name", self.inner.files().name()])
            .args(["exec", node, "--", program]);
        command
    }

    /// Runs `work` in a node's network, or beside the nodes: sockets made in it belong there.
    ///
    /// # Panics
    /// When the node's network is gone.
    #[track_caller]
    pub fn inside<T: Send>(&self, node: &str, work: impl FnOnce() -> T + Send) -> T {
        self.inner
            .inside(node, work)
            .expect("the node has a network")
    }

    /// `kill -9` of a daemon.
    #[track_caller]
    pub fn kill(&self, node: &str) {
        self.inner.kill(node).expect("the daemon can be killed");
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn stop(&self, node: &str) {
        self.inner.stop(node).expect("the daemon ends");
    }

    /// Cuts a node's power.
    #[track_caller]
    pub fn off(&self, node: &str) {
        self.inner.off(node).expect("the node can be switched off");
    }

    /// Starts a daemon that was killed or switched off.
    #[track_caller]
    pub fn start(&self, node: &str) {
        self.inner.start(node).expect("the daemon starts again");
    }

    /// Starts a daemon whose clock is wrong by this many seconds: a library of Debian's stands between
    /// it and the machine's clock, which nobody touches.
    ///
    /// # Panics
    /// When the library is not installed.
    #[track_caller]
    pub fn start_with_clock(&self, node: &str, seconds: i64) {
        let library = faketime_library().expect("libfaketime is installed");
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME", &format!("{seconds:+}s")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        self.inner
            .start_with(node, &environment)
            .expect("the daemon starts again");
    }

    /// A node's file, below the directory that the daemon keeps all of the swarm in.
    #[must_use]
    pub fn swarm_file(&self, node: &str, name: &str) -> PathBuf {
        self.inner.files().data_root(node).join("swarm").join(name)
    }

    /// Cuts these nodes off the others; they still reach each other.
    #[track_caller]
    pub fn cut(&self, nodes: &[&str]) {
        self.inner.cut(nodes).expect("the nodes can be cut off");
    }

    /// Undoes [`Lab::cut`] and [`Lab::slow`].
    #[track_caller]
    pub fn heal(&self, nodes: &[&str]) {
        self.inner.heal(nodes).expect("the nodes can be healed");
    }

    /// Makes a node's cable slow and lossy, each way.
    #[track_caller]
    pub fn slow(&self, node: &str, delay: Duration, loss: f64) {
        self.inner
            .slow(node, Slowness { delay, loss })
            .expect("the node can be slowed");
    }

    #[must_use]
    pub fn status(&self) -> Vec<NodeStatus> {
        self.inner.status()
    }

    /// Removes the lab now, and says what was left of it.
    ///
    /// # Panics
    /// When something can not be removed.
    #[track_caller]
    pub fn down(&self) -> Leftovers {
        skep_lab::down(self.inner.files()).expect("the lab can be removed");
        Leftovers::of(self.inner.files())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- the log of {}:\n{}", node.name, node.log());
            }
        }
        if let Err(error) = skep_lab::down(self.inner.files()) {
            eprintln!("the lab was not removed: {error}");
        }
    }
}

impl LabNode {
    /// The CLI, speaking to this node's daemon.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Runs a docker command line that must succeed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.docker.ok(line)
    }

    /// Runs a docker command line.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Outcome {
        self.docker.sh(line)
    }

    /// A command that will run in the node's network namespace.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        machine::inside(&self.namespace, program)
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// What the daemon wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
