//! A busybox root file system, a runtime in a temporary directory, and what tests ask of both.
#![allow(dead_code, reason = "every test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    reason = "a helper of tests; clippy takes only test functions for tests"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use skep_runtime::oci_spec::runtime::LinuxNamespaceType;
use skep_runtime::spec::{ContainerSpec, Namespace};
use skep_runtime::{
    AttachOutput, AttachRequest, CreateRequest, ExecRequest, LogTarget, Runtime, RuntimeConfig,
    RuntimeKind, SeccompProfile, Shim, StdStream, StdioConfig,
};
use tempfile::TempDir;

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Bench {
    pub(crate) directory: TempDir,
    pub(crate) runtime: Runtime,
    /// Below every hierarchy's root; nobody else uses it.
    pub(crate) cgroup_parent: String,
}

/// What a test changes of a container that runs `/bin/sh -c command`.
pub(crate) struct Wish {
    pub(crate) spec: ContainerSpec,
    pub(crate) stdio: StdioConfig,
    pub(crate) log: LogTarget,
    pub(crate) runtime: RuntimeKind,
    pub(crate) seccomp: SeccompProfile,
}

pub(crate) const ENV: [&str; 2] = ["PATH=/usr/bin:/bin", "HOME=/root"];

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let unique = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        build_rootfs(&directory.path().join("rootfs"));
        let runtime = runtime_in(directory.path());
        Self {
            directory,
            runtime,
            cgroup_parent: format!("/skep-test-{unique}"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.path().join("containers").join(id)
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.bundle(id).join(format!("{id}-json.log"))
    }

    pub(crate) fn json_log(&self, id: &str) -> LogTarget {
        LogTarget::JsonFile {
            path: self.log_path(id),
            max_size: None,
            max_file: 1,
            compress: false,
            attrs: BTreeMap::new(),
            buffer: None,
        }
    }

    pub(crate) fn wish(&self, id: &str, args: &[&str]) -> Wish {
        let spec = ContainerSpec::new(self.rootfs())
            .args(args.iter().copied())
            .env(ENV)
            .hostname("box")
            .namespace(LinuxNamespaceType::Network, Namespace::Private)
            .cgroups_path(format!("{}/{id}", self.cgroup_parent));
        Wish {
            spec,
            stdio: StdioConfig::default(),
            log: self.json_log(id),
            runtime: RuntimeKind::Builtin,
            seccomp: SeccompProfile::Default,
        }
    }

    pub(crate) async fn create(
        &self,
        id: &str,
        wish: Wish,
    ) -> Result<Shim, skep_runtime::RuntimeError> {
        let Wish {
            spec,
            stdio,
            log,
            runtime,
            seccomp,
        } = wish;
        std::fs::create_dir_all(self.bundle(id)).unwrap();
        self.runtime
            .create(CreateRequest {
                id: id.to_owned(),
                bundle: self.bundle(id),
                spec: spec.build(),
                stdio,
                log,
                runtime,
                seccomp,
                systemd_cgroup: false,
            })
            .await
    }

    pub(crate) async fn sh(&self, id: &str, command: &str) -> Shim {
        self.create(id, self.wish(id, &["/bin/sh", "-c", command]))
            .await
            .unwrap()
    }

    /// Runs to the end and returns the exit code and both streams' output.
    pub(crate) async fn run(&self, id: &str, wish: Wish) -> (i32, String) {
        let shim = self.create(id, wish).await.unwrap();
        let attached = shim.attach(all()).await.unwrap();
        shim.start().await.unwrap();
        let text = text(attached.output).await;
        let status = shim.wait().await.unwrap();
        shim.delete().await.unwrap();
        (status.code, text)
    }

    /// Panics if a trace of any container is left.
    pub(crate) fn assert_clean(&self) {
        for entry in std::fs::read_dir(self.path().join("exec")).unwrap() {
            let name = entry.unwrap().file_name();
            assert_eq!(name, "seccomp", "a container's directory is left");
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.path().to_str().unwrap();
        assert!(!mounts.contains(here), "a mount is left");
        for hierarchy in hierarchies() {
            let parent = hierarchy.join(self.cgroup_parent.trim_start_matches('/'));
            let left: Vec<_> = std::fs::read_dir(&parent)
                .into_iter()
                .flatten()
                .filter_map(Result::ok)
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .collect();
            assert!(left.is_empty(), "cgroups are left: {left:?}");
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.shims().is_empty() {
            assert!(Instant::now() < deadline, "shims are left");
            std::thread::yield_now();
        }
    }

    /// Shim processes of this bench.
    pub(crate) fn shims(&self) -> Vec<i32> {
        let here = self.path().join("exec");
        let here = here.to_str().unwrap();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(here) && !is_zombie(*pid)
            })
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // On failure too: nothing of a test may outlive it.
        for pid in self.shims() {
            let _ = std::process::Command::new("kill")
                .args(["-9", &pid.to_string()])
                .status();
        }
        for hierarchy in hierarchies() {
            let parent = hierarchy.join(self.cgroup_parent.trim_start_matches('/'));
            let deadline = Instant::now() + Duration::from_secs(5);
            while parent.exists() && Instant::now() < deadline {
                for entry in std::fs::read_dir(&parent)
                    .into_iter()
                    .flatten()
                    .filter_map(Result::ok)
                {
                    let procs = std::fs::read_to_string(entry.path().join("cgroup.procs"));
                    for pid in procs.unwrap_or_default().lines() {
                        let _ = std::process::Command::new("kill")
                            .args(["-9", pid])
                            .status();
                    }
                    let _ = std::fs::write(entry.path().join("freezer.state"), "THAWED");
                    let _ = std::fs::remove_dir(entry.path());
                }
                let _ = std::fs::remove_dir(&parent);
            }
        }
    }
}

