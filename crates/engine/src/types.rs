//! Requests, options and streams of the engine's calls.

use std::pin::Pin;

use bollard_stubs::models as m;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;

use crate::error::Result;
use crate::filters::Filters;
use crate::time::UnixNanos;

/// What a container is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CreateRequest {
    pub config: m::ContainerConfig,
    pub host_config: m::HostConfig,
    pub networking_config: Option<m::NetworkingConfig>,
    /// `os[/arch[/variant]]`; must be this machine's.
    pub platform: Option<String>,
    /// A swarm's task with secrets or configs: it starts only once those were provided.
    pub task_files: bool,
}

impl CreateRequest {
    /// Takes Docker's body apart into its three parts.
    pub fn from_body(body: m::ContainerCreateBody, platform: Option<String>) -> Self {
        Self {
            config: m::ContainerConfig {
                hostname: body.hostname,
                domainname: body.domainname,
                user: body.user,
                attach_stdin: body.attach_stdin,
                attach_stdout: body.attach_stdout,
                attach_stderr: body.attach_stderr,
                exposed_ports: body.exposed_ports,
                tty: body.tty,
                open_stdin: body.open_stdin,
                stdin_once: body.stdin_once,
                env: body.env,
                cmd: body.cmd,
                healthcheck: body.healthcheck,
                args_escaped: body.args_escaped,
                image: body.image,
                volumes: body.volumes,
                working_dir: body.working_dir,
                entrypoint: body.entrypoint,
                network_disabled: body.network_disabled,
                on_build: body.on_build,
                labels: body.labels,
                stop_signal: body.stop_signal,
                stop_timeout: body.stop_timeout,
                shell: body.shell,
            },
            host_config: body.host_config.unwrap_or_default(),
            networking_config: body.networking_config,
            platform,
            task_files: false,
        }
    }
}

/// How to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Instead of the container's own stop signal.
    pub signal: Option<String>,
    /// Seconds until SIGKILL; negative: never. `None`: the container's own, or 10.
    pub timeout: Option<i64>,
}

/// How to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Anonymous volumes too.
    pub volumes: bool,
    /// A legacy link rather than the container; refused.
    pub link: bool,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Returns at once if it does not run.
    #[default]
    NotRunning,
    /// The next exit, even if it does not run now.
    NextExit,
    /// Until the container is gone.
    Removed,
}

/// A wait that is already registered; dropping it ends the wait.
pub type WaitHandle = BoxFuture<'static, Result<m::ContainerWaitResponse>>;

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    pub all: bool,
    /// The newest so many, whatever their state. 0 is no limit.
    pub limit: usize,
    /// Compute sizes (slow).
    pub size: bool,
    pub filters: Filters,
}

/// Which log lines, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub since: Option<UnixNanos>,
    pub until: Option<UnixNanos>,
    pub timestamps: bool,
    /// The attributes that log options add to each line.
    pub details: bool,
    /// The last so many lines; `None` is all.
    pub tail: Option<usize>,
}

/// Which of a process' streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StdStream {
    Stdout,
    Stderr,
}

/// A piece of output. With a TTY everything is `Stdout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub stream: StdStream,
    pub bytes: Bytes,
}

/// A log entry. `bytes` is what to send: the line with its newline if it had one, after the
/// timestamp and the details if they were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFrame {
    pub stream: StdStream,
    pub timestamp: UnixNanos,
    pub bytes: Bytes,
}

/// A container's log.
pub struct LogStream {
    /// Send the bytes raw rather than in stdcopy frames.
    pub tty: bool,
    pub frames: BoxStream<'static, Result<LogFrame>>,
}

/// A process' standard input; `shutdown` closes it.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// A connection to a process' streams. Output ends when the process has ended and all of its
/// output was given, or when the detach keys were typed.
pub struct Attach {
    /// Send the bytes raw rather than in stdcopy frames.
    pub tty: bool,
    /// If stdin was asked for and the process has one.
    pub input: Option<Input>,
    pub output: BoxStream<'static, Frame>,
}

/// What to attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Live output; without it, only `logs`.
    pub stream: bool,
    /// What was logged so far, first.
    pub logs: bool,
    /// Docker's key names ("ctrl-p,ctrl-q"); `None`: the default.
    pub detach_keys: Option<String>,
}

/// How to start an exec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecStart {
    pub detach: bool,
    pub tty: bool,
    /// Height and width.
    pub console_size: Option<(u16, u16)>,
}

/// A file in a container, as the archive calls describe it in `X-Docker-Container-Path-Stat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    pub name: String,
    pub size: i64,
    /// Go's `os.FileMode` bits, not `st_mode`.
    pub mode: u32,
    /// RFC 3339.
    pub mtime: String,
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

/// A body on its way in or out.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// How to unpack into a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutArchiveOptions {
    /// Refuse to replace a directory with a file, or the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Keep the archive's owners; otherwise files belong to the container's user.
    pub copy_uid_gid: bool,
}

/// One line of progress of a load, import or pull: Docker's JSON messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgressMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<m::ProgressDetail>,
    /// What programs read beside the text: an id, a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// Progress until the end or the first error.
pub type ProgressStream = BoxStream<'static, Result<ProgressMessage>>;

/// Which images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageListOptions {
    /// Intermediate images too.
    pub all: bool,
    pub filters: Filters,
    pub shared_size: bool,
    pub digests: bool,
}

/// How to remove an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageRemoveOptions {
    pub force: bool,
    pub no_prune: bool,
}

/// What an import makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// The name to give, without tag.
    pub repo: Option<String>,
    pub tag: Option<String>,
    pub message: String,
    /// Dockerfile instructions ("CMD …", "ENV …").
    pub changes: Vec<String>,
    pub platform: Option<String>,
}

/// What a commit makes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitOptions {
    pub container: String,
    pub repo: Option<String>,
    pub tag: Option<String>,
    pub comment: String,
    pub author: String,
    /// Pause the container meanwhile.
    pub pause: bool,
    pub changes: Vec<String>,
    pub config: Option<m::ContainerConfig>,
}

/// Parts of `docker system df`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsageOptions {
    pub containers: bool,
    pub images: bool,
    pub volumes: bool,
}

impl Default for DiskUsageOptions {
    fn default() -> Self {
        Self {
            containers: true,
            images: true,
            volumes: true,
        }
    }
}

/// What `docker system df` shows. Parts not asked for are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiskUsage {
    /// All layers together.
    pub layers_size: i64,
    pub images: Option<Vec<m::ImageSummary>>,
    pub containers: Option<Vec<m::ContainerSummary>>,
    pub volumes: Option<Vec<m::Volume>>,
}
