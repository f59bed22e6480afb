//! One daemon under test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::programs::{docker_program, image_tarball, skep_program};
use crate::{Docker, Machine, Outcome, cleanup};

const START_BOUND: Duration = Duration::from_secs(20);
const LEFTOVERS_BOUND: Duration = Duration::from_secs(5);

/// A running `skep daemon`; killed and swept away on drop.
#[derive(Debug)]
pub struct Daemon {
    machine: Machine,
    directory: TempDir,
    cgroup: String,
    program: PathBuf,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    own_resolver: bool,
    child: Option<Child>,
    docker: Docker,
}

/// What to start.
#[derive(Debug, Default)]
pub struct DaemonBuilder {
    flags: Vec<String>,
    images: Vec<String>,
    program: Option<PathBuf>,
    environment: Vec<(String, String)>,
    data_root_bytes: Option<u64>,
    name_server: Option<String>,
    exec_root_in_memory: bool,
}

impl DaemonBuilder {
    /// Shows the daemon an `/etc/resolv.conf` of its own with this name server. The host's may not
    /// be reachable from the test's namespace, and waiting for it takes longer than being refused.
    #[must_use]
    pub fn name_server(mut self, address: &str) -> Self {
        self.name_server = Some(address.to_owned());
        self
    }

    /// Puts the exec root on a tmpfs, as `/run` is.
    #[must_use]
    pub fn exec_root_in_memory(mut self) -> Self {
        self.exec_root_in_memory = true;
        self
    }

    /// Puts the data root on a file system of its own with this many bytes, for full disks.
    #[must_use]
    pub fn data_root_of(mut self, bytes: u64) -> Self {
        self.data_root_bytes = Some(bytes);
        self
    }

    /// Sets a variable in the daemon's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a daemon flag.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Loads a tarball of `cargo xtask images` once the daemon answers.
    #[must_use]
    pub fn image(mut self, name: &str) -> Self {
        self.images.push(name.to_owned());
        self
    }

    /// Starts another program than `skep daemon` (the same flags must fit it).
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(self) -> anyhow::Result<Daemon> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short: socket paths end at 108 bytes.
        let directory = tempfile::Builder::new().prefix("skep-").tempdir()?;
        std::fs::create_dir(directory.path().join("cli"))?;
        let docker = Docker::new(
            &docker_program(),
            &directory.path().join("docker.sock"),
            &directory.path().join("cli"),
        );
        let mut daemon = Daemon {
            machine: Machine::new()?,
            cgroup: format!("/skep-test-{}-{number}", std::process::id()),
            program: self.program.map_or_else(skep_program, Ok)?,
            flags: self.flags,
            environment: self.environment,
            own_resolver: self.name_server.is_some(),
            child: None,
            docker,
            directory,
        };
        if let Some(bytes) = self.data_root_bytes {
            mount_memory(&daemon.data_root(), &format!("size={bytes}"))?;
        }
        if self.exec_root_in_memory {
            mount_memory(&daemon.exec_root(), "mode=0711")?;
        }
        if let Some(address) = self.name_server {
            std::fs::write(daemon.resolver(), format!("nameserver {address}\n"))?;
        }
        daemon.spawn()?;
        for image in &self.images {
            let tarball = image_tarball(image);
            let loaded = daemon
                .docker
                .run(["load".as_ref(), "-i".as_ref(), tarball.as_os_str()]);
            if loaded.code != 0 {
                bail!("{loaded}");
            }
        }
        Ok(daemon)
    }
}

