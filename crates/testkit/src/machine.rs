//! A machine for a daemon: a lab's node without anybody beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use skep_lab::{Fabric, LabFiles, LabSpec, Role, Runtime};
use skep_netlink::{Namespace, RouteSocket};
use tempfile::TempDir;

const NAME: &str = "machine";

/// Two joined namespaces: the machine itself and its router. Removed on drop.
#[derive(Debug)]
pub struct Machine {
    files: LabFiles,
    _directory: TempDir,
}

impl Machine {
    /// The machine's own address.
    pub const ADDRESS: &str = "10.231.0.2";
    /// The router's address on the machine's link: the machine's default gateway.
    pub const ROUTER: &str = "10.231.0.1";
    /// An address behind the router: reached only through a default route and, for containers, NAT.
    pub const OUTSIDE: &str = "198.51.100.1";

    /// Makes both namespaces; needs root.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("skep-m").tempdir()?;
        let files = LabFiles::new(directory.path(), NAME)?;
        let machine = Self {
            files,
            _directory: directory,
        };
        machine
            .build()
            .context("can't make the test's network namespaces (this needs root)")?;
        Ok(machine)
    }

    fn build(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.files.namespaces())?;
        let spec = LabSpec::new(NAME, PathBuf::new()).with_node(NAME, Role::Single, Runtime::Skep);
        let mut fabric = Fabric::create(&self.files)?;
        for node in &spec.nodes {
            fabric.add_node(&self.files, node)?;
        }
        Ok(())
    }

    /// A command that will run inside the machine's network namespace.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        inside(&self.files.namespace(NAME), program)
    }

    /// A command that will run on the router.
    #[must_use]
    pub fn outside(&self, program: &str) -> Command {
        inside(&self.files.namespace(Fabric::OUTSIDE), program)
    }

    /// A listener inside the machine, for servers of the test's own.
    pub fn listen(&self, address: std::net::SocketAddr) -> anyhow::Result<std::net::TcpListener> {
        self.inside_of(move || std::net::TcpListener::bind(address))
    }

    /// A connection from inside the machine.
    pub fn connect(&self, address: std::net::SocketAddr) -> anyhow::Result<std::net::TcpStream> {
        self.inside_of(move || std::net::TcpStream::connect(address))
    }

    /// Makes a socket in the machine's namespace; it stays there whoever uses it.
    fn inside_of<T: Send>(
        &self,
        make: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let namespace = std::fs::File::open(self.files.namespace(NAME))?;
        std::thread::scope(|scope| {
            let made = scope.spawn(move || {
                use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
                let kind = Some(LinkNameSpaceType::Network);
                // Only this thread, which ends here.
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)?;
                make()
            });
            Ok(made.join().expect("making a socket does not panic")?)
        })
    }

    /// The machine's links, by name.
    pub fn links(&self) -> anyhow::Result<Vec<String>> {
        let namespace = Namespace::open(&self.files.namespace(NAME))?;
        let links = RouteSocket::open_in(&namespace)?.links()?;
        Ok(links.into_iter().map(|link| link.name).collect())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for name in [NAME, Fabric::OUTSIDE] {
            if let Err(error) = Namespace::delete_at(&self.files.namespace(name)) {
                eprintln!("can't delete the namespace {name}: {error:#}");
            }
        }
    }
}

/// A command for the network namespace bound at `path`.
pub(crate) fn inside(path: &Path, program: &str) -> Command {
    // Not `ip netns exec`: it mounts a fresh /sys, which hides the cgroup mounts.
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", path.display()))
        .arg("--")
        .arg(program);
    command
}
