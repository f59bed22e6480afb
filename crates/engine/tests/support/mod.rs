//! An engine in a temporary directory and a network namespace of its own, and a busybox image.
#![allow(
    dead_code,
    clippy::unnecessary_wraps,
    reason = "every test binary uses its own part"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bollard_stubs::models as m;
use bytes::Bytes;
use futures::StreamExt as _;
use skep_engine::{
    Attach, AttachOptions, CreateRequest, Engine, EngineConfig, ImportOptions, LogOptions,
    RemoveOptions, WaitCondition,
};
use skep_netlink::Namespace;
use tempfile::TempDir;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// How long anything may take before a test says that it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Lab {
    pub directory: TempDir,
    pub host: Namespace,
    cgroup_parent: String,
}

impl Lab {
    pub fn new() -> Self {
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_env_filter("warn")
            .try_init();
        let directory = tempfile::tempdir().unwrap();
        let host = Namespace::create_unnamed().unwrap();
        host.bind_at(&directory.path().join("host")).unwrap();
        let unique = format!(
            "/skep-engine-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        Self {
            directory,
            host,
            cgroup_parent: unique,
        }
    }

    pub fn config(&self) -> EngineConfig {
        config_in(self.directory.path(), &self.cgroup_parent)
    }

    pub fn cgroup_parent(&self) -> &str {
        &self.cgroup_parent
    }

    pub async fn engine(&self) -> Arc<Engine> {
        Engine::start(self.config()).await.unwrap()
    }

    /// An engine with an image called busybox.
    pub async fn engine_with_busybox(&self) -> Arc<Engine> {
        let engine = self.engine().await;
        import_busybox(&engine, &[]).await;
        engine
    }
}

impl Lab {
    /// What a test leaves running: shims, told by the directory they were given, and what is in
    /// the test's cgroups.
    fn end_containers(&self) {
        let ours = self.directory.path().display().to_string();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let pid = entry
                .file_name()
                .to_string_lossy()
                .parse()
                .ok()
                .filter(|pid| *pid != std::process::id() as i32);
            if String::from_utf8_lossy(&command).contains(&ours) {
                kill(pid);
            }
        }
        let roots: Vec<_> = std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        for root in roots.iter().chain([&PathBuf::from("/sys/fs/cgroup")]) {
            let parent = root.join(self.cgroup_parent.trim_start_matches('/'));
            for group in std::fs::read_dir(&parent)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
            {
                for pid in std::fs::read_to_string(group.join("cgroup.procs"))
                    .unwrap_or_default()
                    .lines()
                {
                    kill(pid.parse().ok());
                }
                let end = std::time::Instant::now() + PATIENCE;
                while group.is_dir()
                    && std::fs::remove_dir(&group).is_err()
                    && std::time::Instant::now() < end
                {
                    std::thread::yield_now();
                }
            }
            let _ = std::fs::remove_dir(&parent);
        }
    }
}

fn kill(pid: Option<i32>) {
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.end_containers();
        for mount in std::fs::read_to_string("/proc/self/mounts")
            .unwrap_or_default()
            .lines()
        {
            let target = mount.split(' ').nth(1).unwrap_or_default();
            if Path::new(target).starts_with(self.directory.path()) {
                let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
            }
        }
        let _ = Namespace::delete_at(&self.directory.path().join("host"));
    }
}

pub fn config_in(path: &Path, cgroup_parent: &str) -> EngineConfig {
    let mut config = EngineConfig::new(path.join("data"), path.join("exec"), shim());
    config.network.host_namespace = Some(path.join("host"));
    config.cgroup_parent = Some(cgroup_parent.to_owned());
    config
}

/// The example of this crate, built together with its tests.
fn shim() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(2).unwrap();
    let shim = target.join("examples/engine_shim");
    assert!(
        shim.exists(),
        "build it with: cargo build -p skep-engine --example engine_shim"
    );
    shim
}

pub async fn import_busybox(engine: &Arc<Engine>, changes: &[&str]) {
    let body = futures::stream::iter([Ok(Bytes::from(busybox_tar()))]).boxed();
    let options = ImportOptions {
        repo: Some("busybox".to_owned()),
        changes: changes.iter().map(|&change| change.to_owned()).collect(),
        ..ImportOptions::default()
    };
    let messages: Vec<_> = engine
        .import_image(body, options)
        .await
        .unwrap()
        .collect()
        .await;
    assert!(messages.iter().all(Result::is_ok), "{messages:?}");
}