/// Where each v1 hierarchy is mounted, and the place of the only one on v2.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let below = std::fs::read_dir(&root)
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()));
    below.chain(std::iter::once(root))
}

pub(crate) fn runtime_in(directory: &Path) -> Runtime {
    let config = RuntimeConfig {
        exec_root: directory.join("exec"),
        shim: shim_binary(),
        shim_args: Vec::new(),
    };
    Runtime::new(config).unwrap()
}

pub(crate) fn shim_binary() -> PathBuf {
    // To measure one that is built as the product is.
    if let Some(path) = std::env::var_os("SKEP_TEST_SHIM") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().unwrap();
    let shim = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/shim");
    assert!(
        shim.exists(),
        "build the examples of this package too: {}",
        shim.display()
    );
    shim
}

fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_none_or(|rest| rest.starts_with('Z'))
}

fn build_rootfs(rootfs: &Path) {
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "home"] {
        std::fs::create_dir_all(rootfs.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
    let list = std::process::Command::new("/bin/busybox")
        .arg("--list")
        .output()
        .unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines() {
        if applet != "busybox" {
            symlink("/bin/busybox", rootfs.join("bin").join(applet)).unwrap();
        }
    }
    std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    std::fs::write(rootfs.join("etc/plain"), "no program\n").unwrap();
}

pub(crate) fn all() -> AttachRequest {
    AttachRequest {
        stdin: true,
        stdout: true,
        stderr: true,
    }
}

/// Everything until the stream ends, within a bound.
pub(crate) async fn bytes(mut output: AttachOutput) -> Vec<(StdStream, Vec<u8>)> {
    let mut all: Vec<(StdStream, Vec<u8>)> = Vec::new();
    let reading = async {
        while let Some(frame) = output.next().await {
            let (stream, bytes) = frame.unwrap();
            all.push((stream, bytes.to_vec()));
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading)
        .await
        .expect("output must end");
    all
}

pub(crate) async fn text(output: AttachOutput) -> String {
    let all: Vec<u8> = bytes(output)
        .await
        .into_iter()
        .flat_map(|(_, bytes)| bytes)
        .collect();
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until `wanted` has come.
pub(crate) async fn until(output: &mut AttachOutput, wanted: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(wanted) {
            let (_, bytes) = output
                .next()
                .await
                .expect("ended before the text came")
                .unwrap();
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(done.is_ok(), "{wanted:?} did not come, only {seen:?}");
    seen
}

/// A process of the container's own spec with other arguments.
pub(crate) fn exec_request(id: &str, spec: ContainerSpec, args: &[&str]) -> ExecRequest {
    let process = spec
        .args(args.iter().copied())
        .build()
        .process()
        .clone()
        .unwrap();
    ExecRequest {
        id: id.to_owned(),
        process,
        tty: false,
        stdin: false,
        stdout: true,
        stderr: true,
    }
}

/// Waits on a predicate with a bound.
pub(crate) async fn eventually(what: &str, mut predicate: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !predicate() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