impl Daemon {
    /// A daemon with the busybox image.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        Self::builder()
            .image("busybox")
            .start()
            .expect("the daemon starts")
    }

    #[must_use]
    pub fn builder() -> DaemonBuilder {
        DaemonBuilder::default()
    }

    /// The CLI, speaking to this daemon.
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

    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    #[must_use]
    pub fn data_root(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn exec_root(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn resolver(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// A directory of the test's own, removed with the daemon.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// The daemon's process id.
    ///
    /// # Panics
    /// When it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon is running").id()
    }

    /// What the daemon wrote to its standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default()
    }

    /// The command line that starts this daemon, for a second one on the same data root.
    #[must_use]
    pub fn command(&self) -> Command {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let mut command = self.program_in_machine();
        if self.program.file_name().is_some_and(|name| name == "skep") {
            command.arg("daemon");
        }
        command
            .arg(format!("--host=unix://{}", path("docker.sock")))
            .arg(format!("--data-root={}", path("data")))
            .arg(format!("--exec-root={}", path("run")))
            .arg(format!("--pidfile={}", path("docker.pid")))
            .arg(format!("--cgroup-parent={}", self.cgroup))
            .args(&self.flags)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        if !self
            .flags
            .iter()
            .any(|flag| flag.starts_with("--config-file"))
        {
            command.arg("--config-file=/dev/null");
        }
        command
    }

    /// With a resolver of its own it gets a mount namespace that shows it. Each step becomes the
    /// next, so that the child's process id is the daemon's.
    fn program_in_machine(&self) -> Command {
        let program = self.program.display().to_string();
        if !self.own_resolver {
            return self.machine.command(&program);
        }
        let mut command = self.machine.command("unshare");
        command
            .args(["--mount", "--propagation=slave", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"")
            .arg(self.resolver())
            .arg(program);
        command
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("daemon.log"))?;
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start the daemon")?;
        self.child = Some(child);
        let started = Instant::now();
        loop {
            if let Some(status) = self
                .child
                .as_mut()
                .map(Child::try_wait)
                .transpose()?
                .flatten()
            {
                bail!("the daemon ended with {status}:\n{}", self.log());
            }
            if std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
                && self.docker.sh("version").code == 0
            {
                return Ok(());
            }
            if started.elapsed() > START_BOUND {
                bail!("the daemon does not answer:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a child has a pid");
        kill_process(pid, signal).expect("the daemon can be signalled");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child
            .take()
            .expect("it was running")
            .wait()
            .expect("it can be waited for");
    }

    /// SIGTERM, and the exit status once it is gone.
    ///
    /// # Panics
    /// When it has not ended within 20 s.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it was running");
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "no end after SIGTERM:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again on the same data root.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.spawn().expect("the daemon starts again");
    }

    /// Removes every container, stops the daemon and lists what is left of it in the kernel:
    /// mounts, processes, cgroups, links. Empty is clean.
    pub fn stop_and_list_leftovers(&mut self) -> Vec<String> {
        let all = self.docker.ok("ps -aq");
        if !all.is_empty() {
            let mut remove = vec!["rm", "-f", "-v"];
            remove.extend(all.lines());
            let _ = self.docker.run(remove).ok();
        }
        self.stop();
        // The kernel takes a namespace's links down after its last user, in its own time.
        let started = Instant::now();
        loop {
            let left = self.leftovers();
            if left.is_empty() || started.elapsed() > LEFTOVERS_BOUND {
                return left;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn leftovers(&self) -> Vec<String> {
        let root = self.directory.path();
        let mut left = Vec::new();
        let named = |kind: &str, path: &Path| format!("{kind} {}", path.display());
        left.extend(
            cleanup::mounts_below(root)
                .iter()
                // Those made for the test itself.
                .filter(|path| **path != self.data_root() && **path != self.exec_root())
                .map(|path| named("mount", path)),
        );
        left.extend(
            cleanup::processes_naming(root)
                .iter()
                .map(|pid| format!("process {pid}")),
        );
        left.extend(
            cleanup::processes_in_cgroup(&self.cgroup)
                .iter()
                .map(|pid| format!("process {pid}")),
        );
        left.extend(
            cleanup::cgroups_at(&self.cgroup)
                .iter()
                // The parent was given to the daemon: it is not its to remove.
                .filter(|path| !path.ends_with(self.cgroup.trim_start_matches('/')))
                .map(|path| named("cgroup", path)),
        );
        let links = self.machine.links().unwrap_or_default();
        left.extend(
            links
                .iter()
                .filter(|name| name.starts_with("veth"))
                .map(|name| format!("link {name}")),
        );
        left
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        cleanup::sweep(self.directory.path(), &self.cgroup);
    }
}

fn mount_memory(path: &Path, options: &str) -> anyhow::Result<()> {
    std::fs::create_dir(path)?;
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount(
        "tmpfs",
        path,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        options.as_c_str(),
    )
    .with_context(|| format!("can't mount a tmpfs on {}", path.display()))
}
