//! The framed protocol between daemon and shim.
//!
//! A connection carries one request. The client sends a length-prefixed JSON [`Request`], the shim
//! answers with a length-prefixed JSON [`Reply`]; `Wait` and `ExecWait` answer when it happens.
//! After `Attach` and `Exec` the connection turns into a stream: towards the shim raw bytes of
//! standard input (a half-close is its end), towards the daemon frames of output.
//!
//! A daemon must talk to shims older than itself, because containers outlive upgrades: JSON with
//! unknown fields ignored and new fields defaulted does that, and `version` lets it refuse the rest.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::exit::ExitStatus;
use crate::request::{AttachRequest, LogTarget, RuntimeKind, StdioConfig};

/// The protocol spoken by this build.
pub(crate) const VERSION: u32 = 1;
/// No request or reply is anywhere near this; a larger one is not ours.
pub(crate) const MAX_MESSAGE: usize = 4 << 20;
/// Name of the socket in the container's directory below `exec_root`.
pub(crate) const SOCKET: &str = "shim.sock";
/// Name of the file that says which process and cgroup belong to the shim.
pub(crate) const STATE_FILE: &str = "state.json";
/// stream, then the payload's length as big-endian u32.
pub(crate) const OUTPUT_HEADER: usize = 5;
pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub version: u32,
    pub call: Call,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Only ever on the inherited connection.
    Create(CreateCall),
    Start,
    Kill {
        signal: i32,
    },
    Resize {
        exec: Option<String>,
        rows: u16,
        columns: u16,
    },
    Attach(AttachRequest),
    CloseStdin,
    Wait,
    /// Answers when the kernel has killed a process of the container for memory, or on exit.
    WaitOom {
        seen: u64,
    },
    Exec(ExecCall),
    ExecWait {
        id: String,
    },
    Status,
    Delete,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CreateCall {
    pub id: String,
    pub bundle: PathBuf,
    pub stdio: StdioConfig,
    pub log: LogTarget,
    pub runtime: RuntimeKind,
    pub systemd_cgroup: bool,
    /// Owner of the stdio pipes, so that the container's user may reopen `/dev/stdout`.
    pub uid: u32,
    pub gid: u32,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    pub security: Security,
    /// Last component of the cgroup's path: what tells the container's own cgroups from an ancestor's,
    /// which nobody must kill or remove.
    pub cgroup_name: String,
    /// Device rules for cgroup v2, where they are an eBPF program that libcontainer is built without.
    pub device_rules: Option<PathBuf>,
}

/// What the executor does between libcontainer's set-up and `execve`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Security {
    /// A compiled filter on disk; `None`: unconfined.
    pub seccomp: Option<PathBuf>,
    /// Capability masks to end with, when libcontainer was told to leave CAP_SYS_ADMIN.
    pub capabilities: Option<CapabilityMasks>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CapabilityMasks {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExecCall {
    pub id: String,
    /// The process as libcontainer or the OCI runtime shall read it.
    pub process: PathBuf,
    pub tty: bool,
    pub streams: AttachRequest,
    pub uid: u32,
    pub gid: u32,
    pub console_size: Option<(u16, u16)>,
    pub security: Security,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StatusReply {
    pub pid: i32,
    pub started: bool,
    pub runtime: RuntimeKind,
    pub cgroup: Cgroup,
    pub oom_kills: u64,
    pub log_lines_dropped: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Created { pid: i32, cgroup: Cgroup },
    Pid(i32),
    OomKills(u64),
    Exited(ExitStatus),
    Status(StatusReply),
    Failed(Failure),
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Docker's exit code, if it was the process that could not be started.
    #[serde(default)]
    pub code: Option<i32>,
    #[serde(default)]
    pub no_such_exec: bool,
    pub message: String,
}

impl Failure {
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }
}

/// What is left for whoever finds a dead shim: enough to clean up after it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShimState {
    pub version: u32,
    pub shim_pid: i32,
    pub pid: i32,
    pub bundle: PathBuf,
    pub cgroup: Cgroup,
    #[serde(default)]
    pub runtime: RuntimeKind,
}

/// Length prefix and JSON of a message.
pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let body = serde_json::to_vec(message).expect("protocol messages have string keys only");
    let mut framed = Vec::with_capacity(body.len() + 4);
    framed.extend_from_slice(&(body.len() as u32).to_be_bytes());
    framed.extend_from_slice(&body);
    framed
}