fn busybox_tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let directory = |tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        tar.append_data(&mut header, path, std::io::empty())
            .unwrap();
    };
    for path in ["bin", "etc", "root", "usr", "usr/bin", "data"] {
        directory(&mut tar, path, 0o755);
    }
    directory(&mut tar, "tmp", 0o1777);
    let mut file = std::fs::File::open("/bin/busybox").unwrap();
    tar.append_file("bin/busybox", &mut file).unwrap();
    for applet in [
        "sh", "true", "false", "sleep", "cat", "echo", "ls", "id", "env", "hostname", "kill", "ps",
        "touch", "stat", "seq", "mount", "ip", "grep", "wc", "head", "tail", "test", "printf",
        "stty", "readlink", "pwd", "rm", "mkdir", "dd",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    let text = |tar: &mut tar::Builder<Vec<u8>>, path: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    };
    text(
        &mut tar,
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/data:/bin/sh\n",
    );
    text(
        &mut tar,
        "etc/group",
        "root:x:0:\napp:x:1000:\naudio:x:29:app\n",
    );
    text(&mut tar, "data/seed", "from the image\n");
    text(&mut tar, "bin/plain", "not executable\n");
    tar.into_inner().unwrap()
}

pub fn strings(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|&word| word.to_owned()).collect())
}

/// A request that runs `sh -c script`.
pub fn script(script: &str) -> CreateRequest {
    command(&["sh", "-c", script])
}

pub fn command(words: &[&str]) -> CreateRequest {
    CreateRequest {
        config: m::ContainerConfig {
            image: Some("busybox".to_owned()),
            cmd: strings(words),
            ..Default::default()
        },
        ..CreateRequest::default()
    }
}

pub async fn create(engine: &Arc<Engine>, name: &str, request: CreateRequest) -> String {
    engine
        .create_container(Some(name.to_owned()), request)
        .await
        .unwrap()
        .id
}

pub async fn run(engine: &Arc<Engine>, name: &str, request: CreateRequest) -> String {
    let id = create(engine, name, request).await;
    engine.start_container(&id).await.unwrap();
    id
}

/// As `docker run`: attach, wait, start, read all, and the exit code.
pub async fn output_of(engine: &Arc<Engine>, request: CreateRequest) -> (i64, String) {
    let id = engine.create_container(None, request).await.unwrap().id;
    let attach = engine.attach_container(&id, all_output()).await.unwrap();
    let wait = engine
        .wait_container(&id, WaitCondition::NextExit)
        .await
        .unwrap();
    engine.start_container(&id).await.unwrap();
    let output = soon(collect(attach)).await;
    let code = soon(wait).await.unwrap().status_code;
    engine
        .remove_container(
            &id,
            RemoveOptions {
                force: true,
                volumes: true,
                link: false,
            },
        )
        .await
        .unwrap();
    (code, output)
}

pub fn all_output() -> AttachOptions {
    AttachOptions {
        stdout: true,
        stderr: true,
        stream: true,
        ..AttachOptions::default()
    }
}

pub async fn collect(mut attach: Attach) -> String {
    let mut output = Vec::new();
    while let Some(frame) = attach.output.next().await {
        output.extend_from_slice(&frame.bytes);
    }
    String::from_utf8(output).unwrap()
}

pub async fn log_of(engine: &Engine, id: &str, options: LogOptions) -> String {
    let stream = engine
        .logs_container(
            id,
            LogOptions {
                stdout: true,
                stderr: true,
                ..options
            },
        )
        .await
        .unwrap();
    let frames: Vec<_> = soon(stream.frames.collect()).await;
    frames
        .into_iter()
        .map(|frame| String::from_utf8(frame.unwrap().bytes.to_vec()).unwrap())
        .collect()
}

/// Waits until the container has written this.
pub async fn output_has(engine: &Engine, id: &str, text: &str) {
    eventually_async(|| async {
        log_of(engine, id, LogOptions::default())
            .await
            .contains(text)
    })
    .await;
}

pub async fn wait(engine: &Engine, id: &str) -> i64 {
    let wait = engine
        .wait_container(id, WaitCondition::NotRunning)
        .await
        .unwrap();
    soon(wait).await.unwrap().status_code
}

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it hangs")
}

/// Ends an engine and waits until nothing of it holds the data root.
pub async fn drop_engine(engine: Arc<Engine>) {
    engine.shutdown().await.unwrap();
    let weak = Arc::downgrade(&engine);
    drop(engine);
    eventually_async(|| async { weak.strong_count() == 0 }).await;
}

pub fn eventually(mut check: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !check() {
        assert!(std::time::Instant::now() < end, "it never happens");
        std::thread::yield_now();
    }
}

pub async fn eventually_async<F: Future<Output = bool>>(mut check: impl FnMut() -> F) {
    let end = std::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(std::time::Instant::now() < end, "it never happens");
        tokio::task::yield_now().await;
    }
}
